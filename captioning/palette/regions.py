"""Where the person is in a crop, and which pixels belong to which part of the body.

A crop of a pedestrian shows one person, upright, about in the middle and about as high as the picture. The foreground
comes from what differs from the left and right borders at the same height; the bands of the body from proportions of
the standing human figure (head 1/8 of the height, waist near 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from captioning.palette.colours import NEUTRAL, Light, colour_distance, even_illumination, srgb_to_lab

# Working size: enough for stripes and shoes, small enough for hundreds of images a second.
HEIGHT, WIDTH = 128, 64
BORDER = 4
# Difference from the border colours (units of CIELAB) at which a pixel is as likely person as background.
_EVEN_ODDS, _SOFTNESS = 11.0, 3.5
# How many columns from the axis the head and the feet may be, and how many of them they fill.
_HEAD_REACH, _FEET_REACH, _FILLED = 7, 20, 6
_PERSON_LEVEL, _CHANGE_REACH = 0.5, 9
# Margin above the head in a detector's box, as a share of the height, and its spread.
_USUAL_MARGIN, _MARGIN_SPREAD = 0.02, 0.03
_CENTRE_SPREAD = 0.24


@dataclass(frozen=True)
class Figure:
    """A person crop at working size.

    Attributes:
        lab: (HEIGHT, WIDTH, 3) float32 CIELAB after evening the illumination.
        person: (HEIGHT, WIDTH) float32 in [0, 1], how likely the pixel is the person.
        down: (HEIGHT,) position of each row on the body: 0 top of the head, 1 soles.
        across: (HEIGHT, WIDTH) sideways offset from the body's axis in body heights; positive to the right.
        contrast: mean difference between person and background; below about 5 nothing can be told apart.
    """

    lab: np.ndarray
    person: np.ndarray
    down: np.ndarray
    across: np.ndarray
    contrast: float

    def band(self, top: float, bottom: float, half_width: float = 1.0, inner: float = 0.0) -> np.ndarray:
        """(HEIGHT, WIDTH) weights of the person between two heights and two distances from the axis."""
        rows = (self.down >= top) & (self.down < bottom)
        away = np.abs(self.across)
        return self.person * rows[:, None] * (away <= half_width) * (away >= inner)


def read_figure(image: Image.Image, light: Light = NEUTRAL) -> Figure:
    """Bring an image of any size and mode to working size and find the person in it.

    Args:
        light: gains of red, green and blue that take the camera's cast off (`palette.light`).
    """
    # Very wide or narrow pictures are no person crops; their proportions are not believed.
    aspect = min(max(image.width / image.height, 0.3), 0.8)
    pixels = np.clip(working_pixels(image) * np.asarray(light), 0, 255).astype(np.uint8)
    border = np.zeros((HEIGHT, WIDTH), np.float32)
    border[:, :BORDER] = border[:, -BORDER:] = 1
    lab = srgb_to_lab(even_illumination(pixels, border))
    odds, person, contrast = _foreground(lab)
    axis = _axis(person)
    top, bottom = _extent(odds, axis)
    down = ((np.arange(HEIGHT) + 0.5 - top) / (bottom - top)).astype(np.float32)
    pixel = aspect / WIDTH * HEIGHT / (bottom - top)
    across = ((np.arange(WIDTH)[None] + 0.5 - axis[:, None]) * pixel).astype(np.float32)
    return Figure(lab, person, down, across, contrast)


def working_pixels(image: Image.Image) -> np.ndarray:
    """An image of any size and mode as (HEIGHT, WIDTH, 3) uint8, RGB."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(ground, image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        span = max(float(np.ptp(values)), 1e-9)
        image = Image.fromarray(((values - values.min()) / span * 255).astype(np.uint8))
    # draft() lets a JPEG decode at a fraction of its size; reducing_gap bounds the cost of huge images.
    image.draft("RGB", (WIDTH, HEIGHT))
    small = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small)


