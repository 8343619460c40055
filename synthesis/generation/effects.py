"""Weather and styles as filters over a picture: what they change is the light and the stroke, never the person.

Each takes an RGB picture and a random stream and gives one of the same size.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Effect = Callable[[Image.Image, random.Random], Image.Image]


def _snowy(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    light = Image.blend(
        ImageEnhance.Color(image).enhance(0.75), Image.new("RGB", image.size, (228, 234, 242)), 0.16
    )
    flakes = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(flakes)
    for _ in range(width * height // 170):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.5, 0.011 * height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.randint(170, 240))
    white = Image.new("RGB", image.size, (246, 248, 252))
    return Image.composite(white, light, flakes.filter(ImageFilter.GaussianBlur(0.5)))


def _rainy(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    grey = Image.blend(
        ImageEnhance.Brightness(image).enhance(0.8), Image.new("RGB", image.size, (88, 100, 116)), 0.14
    )
    streaks = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(streaks)
    slant = rng.uniform(-0.3, 0.3)
    for _ in range(width * height // 260):
        x, y, length = (
            rng.uniform(0, width),
            rng.uniform(-0.1 * height, height),
            rng.uniform(0.03, 0.09) * height,
        )
        draw.line((x, y, x + slant * length, y + length), fill=rng.randint(60, 130))
    return Image.composite(Image.new("RGB", image.size, (206, 216, 228)), grey, streaks)


def _foggy(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    veil = np.linspace(rng.uniform(0.5, 0.6), rng.uniform(0.25, 0.35), height, dtype=np.float32)[
        :, None, None
    ]
    waves = (
        0.06
        * np.sin(np.linspace(0, rng.uniform(4, 9), width, dtype=np.float32) + rng.uniform(0, 6))[
            None, :, None
        ]
    )
    share = np.clip(veil + waves, 0.0, 0.7)
    colours = np.asarray(image, dtype=np.float32)
    return _picture(colours * (1 - share) + np.float32(212) * share)


def _oil_painting(image: Image.Image, _rng: random.Random) -> Image.Image:
    strokes = image.filter(ImageFilter.ModeFilter(5)).filter(ImageFilter.MedianFilter(3))
    return ImageEnhance.Color(Image.blend(strokes, strokes.filter(ImageFilter.EMBOSS), 0.12)).enhance(1.25)


def _anime(image: Image.Image, _rng: random.Random) -> Image.Image:
    flat = ImageOps.posterize(image.filter(ImageFilter.MedianFilter(5)), 3)
    edges = ImageOps.invert(
        image.convert("L").filter(ImageFilter.GaussianBlur(0.7)).filter(ImageFilter.FIND_EDGES)
    )
    border = (0, 0, edges.width - 1, edges.height - 1)  # not filtered there
    ImageDraw.Draw(edges).rectangle(border, outline=255)
    lines = edges.point([0 if value < 205 else 255 for value in range(256)]).convert("RGB")
    lifted = ImageEnhance.Color(ImageEnhance.Brightness(flat).enhance(1.12)).enhance(1.3)
    return ImageChops.multiply(lifted, Image.blend(lines, Image.new("RGB", image.size, "white"), 0.35))


def _street_photography(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    muted = ImageEnhance.Contrast(ImageEnhance.Color(image).enhance(0.7)).enhance(1.25)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    vignette = 1 - 0.3 * (rows**2 + columns**2)[..., None] / 2
    grain = (
        np.random.default_rng(rng.getrandbits(63)).standard_normal((height, width, 1), dtype=np.float32) * 7
    )
    return _picture(np.asarray(muted, dtype=np.float32) * vignette + grain)


def _van_gogh(image: Image.Image, rng: random.Random) -> Image.Image:
    """Short thick strokes along the contours of the light, in stronger colours."""
    width, height = image.size
    vivid = ImageEnhance.Color(image.filter(ImageFilter.MedianFilter(3))).enhance(1.5)
    light = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(3)), dtype=np.float32)
    down, right = np.gradient(light)
    painting, source = vivid.copy(), vivid.load()
    draw = ImageDraw.Draw(painting)
    length = 0.03 * height
    for _ in range(width * height // 9):
        x, y = rng.randrange(width), rng.randrange(height)
        # Along the contour; where the light is even, in a slow swirl.
        dx, dy = -float(down[y, x]), float(right[y, x])
        size = (dx * dx + dy * dy) ** 0.5
        if size < 0.5:
            dx, dy, size = float(np.cos(y / 9)), float(np.sin(x / 9)), 1.0
        dx, dy = length * dx / size, length * dy / size
        shade = rng.randint(-16, 16)
        colour = tuple(max(0, min(255, channel + shade)) for channel in source[x, y])
        draw.line((x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2), fill=colour, width=2)
    return painting


def _pointillism(image: Image.Image, rng: random.Random) -> Image.Image:
    width, height = image.size
    vivid = ImageEnhance.Color(image).enhance(1.35)
    painting = Image.blend(
        vivid.filter(ImageFilter.GaussianBlur(2)), Image.new("RGB", image.size, (240, 236, 222)), 0.3
    )
    source, draw = vivid.load(), ImageDraw.Draw(painting)
    radius = max(1.0, 0.007 * height)
    for _ in range(width * height // 4):
        x, y = rng.randrange(width), rng.randrange(height)
        colour = tuple(max(0, min(255, channel + rng.randint(-18, 18))) for channel in source[x, y])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return painting


def _picture(colours: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(colours + 0.5, 0, 255).astype(np.uint8))


EFFECTS: dict[tuple[str, str], Effect] = {
    ("weather", "snowy"): _snowy,
    ("weather", "rainy"): _rainy,
    ("weather", "foggy"): _foggy,
    ("style", "oil painting"): _oil_painting,
    ("style", "anime"): _anime,
    ("style", "street photography"): _street_photography,
    ("style", "van Gogh"): _van_gogh,
    ("style", "pointillism"): _pointillism,
}
