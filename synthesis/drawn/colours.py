"""The basic colour terms as ranges of RGB, so that a named garment has many shades of its name.

Terms are the eleven basic colour terms of English (Berlin and Kay, 1969). A `Colour` is a term, an optional
"light" or "dark", and the RGB drawn for one garment of one identity; lighting and noise come later.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass

RGB = tuple[int, int, int]

ANCHORS: dict[tuple[str, str], RGB] = {
    ("black", ""): (30, 30, 33),
    ("white", ""): (240, 240, 236),
    ("grey", ""): (132, 134, 137),
    ("grey", "light"): (186, 188, 190),
    ("grey", "dark"): (82, 84, 88),
    ("red", ""): (204, 30, 36),
    ("red", "dark"): (126, 20, 32),
    ("orange", ""): (238, 122, 24),
    ("yellow", ""): (240, 206, 44),
    ("yellow", "light"): (246, 232, 140),
    ("green", ""): (42, 146, 66),
    ("green", "light"): (140, 204, 116),
    ("green", "dark"): (24, 82, 48),
    ("blue", ""): (34, 86, 190),
    ("blue", "light"): (124, 176, 230),
    ("blue", "dark"): (26, 38, 96),
    ("purple", ""): (120, 48, 156),
    ("purple", "light"): (174, 134, 214),
    ("pink", ""): (238, 118, 164),
    ("pink", "light"): (247, 186, 206),
    ("brown", ""): (118, 72, 38),
    ("brown", "light"): (190, 150, 104),
    ("brown", "dark"): (74, 46, 28),
}
TERMS: tuple[str, ...] = tuple(dict.fromkeys(term for term, _ in ANCHORS))
_SHADE_SHARE = 0.3


@dataclass(frozen=True)
class Colour:
    """A named colour (`term`, `shade` in "", "light", "dark") and the RGB that is drawn for it."""

    term: str
    shade: str
    rgb: RGB

    @property
    def name(self) -> str:
        """ "dark blue", "red", ...: the shade and the term."""
        return f"{self.shade} {self.term}".strip()


def vary(rgb: RGB, rng: random.Random, amount: float = 1.0) -> RGB:
    """A neighbour of `rgb` that a person would give the same name; `amount` scales the distance."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in rgb))
    hue = (hue + amount * rng.uniform(-0.012, 0.012)) % 1.0
    saturation = min(1.0, saturation * (1 + amount * rng.uniform(-0.12, 0.1)))
    value = min(1.0, value * (1 + amount * rng.uniform(-0.08, 0.06)))
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def make_colour(term: str, shade: str, rng: random.Random) -> Colour:
    """A shade of the named colour.

    Raises:
        KeyError: the term or the pair of term and shade is not one of `ANCHORS`.
    """
    return Colour(term, shade, vary(ANCHORS[term, shade], rng))


def sample_colour(weights: dict[str, float], rng: random.Random) -> Colour:
    """A colour whose term is drawn by `weights`; in three of ten cases a light or dark one, where the term has one."""
    term = rng.choices(list(weights), list(weights.values()))[0]
    shades = [shade for name, shade in ANCHORS if name == term and shade]
    shade = rng.choice(shades) if shades and rng.random() < _SHADE_SHARE else ""
    return make_colour(term, shade, rng)
