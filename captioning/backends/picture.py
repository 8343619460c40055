"""Read a crop and bring it to the size a model is shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps

# Vision transformers of the Qwen-VL family take no side below one patch pair (28 pixels).
SMALLEST_SIDE = 28


class PictureError(ValueError):
    """An image file is missing or does not open."""


def read_picture(path: Path, longest_side: int) -> Image.Image:
    """The image as RGB, upright, scaled down to `longest_side` pixels (never up, save for sides under 28 pixels).

    Raises:
        PictureError: the file is missing or unreadable.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if "transparency" in picture.info:
                picture = picture.convert("RGBA")
            picture = picture.convert("RGB")
    except FileNotFoundError:
        raise PictureError(f"There is no image {path}.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"The image {path} does not open: {error}.") from None
    width, height = fitted(picture.size, longest_side)
    return (
        picture
        if picture.size == (width, height)
        else picture.resize((width, height), Image.Resampling.BICUBIC)
    )


def fitted(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """(width, height) after `read_picture`'s scaling."""
    scale = min(1.0, longest_side / max(size))
    if min(size) * scale < SMALLEST_SIDE:
        scale = SMALLEST_SIDE / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header, without decoding it.

    Raises:
        PictureError: the file is missing or unreadable.
    """
    try:
        with Image.open(path) as file:
            return file.size
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureError(f"The image {path} does not open: {error}.") from None


def jpeg_data_url(path: Path, longest_side: int, quality: int) -> str:
    """The image as a `data:image/jpeg;base64,...` URL."""
    buffer = io.BytesIO()
    read_picture(path, longest_side).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
