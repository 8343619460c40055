"""The colours that fill a region, strongest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.colours import ColourName, colour_distance, name_colour

_MOST_PIXELS = 160
_BANDWIDTH = 8.0
# Pixels within this difference of a mode belong to it.
_REACH = 21.0
_LEAST_WEIGHT = 1.5


@dataclass(frozen=True)
class Patch:
    """One colour of a region: its CIELAB centre (3,), the share of the region's weight, and its name."""

    lab: np.ndarray
    share: float
    name: ColourName


def dominant_colours(lab: np.ndarray, weights: np.ndarray, most: int = 3) -> list[Patch]:
    """The densest colours of a region by repeated mode seeking; patches of one name are joined.

    Args:
        lab: (H, W, 3) CIELAB.
        weights: (H, W) non-negative; pixels of weight 0 are outside.
        most: how many modes to look for.

    Returns:
        patches by falling share; empty when the region holds next to nothing.
    """
    pixels, mass = _strongest(lab, weights)
    mass = mass.astype(np.float64)
    total = mass.sum()
    if total < _LEAST_WEIGHT:
        return []
    patches: list[Patch] = []
    left = mass.copy()
    near = colour_distance(pixels[:, None], pixels[None]) if len(pixels) else np.zeros((0, 0))
    kernel = np.exp(-0.5 * (near / _BANDWIDTH) ** 2)
    for _ in range(most):
        if left.sum() < 0.08 * total:
            break
        mode = int((kernel @ left * (left > 0)).argmax())
        members = (near[mode] < _REACH) & (left > 0)
        share = left[members].sum()
        centre = (pixels[members] * left[members, None]).sum(axis=0) / share
        patches.append(Patch(centre, min(1.0, float(share / total)), name_colour(centre)))
        left[members] = 0
    return _joined(patches)


def _strongest(lab: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most _MOST_PIXELS pixels, evenly thinned from those that carry weight."""
    inside = (
        np.flatnonzero(weights > 0.25 * weights.max())
        if weights.size and weights.max() > 0
        else np.array([], int)
    )
    step = max(1, -(-len(inside) // _MOST_PIXELS))
    chosen = inside[::step]
    return lab.reshape(-1, 3)[chosen], weights.reshape(-1)[chosen] * step


def _joined(patches: list[Patch]) -> list[Patch]:
    """Join patches that a speaker would call by one term; the strongest one keeps its name."""
    by_term: dict[str, Patch] = {}
    for patch in sorted(patches, key=lambda patch: -patch.share):
        first = by_term.get(patch.name.term)
        if first is None:
            by_term[patch.name.term] = patch
        else:
            by_term[patch.name.term] = Patch(first.lab, min(1.0, first.share + patch.share), first.name)
    return sorted(by_term.values(), key=lambda patch: -patch.share)