def _foreground(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Probability of being the person by colour alone, the same with the place in the picture, and the contrast; from the colours at the left and right border near the same height."""
    left, right = lab[:, :BORDER], lab[:, -BORDER:]
    nearest = np.full((HEIGHT, WIDTH), np.inf, np.float32)
    for side in (left, right):
        for shift in (-8, 0, 8):
            rows = np.clip(np.arange(HEIGHT) + shift, 0, HEIGHT - 1)
            for column in range(0, BORDER, 2):
                reference = _smooth_rows(side[:, column], 2)[rows]
                np.minimum(nearest, colour_distance(lab, reference[:, None]), out=nearest)
    nearest = _box(nearest, 1)
    columns = (np.arange(WIDTH) + 0.5) / WIDTH - 0.5
    prior = np.exp(-0.5 * (columns / _CENTRE_SPREAD) ** 2)
    odds = 1 / (1 + np.exp(np.clip((_EVEN_ODDS - nearest) / _SOFTNESS, -30, 30)))
    odds = _close_rows(odds, 3)
    # The prior keeps a person of the background's colour from vanishing.
    person = prior[None] * (0.12 + 0.88 * odds)
    inside = prior > 0.6
    return odds, person.astype(np.float32), float(nearest[:, inside].mean())


def _extent(odds: np.ndarray, axis: np.ndarray) -> tuple[float, float]:
    """Rows of the top of the head and of the soles: where person begins and ends near the axis.

    Both are change points: the rows on one side are person, those on the other are not. Crops are tight, so the
    usual margins of a detector's box weigh in.
    """
    away = np.abs(np.arange(WIDTH)[None] + 0.5 - axis[:, None])
    head = _strongest_mean(np.where(away < _HEAD_REACH, odds, 0), _FILLED)
    feet = _strongest_mean(np.where(away < _FEET_REACH, odds, 0), _FILLED)
    top = _change_point(head, _USUAL_MARGIN)
    bottom = HEIGHT - _change_point(feet[::-1], _USUAL_MARGIN)
    return float(top), float(bottom)


def _strongest_mean(values: np.ndarray, count: int) -> np.ndarray:
    """Mean of the `count` largest values of each row: a few stray pixels are no head."""
    return np.partition(values, -count, axis=1)[:, -count:].mean(axis=1)


def _change_point(profile: np.ndarray, usual: float) -> int:
    """The row at which a profile (HEIGHT,) in [0, 1] goes from low to high, within the first fifth."""
    signed = profile - _PERSON_LEVEL
    sums = np.concatenate([[0.0], np.cumsum(signed)])
    rows = np.arange(int(0.2 * HEIGHT))
    above = sums[rows] - sums[np.maximum(rows - _CHANGE_REACH, 0)]
    below = sums[rows + _CHANGE_REACH] - sums[rows]
    prior = -0.5 * ((rows - usual * HEIGHT) / (_MARGIN_SPREAD * HEIGHT)) ** 2
    return int((below - above + prior).argmax())


def _axis(person: np.ndarray) -> np.ndarray:
    """Column of the body's axis for each row: the centre of mass, averaged over a fifth of the height."""
    weights = person**2
    centre = (weights * (np.arange(WIDTH) + 0.5)).sum(axis=1)
    total = weights.sum(axis=1)
    kernel = np.ones(21)
    return (
        np.convolve(centre, kernel, "same") / np.maximum(np.convolve(total, kernel, "same"), 1e-6)
    ).astype(np.float32)


def _smooth_rows(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean over 2 * radius + 1 rows (axis 0), edges repeated."""
    padded = np.concatenate([values[:1].repeat(radius, 0), values, values[-1:].repeat(radius, 0)])
    return np.mean([padded[i : i + len(values)] for i in range(2 * radius + 1)], axis=0)


def _close_rows(values: np.ndarray, radius: int) -> np.ndarray:
    """Morphological closing along the columns: one stripe of the background's colour is no gap in a person."""

    def filtered(source: np.ndarray, pick: np.ufunc) -> np.ndarray:
        padded = np.concatenate([source[:1].repeat(radius, 0), source, source[-1:].repeat(radius, 0)])
        return pick.reduce([padded[i : i + len(source)] for i in range(2 * radius + 1)])

    return filtered(filtered(values, np.maximum), np.minimum)


def _box(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean over a square window."""
    rows = _smooth_rows(values, radius)
    return _smooth_rows(rows.T, radius).T
