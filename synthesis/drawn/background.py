"""What stands behind a person, and what may stand in front: streets, walls, railings, trees, posts, car edges."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

from synthesis.drawn.colours import RGB
from synthesis.drawn.figure import Body
from synthesis.drawn.layers import NEUTRAL, Layers

_GROUNDS: tuple[RGB, ...] = (
    (150, 148, 144),
    (122, 120, 118),
    (168, 160, 148),
    (104, 106, 108),
    (178, 174, 166),
)
_WALLS: tuple[RGB, ...] = (
    (176, 170, 158),
    (140, 138, 140),
    (196, 190, 176),
    (152, 128, 112),
    (118, 126, 132),
    (206, 202, 196),
)
_FOLIAGE: tuple[RGB, ...] = ((78, 98, 64), (96, 112, 74), (62, 82, 58))


@dataclass(frozen=True)
class Scenery:
    """The colours of a world's grounds, walls and plants."""

    grounds: tuple[RGB, ...] = _GROUNDS
    walls: tuple[RGB, ...] = _WALLS
    foliage: tuple[RGB, ...] = _FOLIAGE


STREET_SCENERY = Scenery()
Painting = tuple[
    ImageDraw.ImageDraw, tuple[int, int], float, Scenery
]  # canvas, its size, the horizon, colours


def shift(rgb: RGB, amount: float) -> RGB:
    return tuple(max(0, min(255, round(channel + amount))) for channel in rgb)


def speckle(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    rgb: RGB,
    rng: random.Random,
    count: int,
) -> None:
    """Blotches of light and dark, so that no surface is one flat colour."""
    left, top, right, bottom = box
    for _ in range(count):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        wide, high = rng.uniform(2, 0.3 * (right - left)), rng.uniform(1, 0.08 * (bottom - top) + 2)
        draw.rectangle((x, y, x + wide, y + high), fill=shift(rgb, rng.uniform(-16, 16)))


def _ground(place: Painting, rng: random.Random) -> None:
    draw, size, horizon, scenery = place
    width, height = size
    base = rng.choice(scenery.grounds)
    bands = 8
    for band in range(bands):
        top = horizon + (height - horizon) * band / bands
        draw.rectangle((0, top, width, height), fill=shift(base, -10 + 3 * band))
    speckle(draw, (0, horizon, width, height), base, rng, 6)
    kind = rng.choice(("tiles", "crosswalk", "kerb", "plain"))
    if kind == "tiles":
        vanish = width * rng.uniform(-0.2, 1.2)
        for step in range(-4, 10):
            draw.line((vanish, horizon - height * 0.3, step * width * 0.25, height), fill=shift(base, -18))
        for step in (0.1, 0.3, 0.6, 1.0):
            y = horizon + (height - horizon) * step
            draw.line((0, y, width, y), fill=shift(base, -18))
    elif kind == "crosswalk":
        lean = rng.uniform(-0.4, 0.4) * width
        for step in range(-1, 5):
            x = step * width * 0.34
            draw.polygon(
                [
                    (x, height),
                    (x + width * 0.16, height),
                    (x + width * 0.13 + lean, horizon + height * 0.1),
                    (x + lean, horizon + height * 0.1),
                ],
                fill=(206, 204, 198),
            )
    elif kind == "kerb":
        y = horizon + rng.uniform(0.05, 0.4) * (height - horizon)
        draw.rectangle((0, horizon, width, y), fill=shift(base, -34))
        draw.rectangle((0, y, width, y + 2), fill=shift(base, 28))


