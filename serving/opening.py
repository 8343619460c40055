"""What the commands and the page open: an index with its model, images to encode, indexed images to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from data.cache import read_batch
from data.errors import UserError
from data.images import DEFAULT_PIXELS, Pixels, read_image
from data.records import leaves
from data.transforms import normalise
from engine import checkpoints
from engine.building import pixels_of
from engine.machine import Machine
from serving.index import CHECKPOINT, SearchIndex
from serving.indexing import digest_of
from serving.searcher import Searcher


def decoder(image_size: tuple[int, int], pixels: Pixels = DEFAULT_PIXELS) -> Callable[[Path], Tensor]:
    """A function from a file to the (3, H, W) float32 that evaluation gives the model for it."""

    def decode(path: Path) -> Tensor:
        images = read_batch([path], image_size, interpolation=pixels.interpolation)
        return normalise(torch.from_numpy(images), statistics=pixels.statistics)[0]

    return decode


def open_searcher(directory: Path, machine: Machine) -> Searcher:
    """An index with its model, ready to be asked.

    Raises:
        UserError: no index, not finished, damaged, its store can't be reached, or its checkpoint is gone or another one.
    """
    found = SearchIndex(directory)
    if digest_of(directory / CHECKPOINT) != found.header.get("kept", found.header["checkpoint"]):
        raise UserError(
            f"{directory / CHECKPOINT} is not the model that the index was made with: make the index anew."
        )
    model, content = checkpoints.load_retrieval_model(directory / CHECKPOINT)
    look = looker(decoder(tuple(content["image_size"]), pixels_of(model)))
    return Searcher(found, machine.for_use(model).place(model), look)


def looker(decode: Callable[[Path], Tensor]) -> Callable[[SearchIndex, str], Tensor]:
    """A function that opens an indexed image as the model takes it; UserError as from `open_image`."""
    return lambda found, image: decode(_inside(found, image))


def open_image(found: SearchIndex, image: str) -> Image.Image:
    """An indexed image (its path below the image folder) as RGB.

    Raises:
        UserError: it is gone, does not open any more, or has become a link that leaves the folder.
    """
    return read_image(_inside(found, image))


def _inside(found: SearchIndex, image: str) -> Path:
    path = found.root / image
    if leaves(path, found.root):
        raise UserError(f"{image} leads out of the image folder.")
    return path
