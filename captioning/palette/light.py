"""The light of a camera, from many of its pictures: what stands beside people is grey on the average (grey-world).

One crop says little about the light, since a meadow behind a person is green in white light, too; the same is seldom behind
everybody whom a camera sees. So a cast that one picture can be cleared of by halves only (`colours.even_illumination`) can be
taken off as a whole where there are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from captioning.palette.colours import Light
from captioning.palette.regions import BORDER, working_pixels

# Pictures of a camera that are looked at, and with how many fewer its light stays unknown.
ENOUGH, FEWEST = 64, 16
_STRONGEST = 1.5


def lights(images: Iterable[Path]) -> dict[Path, Light]:
    """The light of each folder that has enough of the images: a folder is taken for a camera.

    Depends on the images and their order alone. An image that does not open says nothing about the light.
    """
    folders: dict[Path, list[Path]] = {}
    for image in dict.fromkeys(images):
        folders.setdefault(image.parent, []).append(image)
    found = {}
    for folder, paths in folders.items():
        chosen = np.linspace(0, len(paths) - 1, min(len(paths), ENOUGH)).round().astype(int)
        colours = [colour for i in chosen if (colour := _border_colour(paths[i])) is not None]
        if len(colours) >= FEWEST:
            found[folder] = light_of(colours)
    return found


def light_of(colours: Sequence[np.ndarray]) -> Light:
    """Gains that make the median of colours (3,) grey, within bounds.

    Raises:
        ValueError: no colours.
    """
    if not len(colours):
        raise ValueError("There are no colours to take a light from.")
    usual = np.maximum(np.median(np.stack(colours), axis=0), 1.0)
    gains = np.clip(usual.mean() / usual, 1 / _STRONGEST, _STRONGEST)
    red, green, blue = gains / gains.mean()
    return float(red), float(green), float(blue)


def _border_colour(path: Path) -> np.ndarray | None:
    """The mean colour (3,) at a picture's left and right, where the person is not; None if it does not open."""
    try:
        with Image.open(path) as image:
            pixels = working_pixels(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None
    sides = np.concatenate([pixels[:, :BORDER], pixels[:, -BORDER:]], axis=1)
    return sides.reshape(-1, 3).mean(axis=0)