def _wall(place: Painting, rng: random.Random) -> None:
    draw, size, horizon, scenery = place
    width, _ = size
    base = rng.choice(scenery.walls)
    draw.rectangle((0, 0, width, horizon), fill=base)
    speckle(draw, (0, 0, width, horizon), base, rng, 7)
    kind = rng.choice(("bricks", "windows", "door", "plain", "shutters"))
    if kind == "bricks":
        for row in range(int(horizon // 6) + 1):
            draw.line((0, row * 6, width, row * 6), fill=shift(base, 20))
            for x in range(row % 2 * 6, width, 12):
                draw.line((x, row * 6, x, row * 6 + 6), fill=shift(base, 20))
    elif kind == "windows":
        step = width * rng.uniform(0.35, 0.6)
        start = -rng.random() * step
        for column in range(4):
            for y in (0.06, 0.42):
                x = start + column * step
                draw.rectangle(
                    (x, y * horizon, x + step * 0.66, (y + 0.28) * horizon),
                    fill=(70, 80, 90),
                    outline=shift(base, 30),
                )
    elif kind == "door":
        x = rng.uniform(-0.2, 0.8) * width
        draw.rectangle(
            (x, 0.2 * horizon, x + 0.45 * width, horizon), fill=shift(base, -50), outline=shift(base, 24)
        )
    elif kind == "shutters":
        for y in range(0, int(horizon), 4):
            draw.line((0, y, width, y), fill=shift(base, -22))


def _street(place: Painting, rng: random.Random) -> None:
    draw, size, horizon, scenery = place
    width, height = size
    for row in range(0, int(horizon), 4):
        draw.rectangle((0, row, width, row + 4), fill=shift((190, 200, 210), -0.25 * row))
    x = -rng.random() * width * 0.3
    while x < width:
        wide, top = rng.uniform(0.2, 0.5) * width, rng.uniform(0, 0.7) * horizon
        draw.rectangle((x, top, x + wide, horizon), fill=shift(rng.choice(scenery.walls), -24))
        x += wide
    if rng.random() < 0.5:
        x, colour = (
            rng.uniform(-0.4, 0.9) * width,
            rng.choice(((70, 74, 82), (150, 60, 56), (190, 192, 196), (54, 78, 110))),
        )
        top = horizon - 0.05 * height
        draw.rounded_rectangle((x, top, x + 0.7 * width, top + 0.13 * height), 6, fill=colour)
        draw.rounded_rectangle(
            (x + 0.12 * width, top - 0.05 * height, x + 0.56 * width, top + 2), 4, fill=shift(colour, -24)
        )


def _park(place: Painting, rng: random.Random) -> None:
    draw, size, horizon, scenery = place
    width, height = size
    draw.rectangle((0, 0, width, horizon), fill=(178, 190, 190))
    for _ in range(14):
        x, y = rng.uniform(-0.1, 1.1) * width, rng.uniform(0, 1) * horizon
        radius = rng.uniform(0.12, 0.3) * width
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=shift(rng.choice(scenery.foliage), rng.uniform(-10, 24)),
        )
    for _ in range(2):
        x, wide = rng.uniform(0, 1) * width, rng.uniform(0.03, 0.09) * width
        draw.rectangle((x, 0, x + wide, horizon + 0.04 * height), fill=(84, 70, 58))


def _railing(draw: ImageDraw.ImageDraw, size: tuple[int, int], horizon: float, rng: random.Random) -> None:
    width, height = size
    colour = rng.choice(((96, 98, 102), (190, 190, 188), (70, 84, 92)))
    top = horizon - rng.uniform(0.02, 0.1) * height
    bottom = top + 0.24 * height
    for y in (top, bottom):
        draw.rectangle((0, y, width, y + 2), fill=colour)
    for x in range(int(rng.uniform(0, 6)), width, 7):
        draw.line((x, top, x, bottom), fill=colour)


def _shop(place: Painting, rng: random.Random) -> None:
    """A lit window with goods under a coloured sign."""
    draw, (width, _), horizon, scenery = place
    frame = rng.choice(scenery.walls)
    draw.rectangle((0, 0, width, horizon), fill=shift(frame, -30))
    sign = rng.choice(((150, 46, 40), (40, 84, 120), (58, 104, 74), (196, 160, 70)))
    draw.rectangle((0, 0, width, 0.16 * horizon), fill=sign)
    draw.rectangle((0.04 * width, 0.22 * horizon, 0.96 * width, 0.92 * horizon), fill=(222, 212, 180))
    for _ in range(9):
        x, y = rng.uniform(0, 0.9) * width, rng.uniform(0.4, 0.8) * horizon
        wide, high = rng.uniform(0.05, 0.16) * width, rng.uniform(0.08, 0.3) * horizon
        goods = rng.choice(((176, 120, 96), (110, 128, 140), (150, 150, 120), (120, 90, 110)))
        draw.rectangle((x, y, x + wide, min(0.92 * horizon, y + high)), fill=goods)
    x = rng.uniform(0.2, 0.8) * width
    draw.rectangle((x, 0.16 * horizon, x + 3, horizon), fill=shift(frame, -60))


def _station(place: Painting, rng: random.Random) -> None:
    """Tiles in rows with a band of colour, and a pillar."""
    draw, (width, _), horizon, scenery = place
    base = rng.choice(scenery.walls)
    draw.rectangle((0, 0, width, horizon), fill=base)
    size = rng.randint(7, 12)
    for x in range(0, width, size):
        draw.line((x, 0, x, horizon), fill=shift(base, -16))
    for y in range(0, int(horizon), size):
        draw.line((0, y, width, y), fill=shift(base, -16))
    band = rng.uniform(0.2, 0.5) * horizon
    colour = rng.choice(((60, 92, 130), (140, 70, 60), (78, 120, 96)))
    draw.rectangle((0, band, width, band + 0.08 * horizon), fill=colour)
    if rng.random() < 0.6:
        x, wide = rng.uniform(-0.1, 0.9) * width, rng.uniform(0.12, 0.24) * width
        draw.rectangle((x, 0, x + wide, horizon), fill=shift(base, -44))
        draw.rectangle((x, 0, x + 0.3 * wide, horizon), fill=shift(base, -26))


def _yard(place: Painting, rng: random.Random) -> None:
    """Containers and doors of sheet metal under a low sky."""
    draw, (width, height), horizon, scenery = place
    draw.rectangle((0, 0, width, horizon), fill=(120, 130, 142))
    x = -rng.random() * width * 0.4
    while x < width:
        wide, top = rng.uniform(0.4, 0.8) * width, rng.uniform(0.05, 0.5) * horizon
        colour = rng.choice(
            ((118, 70, 58), (62, 84, 104), (96, 104, 84), shift(rng.choice(scenery.walls), -40))
        )
        draw.rectangle((x, top, x + wide, horizon + 0.02 * height), fill=colour)
        for step in range(int(wide // 5)):
            draw.line((x + 5 * step, top, x + 5 * step, horizon), fill=shift(colour, -14))
        x += wide + 0.03 * width


_SCENES = {
    "wall": _wall,
    "street": _street,
    "park": _park,
    "shop": _shop,
    "station": _station,
    "yard": _yard,
}


def paint_background(
    size: tuple[int, int], scenes: tuple[str, ...], rng: random.Random, scenery: Scenery = STREET_SCENERY
) -> Image.Image:
    """A blurred scene of one of the kinds `scenes` (see `_SCENES`) as an RGB picture of `size`."""
    height = size[1]
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    horizon = height * rng.uniform(0.3, 0.72)
    place = (draw, size, horizon, scenery)
    _SCENES[rng.choice(scenes)](place, rng)
    _ground(place, rng)
    if rng.random() < 0.25:
        _railing(draw, size, horizon, rng)
    return image.filter(ImageFilter.BoxBlur(rng.uniform(0.6, 1.6)))


def paint_seat(body: Body, layers: Layers) -> None:
    """A block that a person sits on."""
    paint = layers.add("seat", (96, 84, 72))
    (x, top), reach = body.prism((0.0, 0.53, -0.02), 0.15, 0.12)
    layers.polygon([(x - reach, top), (x + reach, top), (x + reach, 0.985), (x - reach, 0.985)], paint)


def paint_shadow(layers: Layers) -> None:
    """The soft dark patch under the feet; in the relief only, below everything that is painted later."""
    layers.shade((0.02, 0.985), (0.21, 0.026), NEUTRAL - 22)
    layers.shade((0.01, 0.985), (0.14, 0.018), NEUTRAL - 44)


def paint_occluder(layers: Layers, rng: random.Random, scenery: Scenery = STREET_SCENERY) -> str:
    """Paint one thing in front of the person and return its name.

    It covers a border of the crop or the lower legs, never most of the person.
    """
    kind = rng.choice(("post", "car", "bush", "railing"))
    left = -layers.origin[0] / layers.scale
    right = left + layers.size[0] / layers.scale
    bottom = (layers.size[1] - layers.origin[1]) / layers.scale
    if kind == "post":
        x = rng.choice((rng.uniform(left + 0.02, -0.09), rng.uniform(0.09, right - 0.02)))
        paint = layers.add("occluder", rng.choice(((92, 94, 98), (170, 168, 160), (120, 96, 70))))
        layers.polygon(
            [(x - 0.022, -0.2), (x + 0.022, -0.2), (x + 0.022, bottom), (x - 0.022, bottom)], paint
        )
    elif kind == "car":
        paint = layers.add(
            "occluder", rng.choice(((60, 64, 72), (176, 178, 182), (120, 40, 40), (40, 60, 92)))
        )
        top = rng.uniform(0.74, 0.88)
        inner = rng.uniform(-0.05, 0.08)
        edge = left if rng.random() < 0.5 else right
        layers.polygon(
            [
                (edge, top),
                (inner, top + 0.015),
                (inner * 0.6, top + 0.07),
                (inner * 0.6, bottom),
                (edge, bottom),
            ],
            paint,
        )
    elif kind == "bush":
        paint = layers.add("occluder", rng.choice(scenery.foliage))
        edge = left if rng.random() < 0.5 else right
        for _ in range(7):
            layers.ellipse(
                (edge + rng.uniform(-0.1, 0.1), rng.uniform(0.78, bottom)), (0.09, 0.06), paint, edge=34
            )
    else:
        paint = layers.add("occluder", (110, 112, 116))
        for y in (rng.uniform(0.66, 0.72), 0.90):
            layers.line([(left, y), (right, y)], 0.016, paint)
    return kind
