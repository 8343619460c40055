"""The canvas of a drawing: which material each pixel shows, and how light it is.

A figure is painted twice at once, back to front: into a material index (what is there) and into a relief (how
light or shaded it is). Colour is looked up at the end, so a striped shirt is one index with a texture, and the
number of pixels in which a thing can be seen is a histogram of the indices.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from synthesis.drawn.colours import RGB

Point = tuple[float, float]
NEUTRAL = 128  # relief value that leaves a colour as it is
_SOFTNESS = 0.6  # blur of the relief in pixels of the crop: rims become roundness instead of outlines


class Layers:
    """Supersampled material and relief images of one crop, painted in figure units.

    A point (x, y) in figure units (1 = body height, y down) lies at pixel `origin + scale * (x, y)` of the canvas.
    """

    def __init__(self, size: tuple[int, int], origin: Point, scale: float) -> None:
        self.size = size
        self.origin = origin
        self.scale = scale
        self.material = Image.new("L", size, 0)
        self.relief = Image.new("L", size, NEUTRAL)
        self._material_draw = ImageDraw.Draw(self.material)
        self._relief_draw = ImageDraw.Draw(self.relief)
        self._palette: list[RGB] = [(0, 0, 0)]
        self._slots: list[str] = [""]
        self._textures: dict[int, Image.Image] = {}
        self.prefix = ""

    def add(self, slot: str, rgb: RGB, texture: Image.Image | None = None) -> int:
        """Register a paint for `slot` ("upper", "bag", ...); a texture (canvas-sized RGB) replaces the flat colour."""
        self._palette.append(rgb)
        self._slots.append(self.prefix + slot)
        index = len(self._palette) - 1
        if texture is not None:
            self._textures[index] = texture
        return index

    def to_pixels(self, points: list[Point]) -> list[Point]:
        """Figure units to canvas pixels."""
        (left, top), scale = self.origin, self.scale
        return [(left + scale * x, top + scale * y) for x, y in points]

    def polygon(self, points: list[Point], paint: int, tone: int = NEUTRAL, edge: int = 26) -> None:
        """Fill a polygon; its rim is darker by `edge`, which after smoothing reads as roundness and contact shadow."""
        pixels = self.to_pixels(points)
        self._material_draw.polygon(pixels, fill=paint)
        self._relief_draw.polygon(pixels, fill=tone)
        if edge:
            width = max(1, round(0.012 * self.scale))
            self._relief_draw.line([*pixels, pixels[0]], fill=max(0, tone - edge), width=width)

    def ellipse(self, centre: Point, radii: Point, paint: int, tone: int = NEUTRAL, edge: int = 22) -> None:
        """Fill an axis-parallel ellipse with a darker rim."""
        (x, y), (rx, ry) = centre, radii
        box = self.to_pixels([(x - rx, y - ry), (x + rx, y + ry)])
        self._material_draw.ellipse(box, fill=paint)
        width = max(1, round(0.008 * self.scale))
        self._relief_draw.ellipse(box, fill=tone, outline=max(0, tone - edge), width=width)

    def limb(self, joints: list[Point], radii: list[float], paint: int, tone: int = NEUTRAL) -> None:
        """A tapered, round-ended tube through the joints (two or three), lit from the upper left.

        All rims are painted before the lit middle, so that a knee shows no seam.
        """
        spans = list(pairwise(zip(joints, radii, strict=True)))
        for (start, r0), (end, r1) in spans:
            self._tube(self._material_draw, start, end, (r0, r1), paint)
            self._tube(self._relief_draw, start, end, (r0, r1), max(0, tone - 30))
        for share, light in ((0.80, -8), (0.52, 8)):
            for (start, r0), (end, r1) in spans:
                shift = 0.5 * (1 - share) * min(r0, r1)
                lit_start, lit_end = (start[0] - shift, start[1]), (end[0] - shift, end[1])
                self._tube(self._relief_draw, lit_start, lit_end, (r0 * share, r1 * share), tone + light)

    def _tube(self, draw: ImageDraw.ImageDraw, start: Point, end: Point, radii: Point, fill: int) -> None:
        (x0, y0), (x1, y1) = self.to_pixels([start, end])
        r0, r1 = radii[0] * self.scale, radii[1] * self.scale
        length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
        nx, ny = (y1 - y0) / length, (x0 - x1) / length
        draw.polygon(
            [
                (x0 + nx * r0, y0 + ny * r0),
                (x1 + nx * r1, y1 + ny * r1),
                (x1 - nx * r1, y1 - ny * r1),
                (x0 - nx * r0, y0 - ny * r0),
            ],
            fill=fill,
        )
        draw.ellipse((x0 - r0, y0 - r0, x0 + r0, y0 + r0), fill=fill)
        draw.ellipse((x1 - r1, y1 - r1, x1 + r1, y1 + r1), fill=fill)

    def line(self, points: list[Point], width: float, paint: int, tone: int = NEUTRAL) -> None:
        """A polyline of `width` figure units: straps, seams, soles."""
        pixels, pixel_width = self.to_pixels(points), max(1, round(width * self.scale))
        self._material_draw.line(pixels, fill=paint, width=pixel_width, joint="curve")
        self._relief_draw.line(pixels, fill=tone, width=pixel_width, joint="curve")

    def crease(self, points: list[Point], width: float, tone: int) -> None:
        """A line in the relief only: folds, seams and quilting of the material that is already there."""
        self._relief_draw.line(self.to_pixels(points), fill=tone, width=max(1, round(width * self.scale)))

    def shade(self, centre: Point, radii: Point, tone: int) -> None:
        """An elliptic patch of light or shadow in the relief only."""
        (x, y), (rx, ry) = centre, radii
        self._relief_draw.ellipse(self.to_pixels([(x - rx, y - ry), (x + rx, y + ry)]), fill=tone)

    def visible(self) -> dict[str, float]:
        """Share of the crop's pixels in which each slot can be seen."""
        counts = self.material.histogram()
        total = self.size[0] * self.size[1]
        shares: dict[str, float] = {}
        for index, slot in enumerate(self._slots):
            if slot and counts[index]:
                shares[slot] = shares.get(slot, 0.0) + counts[index] / total
        return shares

    def flatten(self, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reduce the canvas by `factor`.

        Returns:
            premultiplied colour (H, W, 3), coverage (H, W, 1) and relief gain (H, W, 1), all float32;
            colour in 0..255, coverage in 0..1, gain 1 where the light is neutral.
        """
        flat = [channel for rgb in self._palette for channel in rgb]
        indexed = self.material.copy()
        indexed.putpalette(flat + [0] * (768 - len(flat)))
        colour = indexed.convert("RGB")
        for index, texture in self._textures.items():
            mask = self.material.point([255 if value == index else 0 for value in range(256)])
            colour.paste(texture, (0, 0), mask)
        covered = self.material.point([0] + [255] * 255)
        colour_small = np.asarray(colour.reduce(factor), dtype=np.float32)
        coverage = np.asarray(covered.reduce(factor), dtype=np.float32)[..., None] / 255
        soft = self.relief.reduce(factor).filter(ImageFilter.BoxBlur(_SOFTNESS))
        gain = np.asarray(soft, dtype=np.float32)[..., None] / NEUTRAL
        return colour_small, coverage, gain
