"""Image sizes: into how many patches one is cut, and whether images have the one that a model was built for."""

from __future__ import annotations

from torch import Tensor


def patch_grid(image_size: tuple[int, int], patch: int) -> tuple[int, int]:
    """(rows, columns) of patches of `patch` pixels; ValueError where (height, width) are no multiples of it."""
    height, width = image_size
    if height % patch or width % patch:
        raise ValueError(
            f"image_size {height}x{width} must be multiples of the patch, {patch} pixels: "
            f"use {max(1, round(height / patch)) * patch}x{max(1, round(width / patch)) * patch}"
        )
    return height // patch, width // patch


def check_images(images: Tensor, image_size: tuple[int, int]) -> None:
    """Refuses images (..., H, W) of another size than the model was built for, with a ValueError."""
    if images.shape[-2:] != image_size:
        given, expected = ("x".join(map(str, sides)) for sides in (images.shape[-2:], image_size))
        raise ValueError(
            f"images are {given} but the model was built for {expected}: set image_size to match"
        )
