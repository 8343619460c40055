"""Reading one image file, whatever it is, as 8-bit RGB; and bringing it to the size of the model."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL import __version__ as PILLOW

from data.errors import UserError

# CLIP's and BLIP's pixel statistics, for values in 0..1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
MEAN_COLOUR = tuple(round(255 * value) for value in MEAN)

Interpolation = Literal["bilinear", "bicubic"]
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and standard deviation


@dataclass(frozen=True)
class Pixels:
    """What a backbone's image encoder takes: how images are resized, and the statistics they are normalised with.

    `mean` and `std` are per colour, of values in 0..1.
    """

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    interpolation: Interpolation = "bilinear"

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation, as `data.transforms` takes them."""
        return self.mean, self.std


DEFAULT_PIXELS = Pixels()

# What Pillow raises on damaged files, besides OSError: each of these was seen on truncated or overwritten files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    AttributeError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode an image file to an upright 8-bit RGB image.

    EXIF rotation is applied; transparency lies on the mean colour; grey, palette, 16-bit, CMYK and the like are
    converted. Raises UserError for a file that is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return rgb(image)
    except _DAMAGE as error:
        raise UserError(f"The image {os.fspath(path)} does not open ({damage(error)}).") from None


def rgb(image: Image.Image) -> Image.Image:
    """A decoded image upright, as 8-bit RGB; see `read_image`."""
    return _to_rgb(_upright(image))


def damage(error: BaseException) -> str:
    """A short reason for a failed decode, without the file's name."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:120] or type(error).__name__


def check_header(path: str | os.PathLike[str]) -> None:
    """Read only the header of an image; UserError if the file is missing, empty or no image."""
    try:
        with Image.open(path):
            pass
    except _DAMAGE as error:
        raise UserError(f"The image {os.fspath(path)} does not open ({damage(error)}).") from None


def resize(
    image: Image.Image, image_size: tuple[int, int], interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    """An RGB image as (H, W, 3) uint8, resized with antialiasing to `image_size` = (H, W), by this project's own arithmetic.

    Pillow's changed with its version 13 by one level in a tenth of the pixels, and a trained model's results by two points.
    Raises ValueError for another interpolation than "bilinear" and "bicubic".
    """
    check_interpolation(interpolation)
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.shape[:2] == tuple(image_size):
        return pixels
    from data.resizing import resize_pixels  # only who resizes needs numba

    return resize_pixels(pixels, image_size, interpolation)


def check_interpolation(interpolation: str) -> None:
    """ValueError for an interpolation that is not offered."""
    if interpolation not in get_args(Interpolation):
        raise ValueError(
            f"There is no interpolation {interpolation!r}: use {' or '.join(get_args(Interpolation))}."
        )


def decoders() -> dict[str, str]:
    """The libraries that turn files into pixels, with their versions: other ones may give other pixels."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return {"pillow": PILLOW, "jpeg": str(jpeg), "webp": str(features.version("webp"))}


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        return image  # damaged EXIF data: the pixels are still good


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image if type(image) is Image.Image else image.copy()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_grey(image)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*MEAN_COLOUR, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey: Pillow's own conversion clips at 255 instead of scaling."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    is_unit_float = image.mode == "F" and values.max(initial=0.0) <= 1.0
    scale = 255.0 if is_unit_float else 1.0 if image.mode == "F" else 255.0 / 65535.0
    grey = np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
