"""Encoding a gallery and its queries, with the gallery's tokens in half precision, in memory or on disk.

Of a gallery that is divided over processes each has all features and the tokens of its own images only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from retrieval.division import ALONE, Division, Processes
from retrieval.memory import in_portions
from retrieval.verbs import RetrievalModel, TokenisedCaptions, inference

Progress = Callable[[int, int], None]  # called with (done, total)
MEMORY_LIMIT = 2 << 30  # bytes of tokens kept in memory; more goes to disk
_NUMPY = {torch.float16: np.float16, torch.float32: np.float32}


class TokenStore:
    """Image tokens (count, N, D), written once in order, read in blocks of rows.

    Above `memory_limit` bytes they lie in a file in `directory` (the system's temporary directory by default). It has no
    name, so that it goes away with the store and also with a process that is killed, and its room is taken at once: a
    disk that fills up later can't end the process in the middle of a write to mapped memory. The file is mapped anew
    for every block, so that pages already used do not count as this process's memory.

    Raises ValueError for a dtype other than float16 and float32, and where the disk has no room.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype = torch.float16,
        *,
        directory: str | Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ):
        if dtype not in _NUMPY:
            raise ValueError(f"Image tokens are stored as float16 or float32, not {dtype}.")
        self.shape = shape
        self.dtype = dtype
        self._numpy = np.dtype(_NUMPY[dtype])
        size = int(np.prod(shape)) * self._numpy.itemsize
        self._memory = np.empty(shape, self._numpy) if size <= memory_limit else None
        if self._memory is None:
            self._file = _make_file(size, directory)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def on_disk(self) -> bool:
        """Whether the tokens lie in a file."""
        return self._memory is None

    def _array(self, mode: str) -> np.ndarray:
        if self._memory is not None:
            return self._memory
        return np.memmap(self._file, self._numpy, mode, shape=self.shape)

    def write(self, start: int, tokens: Tensor) -> None:
        """Stores tokens (B, N, D) of the images start .. start + B."""
        block = tokens.detach().to(self.dtype).cpu().numpy()
        self._array("r+")[start : start + len(block)] = block

    def read(self, rows: np.ndarray) -> Tensor:
        """A copy of the tokens of these images (B,): a CPU tensor (B, N, D) in the stored precision."""
        return torch.from_numpy(np.asarray(self._array("r")[rows]))  # indexing by an array copies

    def close(self) -> None:
        """Frees the memory or removes the file; the store cannot be read afterwards."""
        if self.on_disk:
            self._file.close()
        self._memory = np.empty((0, *self.shape[1:]), self._numpy)


def _make_file(size: int, directory: str | Path | None) -> BinaryIO:
    """A file of `size` bytes, with room on the disk and without a name."""
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory or tempfile.gettempdir()).free
    if free < size:
        raise ValueError(
            f"The gallery's image tokens need {size / 1e9:.1f} GB but {directory or tempfile.gettempdir()} has "
            f"{free / 1e9:.1f} GB free; free some space or name another directory."
        )
    file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - it is closed with the store
    try:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
    except OSError as error:
        file.close()
        raise ValueError(
            f"The gallery's image tokens need {size / 1e9:.1f} GB in {directory or tempfile.gettempdir()}, which can't "
            f"be had ({error.strerror}); free some space or name another directory."
        ) from None
    return file


@dataclass
class Gallery:
    """An encoded gallery: `features` (G, F) float32 on the CPU, L2-normalised; `tokens` a store of (G, N, D) or None.

    `division` says whose tokens each process holds; by default this one's are all there are.
    """

    features: Tensor
    tokens: TokenStore | None
    division: Division | None = None

    def __post_init__(self) -> None:
        if self.division is None:
            self.division = Division(len(self.features))

    def __len__(self) -> int:
        return len(self.features)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the tokens' memory or file back."""
        if self.tokens is not None:
            self.tokens.close()


