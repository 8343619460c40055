"""Places outside the streets: what a person stands in front of once a prompt or an edit asks for it."""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter

from synthesis.drawn.background import shift, speckle
from synthesis.drawn.colours import RGB

Canvas = tuple[ImageDraw.ImageDraw, int, int, float]  # what is drawn on, its width and height, the horizon


def _sky(canvas: Canvas, top: RGB, bottom: RGB) -> None:
    draw, width, _, horizon = canvas
    for row in range(int(horizon) + 1):
        share = row / max(1.0, horizon)
        draw.line(
            (0, row, width, row),
            fill=tuple(round(a + share * (b - a)) for a, b in zip(top, bottom, strict=True)),
        )


def _ground(canvas: Canvas, rgb: RGB, rng: random.Random, blotches: int = 10) -> None:
    draw, width, height, horizon = canvas
    for band in range(8):
        draw.rectangle(
            (0, horizon + (height - horizon) * band / 8, width, height), fill=shift(rgb, 3 * band - 10)
        )
    speckle(draw, (0, horizon, width, height), rgb, rng, blotches)


def _forest(canvas: Canvas, rng: random.Random) -> None:
    draw, width, height, horizon = canvas
    _sky(canvas, (72, 96, 66), (96, 122, 78))
    _ground(canvas, (92, 78, 54), rng, 16)
    for _ in range(7):
        x, wide = rng.uniform(-0.05, 1) * width, rng.uniform(0.05, 0.12) * width
        draw.rectangle(
            (x, 0, x + wide, horizon + rng.uniform(0, 0.12) * height),
            fill=shift((74, 58, 44), rng.uniform(-12, 14)),
        )
    for _ in range(16):
        x, y, radius = (
            rng.uniform(-0.1, 1.1) * width,
            rng.uniform(-0.1, 0.6) * horizon,
            rng.uniform(0.1, 0.26) * width,
        )
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=shift((58, 92, 52), rng.uniform(-18, 22))
        )


def _desert(canvas: Canvas, rng: random.Random) -> None:
    draw, width, height, horizon = canvas
    _sky(canvas, (118, 162, 204), (222, 208, 176))
    _ground(canvas, (206, 172, 118), rng)
    for step in range(3):
        crest = horizon - rng.uniform(0.02, 0.16) * height
        x = rng.uniform(-0.4, 0.9) * width
        draw.polygon(
            [(x - width, horizon + 4), (x, crest), (x + width, horizon + 4)],
            fill=shift((212, 176, 120), -12 * step),
        )


def _beach(canvas: Canvas, rng: random.Random) -> None:
    draw, width, height, horizon = canvas
    _sky(canvas, (126, 180, 222), (200, 222, 232))
    shore = horizon + rng.uniform(0.1, 0.25) * (height - horizon)
    draw.rectangle((0, horizon, width, shore), fill=(44, 116, 160))
    for _ in range(6):
        y, x = rng.uniform(horizon, shore), rng.uniform(-0.2, 0.8) * width
        draw.line((x, y, x + 0.4 * width, y), fill=(150, 196, 214))
    sand = (draw, width, height, shore)
    _ground(sand, (222, 202, 158), rng)
    draw.line((0, shore, width, shore), fill=(236, 240, 238), width=2)


def _airport(canvas: Canvas, rng: random.Random) -> None:
    draw, width, height, horizon = canvas
    draw.rectangle((0, 0, width, horizon), fill=(198, 206, 214))
    step = width * rng.uniform(0.2, 0.34)
    for column in range(-1, 6):
        x = column * step
        draw.rectangle((x, 0.08 * horizon, x + 0.9 * step, 0.92 * horizon), fill=(150, 178, 204))
    tail = rng.uniform(0.1, 0.8) * width
    body = rng.uniform(0.55, 0.75) * horizon
    draw.rounded_rectangle((tail - 0.5 * width, body, tail, body + 0.14 * horizon), 4, fill=(238, 240, 242))
    draw.polygon(
        [(tail - 0.12 * width, body), (tail, body - 0.22 * horizon), (tail, body + 4)],
        fill=rng.choice(((180, 48, 52), (38, 76, 148))),
    )
    _ground(canvas, (172, 174, 178), rng, 3)
    for row in range(1, 4):
        y = horizon + (height - horizon) * row / 4
        draw.line((0, y, width, y), fill=(148, 150, 154))


def _farm(canvas: Canvas, rng: random.Random) -> None:
    draw, width, height, horizon = canvas
    _sky(canvas, (140, 184, 220), (206, 220, 222))
    _ground(canvas, (122, 142, 66), rng, 12)
    x, wide = rng.uniform(-0.2, 0.7) * width, rng.uniform(0.35, 0.55) * width
    roof = horizon - rng.uniform(0.18, 0.28) * height
    draw.rectangle((x, roof, x + wide, horizon), fill=(146, 52, 44))
    draw.polygon(
        [(x - 3, roof), (x + wide / 2, roof - 0.12 * height), (x + wide + 3, roof)], fill=(92, 86, 82)
    )
    for row in range(1, 7):
        y = horizon + (height - horizon) * row / 7
        draw.line((0, y, width, y + rng.uniform(-3, 3)), fill=(98, 116, 50))


def _lake(canvas: Canvas, rng: random.Random) -> None:
    draw, width, height, horizon = canvas
    _sky(canvas, (150, 190, 222), (214, 226, 232))
    for _ in range(4):
        x, peak = rng.uniform(-0.1, 1.1) * width, horizon - rng.uniform(0.08, 0.26) * height
        draw.polygon(
            [(x - 0.5 * width, horizon), (x, peak), (x + 0.5 * width, horizon)],
            fill=shift((86, 112, 116), rng.uniform(-16, 16)),
        )
    shore = horizon + rng.uniform(0.25, 0.45) * (height - horizon)
    draw.rectangle((0, horizon, width, shore), fill=(92, 140, 168))
    for _ in range(8):
        y, x = rng.uniform(horizon, shore), rng.uniform(-0.2, 0.8) * width
        draw.line((x, y, x + rng.uniform(0.1, 0.4) * width, y), fill=(140, 178, 196))
    _ground((draw, width, height, shore), (104, 124, 74), rng)


PLACES: dict[str, Callable[[Canvas, random.Random], None]] = {
    "forest": _forest,
    "desert": _desert,
    "beach": _beach,
    "airport": _airport,
    "farm": _farm,
    "lake": _lake,
}


def paint_place(size: tuple[int, int], place: str, rng: random.Random) -> Image.Image:
    """One of `PLACES` as an RGB picture of `size`, out of focus."""
    width, height = size
    image = Image.new("RGB", size)
    canvas = (ImageDraw.Draw(image), width, height, height * rng.uniform(0.3, 0.6))
    PLACES[place](canvas, rng)
    return image.filter(ImageFilter.BoxBlur(rng.uniform(0.6, 1.4)))
