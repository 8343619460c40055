"""Stripes and checks, from how the colour alternates down and across a garment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.colours import ColourName, name_colour

# Radius of the local mean that is taken away: wider than a stripe, narrower than the shading of a body.
_RADIUS = 5
# Least standard deviation of the alternation, in units of CIELAB, and least number of changes of sign.
_LEAST_CONTRAST = 5.0
_LEAST_CHANGES = 4
# Straps, arms and the edges of an open jacket are vertical too: more of them are needed across.
_LEAST_CHANGES_ACROSS = 6
# Stripes are regular: the gaps between changes of sign spread less than this share of their mean.
_IRREGULAR = 0.6
_STRIPES_SHARE, _CHECKS_SHARE = 0.42, 0.16
_EXTREMES = 0.12
# A camera blends narrow stripes into each other; how much of their difference is given back at each end.
_UNBLEND = 0.1


@dataclass(frozen=True)
class Pattern:
    """`kind` is "horizontal stripes", "vertical stripes" or "checks"; `colours` its two colours, more common first."""

    kind: str
    confidence: float
    colours: tuple[ColourName, ColourName]


def find_pattern(lab: np.ndarray, weights: np.ndarray) -> Pattern | None:
    """The pattern of a rectangular piece of cloth, or None if it is plain or too small.

    Args:
        lab: (H, W, 3) CIELAB of the piece.
        weights: (H, W) in [0, 1], how likely each pixel is the garment.
    """
    height, width, _ = lab.shape
    if height < 8 or width < 6 or (weights > 0.3).mean() < 0.5:
        return None
    contrast = _main_contrast(lab, weights)
    # Shading and the edges of straps are local; what alternates remains after taking the local mean away.
    detail = contrast - _local_mean(contrast, weights)
    detail *= weights > 0.2
    total = float((detail**2).mean())
    if total < _LEAST_CONTRAST**2:
        return None
    down, across = detail.mean(axis=1), detail.mean(axis=0)
    rows, columns = float((down**2).mean()) / total, float((across**2).mean()) / total
    rows *= _alternates(down, _LEAST_CHANGES)
    columns *= _alternates(across, _LEAST_CHANGES)
    if min(rows, columns) > _CHECKS_SHARE:
        kind, confidence = "checks", min(1.0, 2.2 * min(rows, columns) + 0.2)
    elif rows > max(columns, _STRIPES_SHARE):
        kind, confidence = "horizontal stripes", min(1.0, rows + 0.15)
    elif columns > _STRIPES_SHARE and _alternates(across, _LEAST_CHANGES_ACROSS):
        kind, confidence = "vertical stripes", min(1.0, columns + 0.15)
    else:
        return None
    return Pattern(kind, confidence, _pattern_colours(lab, detail, weights))


def _main_contrast(lab: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Projection (H, W) of the colours on the direction in which they vary most."""
    flat, mass = lab.reshape(-1, 3), weights.reshape(-1)
    mean = (flat * mass[:, None]).sum(axis=0) / mass.sum()
    centred = flat - mean
    _, vectors = np.linalg.eigh((centred * mass[:, None]).T @ centred)
    return (centred @ vectors[:, -1]).reshape(weights.shape)


def _local_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over a square of side 2 * _RADIUS + 1."""
    return _box_sum(values * weights) / np.maximum(_box_sum(weights), 1e-6)


def _box_sum(values: np.ndarray) -> np.ndarray:
    for _ in range(2):
        padded = np.pad(values, ((_RADIUS + 1, _RADIUS), (0, 0)))
        sums = padded.cumsum(axis=0)
        values = (sums[2 * _RADIUS + 1 :] - sums[: -2 * _RADIUS - 1]).T
    return values


def _alternates(profile: np.ndarray, least: int) -> bool:
    """Whether a profile changes sign often and evenly, ripples below a third of its deviation ignored."""
    strong = np.flatnonzero(np.abs(profile) > 0.33 * profile.std())
    changes = strong[:-1][np.diff(np.sign(profile[strong])) != 0]
    if len(changes) < least:
        return False
    gaps = np.diff(changes)
    return bool(gaps.std() < _IRREGULAR * gaps.mean())


def _pattern_colours(
    lab: np.ndarray, detail: np.ndarray, weights: np.ndarray
) -> tuple[ColourName, ColourName]:
    """Names of the two ends of the alternation; the end that more pixels are near comes first."""
    inside = weights > 0.3
    values, colours = detail[inside], lab[inside]
    low, high = np.quantile(values, (_EXTREMES, 1 - _EXTREMES))
    dark, light = np.median(colours[values <= low], axis=0), np.median(colours[values >= high], axis=0)
    nearer_dark = np.linalg.norm(colours - dark, axis=1) < np.linalg.norm(colours - light, axis=1)
    spread = _UNBLEND * (light - dark)
    names = name_colour(dark - spread), name_colour(light + spread)
    return names if nearer_dark.mean() >= 0.5 else names[::-1]