class GalleryWriter:
    """A gallery of `images` images, or this process's share of a divided one, that grows by batches, in order.

    `count` images are to come, `done` of them have.
    Tokens are kept in `token_dtype` (None: not at all), beyond `memory_limit` bytes in a temporary file below `directory`.
    """

    def __init__(
        self,
        images: int | Division,
        *,
        token_dtype: torch.dtype | None = torch.float16,
        directory: str | Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self.division = images if isinstance(images, Division) else Division(images)
        self.count, self.done = len(self.division.rows()), 0
        self._token_dtype, self._directory, self._memory_limit = token_dtype, directory, memory_limit
        self._features: list[Tensor] = []
        self._store: TokenStore | None = None

    def add(self, tokens: Tensor, features: Tensor) -> None:
        """The next images: tokens (B, N, D) and features (B, F), not normalised.

        Raises ValueError for more images than announced.
        """
        if self.done + len(tokens) > self.count:
            raise ValueError(f"More images came than the {self.count} announced; the image list has changed.")
        if self._store is None and self._token_dtype is not None:
            shape = (self.count, *tokens.shape[1:])
            self._store = TokenStore(
                shape, self._token_dtype, directory=self._directory, memory_limit=self._memory_limit
            )
        if self._store is not None:
            self._store.write(self.done, tokens)
        self._features.append(normalize(features.float(), dim=1).cpu())
        self.done += len(tokens)

    def finished(self) -> Gallery:
        """The gallery, with the features of all processes; ValueError unless every announced image came."""
        if self.done != self.count or not self.division.count:
            raise ValueError(
                f"Only {self.done} of {self.count} announced images came; the image list has changed."
            )
        features = self.division.gather([part.numpy() for part in self._features])
        return Gallery(torch.from_numpy(features), self._store, self.division)


def encode_gallery(
    model: RetrievalModel,
    batches: Iterable[Tensor],
    images: int | Division,
    *,
    token_dtype: torch.dtype | None = torch.float16,
    directory: str | Path | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
) -> Gallery:
    """Encodes `images` images that come as batches (B, 3, H, W), in order; the other arguments are `GalleryWriter`'s.

    Of a `Division` the batches are those of this process's rows, and `progress` counts these.
    Raises ValueError when the batches hold another number of images than announced.
    """
    writer = GalleryWriter(images, token_dtype=token_dtype, directory=directory, memory_limit=memory_limit)
    with inference(model) as device:

        def encode(batch: Tensor, part: slice) -> tuple[Tensor, Tensor]:
            return model.encode_images(batch[part].to(device, non_blocking=True))

        for batch in batches:
            for encoded in in_portions(model, "images", len(batch), partial(encode, batch)):
                writer.add(*encoded)
            if progress is not None:
                progress(writer.done, writer.count)
    return writer.finished()


def encode_queries(
    model: RetrievalModel,
    captions: Sequence[str] | TokenisedCaptions,
    batch_size: int = 256,
    *,
    processes: Processes = ALONE,
    progress: Progress | None = None,
) -> Tensor:
    """L2-normalised text features (Q, F), float32 on the CPU, in the captions' order.

    Captions are encoded sorted by length, so that a batch pads to almost nothing; `processes` share the batches.
    Raises ValueError for no caption.
    """
    texts = captions if isinstance(captions, TokenisedCaptions) else TokenisedCaptions(model, captions)
    order = np.argsort(texts.lengths, kind="stable")
    division = Division(len(order), batch_size, processes)
    parts: list[np.ndarray] = []
    with inference(model) as device:

        def encode(chosen: np.ndarray, part: slice) -> np.ndarray:
            features = model.encode_texts(texts.select(chosen[part], device))[1]
            return normalize(features.float(), dim=1).cpu().numpy()

        for piece in division.pieces():
            chosen = order[piece]
            parts += in_portions(model, "texts", len(chosen), partial(encode, chosen))
            if progress is not None:
                progress(piece.stop, len(order))
    encoded = division.gather(parts)
    features = np.empty_like(encoded)
    features[order] = encoded
    return torch.from_numpy(features)
