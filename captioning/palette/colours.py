"""Colour as people name it: sRGB to CIELAB, an even illumination, and the eleven basic colour terms.

CIELAB follows CIE 15 (D65 white, sRGB primaries of IEC 61966-2-1). The terms are those of Berlin and Kay (Basic Color
Terms, 1969); a colour takes the name of the nearest of a few typical shades of each term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
# Scaled so that sRGB white is exactly (1, 1, 1) and every grey has a* = b* = 0.
_TO_WHITE_RELATIVE = (_SRGB_TO_XYZ / _SRGB_TO_XYZ.sum(axis=1, keepdims=True)).T.astype(np.float32)
_LINEAR = np.arange(256, dtype=np.float64) / 255
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4).astype(np.float32)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27

Light = tuple[float, float, float]  # a gain for each of red, green and blue, 1 on the average
NEUTRAL: Light = (1.0, 1.0, 1.0)
TERMS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

# Typical shades as a shop would label them, with the shade word that a speaker may add.
_SHADES: tuple[tuple[str, str, str], ...] = (
    ("black", "", "000000 1c1c1c 26262a 2a2422 20242c"),
    ("grey", "dark", "484848 555a60 58524e"),
    ("grey", "", "6e6e6e 808080 949494 7c848c 8c8680"),
    ("grey", "light", "a4a4a4 b2b2b2 a8aeb4"),
    ("white", "", "ffffff f0f0f0 dcdcdc cccccc e8e4dc dce4ec d0ccc4"),
    ("red", "", "ff0000 dc1428 c81e1e d83a3a b01e24"),
    ("red", "dark", "8b0000 800020 701c28 901828 681820"),
    ("orange", "", "ff8c00 ff7f27 e86c10 f09030 d86820"),
    ("yellow", "", "ffff00 ffd700 f0d030 e8c028 d8b820"),
    ("yellow", "light", "fff49c f5e68c f0e08c"),
    ("green", "", "008000 22a040 2e8b57 4ca040 60b050 3c7838"),
    ("green", "light", "90ee90 98d078 a0d8a0 b8e060"),
    ("green", "dark", "004000 145030 1e4d38 2c4a26 485028"),
    ("blue", "", "0000ff 1e50c8 2060b0 3878c8 3c5a96 4068a0"),
    ("blue", "light", "87ceeb 80b0e8 a0c0e8 6ca4d8 70b8d0"),
    ("blue", "dark", "000060 101c50 1e2c60 283858 24304c"),
    ("purple", "", "800080 7030a0 6a30a8 8040b0 5c2878 784878"),
    ("purple", "light", "b48ce0 a878d0 c8a0dc"),
    ("pink", "", "ff69b4 f070a8 e8609c ff4f9a e880a8"),
    ("pink", "light", "ffc0cb f8b8d0 f0c8d4 f4a8b8"),
    ("brown", "", "8b4513 7a4a28 6b4423 805030 946038"),
    ("brown", "light", "c49a6c b89068 d2b48c a87c50"),
    ("brown", "dark", "3c2414 4a2e1c 503420 422c24"),
)
# Shading moves lightness far more than hue and chroma.
_LIGHTNESS_WEIGHT = 0.62
# Difference at which two names are equally good; scales the confidence of a name.
_AMBIGUITY = 9.0
_NEARLY_WHITE, _MOST_EXPOSURE = 225.0, 1.25


@dataclass(frozen=True)
class ColourName:
    """A basic colour term, an optional "light" or "dark", and how sure the name is (0 to 1)."""

    term: str
    shade: str = ""
    confidence: float = 1.0

    @property
    def words(self) -> str:
        """The name as written in a caption, such as "dark blue"."""
        return f"{self.shade} {self.term}".strip()


def srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """sRGB bytes (..., 3) uint8 to CIELAB (..., 3) float32: L* in [0, 100], a* and b* about [-110, 110]."""
    relative = _LINEAR[pixels] @ _TO_WHITE_RELATIVE
    curve = np.where(relative > _EPSILON, np.cbrt(relative), (_KAPPA * relative + 16) / 116)
    lightness = 116 * curve[..., 1] - 16
    red_green = 500 * (curve[..., 0] - curve[..., 1])
    yellow_blue = 200 * (curve[..., 1] - curve[..., 2])
    return np.stack([lightness, red_green, yellow_blue], axis=-1).astype(np.float32)


def even_illumination(pixels: np.ndarray, weights: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Remove part of a colour cast: grey-world on `weights` (H, W), each channel's gain raised to `strength`.

    Half strength, because a crop is small: a meadow behind a person is not a green light. The overall brightness is
    moved, gently too, towards a usual exposure.

    Args:
        pixels: (H, W, 3) uint8.
        weights: (H, W) non-negative, how much each pixel tells about the light.

    Returns:
        (H, W, 3) uint8.
    """
    total = weights.sum()
    if total <= 0:
        return pixels
    means = (pixels * weights[..., None]).sum(axis=(0, 1)) / total
    grey = means.mean()
    if means.min() < 8:
        return pixels
    gains = np.clip((grey / means) ** strength, 0.75, 1.33)
    # Something in a picture is usually nearly white: if nothing is, the picture is underexposed.
    gains *= np.clip(
        _NEARLY_WHITE / max(float(np.quantile(pixels.max(axis=-1), 0.97)), 1.0), 1.0, _MOST_EXPOSURE
    )
    return np.clip(pixels * gains, 0, 255).astype(np.uint8)


def _prototypes() -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    labs, terms, names = [], [], []
    for term, shade, codes in _SHADES:
        for code in codes.split():
            rgb = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.uint8)
            labs.append(srgb_to_lab(rgb))
            terms.append(TERMS.index(term))
            names.append((term, shade))
    return np.array(labs), np.array(terms), names


_PROTOTYPES, _PROTOTYPE_TERMS, _PROTOTYPE_NAMES = _prototypes()


def colour_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Difference of CIELAB colours (..., 3), lightness counting less (shading is not colour)."""
    difference = first - second
    return np.sqrt(
        (_LIGHTNESS_WEIGHT * difference[..., 0]) ** 2 + difference[..., 1] ** 2 + difference[..., 2] ** 2
    )


def name_colour(lab: np.ndarray) -> ColourName:
    """Name one CIELAB colour (3,); the confidence compares the nearest shade of the second-best term."""
    distances = colour_distance(_PROTOTYPES, lab)
    best = int(distances.argmin())
    term, shade = _PROTOTYPE_NAMES[best]
    other = distances[_PROTOTYPE_TERMS[best] != _PROTOTYPE_TERMS].min()
    margin = float(other - distances[best])
    return ColourName(term, shade, float(1 - 0.5 * np.exp(-margin / _AMBIGUITY)))
