"""Textures of patterned cloth: stripes and checks."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from synthesis.drawn.attributes import CHECKS, HORIZONTAL, PLAIN, PRINT, VERTICAL, Garment


def texture(size: tuple[int, int], garment: Garment, scale: float, rng: random.Random) -> Image.Image | None:
    """A canvas-sized picture of the garment's pattern, or None for plain and printed ones.

    Args:
        size: (width, height) of the canvas.
        garment: its colours and its pattern.
        scale: canvas pixels per body height; stripes scale with the figure.
        rng: phase and width of the stripes of this image.
    """
    if garment.pattern in (PLAIN, PRINT) or garment.second is None:
        return None
    width, height = size
    image = Image.new("RGB", size, garment.colour.rgb)
    draw = ImageDraw.Draw(image)
    phase = rng.random()
    if garment.pattern == HORIZONTAL:
        period = 0.058 * scale
        for row in range(int(height / period) + 2):
            top = (row - phase) * period
            draw.rectangle((0, top, width, top + 0.45 * period), fill=garment.second.rgb)
    elif garment.pattern == VERTICAL:
        period = 0.036 * scale
        for column in range(int(width / period) + 2):
            left = (column - phase) * period
            draw.rectangle((left, 0, left + 0.36 * period, height), fill=garment.second.rgb)
    elif garment.pattern == CHECKS:
        _checks(draw, size, garment, 0.062 * scale, phase)
    return image


def _checks(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], garment: Garment, period: float, phase: float
) -> None:
    """Bands both ways in a blend of the two colours, their crossings in the full second colour."""
    width, height = size
    blend = tuple((a + b) // 2 for a, b in zip(garment.colour.rgb, garment.second.rgb, strict=True))
    columns = [(column - phase) * period for column in range(int(width / period) + 2)]
    rows = [(row - phase) * period for row in range(int(height / period) + 2)]
    band = 0.46 * period
    for left in columns:
        draw.rectangle((left, 0, left + band, height), fill=blend)
    for top in rows:
        draw.rectangle((0, top, width, top + band), fill=blend)
        for left in columns:
            draw.rectangle((left, top, left + band, top + band), fill=garment.second.rgb)
