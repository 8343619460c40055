"""From files to batches: images out of the cache, pairs in an order that depends on the seed and epoch only."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.augmentations import augment_from_pool, augment_strongly
from data.buffers import Buffers
from data.cache import ImageCache, read_batch
from data.images import DEFAULT_PIXELS, Pixels
from data.transforms import augment, normalise, uniform
from engine.companions import Companions
from engine.config import Config
from engine.identity_batches import IdentityBatches
from engine.seeds import sample_seeds, seed_of
from models.batch import Batch
from models.texts import TextBatch
from models.world import World


class ImageFeed:
    """Images by index, resized: from the memory-mapped cache, or decoded on every access.

    Args:
        paths: image files, in index order.
        image_size: (height, width) in pixels.
        directory: where the cache lies; None decodes on every access.
        pixels: how the backbone wants them resized and normalised.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: tuple[int, int],
        directory: Path | None,
        workers: int = 2,
        skip_unreadable: bool = False,
        pixels: Pixels = DEFAULT_PIXELS,
    ) -> None:
        self.paths = list(paths)
        self.image_size = image_size
        self.interpolation, self.statistics = pixels.interpolation, pixels.statistics
        self.buffers = Buffers()
        self.array: np.ndarray | None = None
        if directory is not None:
            cache = ImageCache.open(
                self.paths,
                image_size,
                directory,
                interpolation=self.interpolation,
                workers=workers,
                skip_unreadable=skip_unreadable,
            )
            self.array = cache.array

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        config: Config,
        image_size: tuple[int, int] | None = None,
        *,
        pixels: Pixels = DEFAULT_PIXELS,
    ) -> ImageFeed:
        """The feed that a configuration asks for."""
        return cls(
            paths,
            image_size or config.model.image_size,
            Path(config.output) / "image_cache" if config.dataset.image_cache else None,
            workers=config.runtime.workers,
            skip_unreadable=config.dataset.skip_unreadable,
            pixels=pixels,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def first(self, count: int) -> ImageFeed:
        """The feed of the first images alone; nothing is read or cached again."""
        part = copy.copy(self)
        part.paths = self.paths[:count]
        return part

    def pixels(self, indices: np.ndarray) -> Tensor:
        """(B,) indices -> uint8 (B, H, W, 3)."""
        if self.array is not None:
            planes = self.array.transpose(0, 3, 1, 2)[indices]  # as they lie in the file
            return torch.from_numpy(planes).permute(0, 2, 3, 1)
        files = [self.paths[i] for i in indices]
        return torch.from_numpy(read_batch(files, self.image_size, interpolation=self.interpolation))

    def batches(
        self, batch_size: int, device: torch.device, indices: np.ndarray | None = None
    ) -> Iterator[Tensor]:
        """All images (or those of ``indices``) in order, normalised, on the device: float (b, 3, H, W)."""
        indices = np.arange(len(self)) if indices is None else indices
        for start in range(0, len(indices), batch_size):
            pixels = self.pixels(indices[start : start + batch_size]).to(device)
            yield normalise(pixels, self.buffers, statistics=self.statistics)


@dataclass
class Pairs:
    """Image-text pairs of a training run: (P,) image indices, P prepared texts, (P,) labels."""

    images: np.ndarray
    texts: TextBatch
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class PairBatches:
    """Training batches of this process: the same global batches whatever the number of processes.

    Args:
        batch_size: the GLOBAL batch; each of ``world.size`` processes gets an equal share.
        name: what is being trained (part of every seed).
        words: the probability with which a word is left out of a caption that features are learnt from.
        companions: whether each sample comes with a caption of another image of its label.
        augmentation: "default" flips, crops within ``padding`` pixels and erases with a probability of ``erasing``
            (``data.transforms``); "pool" draws two operations of ``data.augmentations`` instead.
        views: how the further views of each image that a batch brings are augmented, each by itself: "same", as the image is,
            or "strong" (``data.augmentations``).
        images_per_identity: K of P x K batches (``engine.identity_batches``); None: pairs in a random order.
        text_multiple: above 1, all texts of a batch are as wide as its longest, rounded up to a multiple of this
            (``engine.machine``).

    Attributes:
        weights: (P,) float32, what each pair counts in the batches that are made from now on; None: all 1.
    """

    def __init__(
        self,
        feed: ImageFeed,
        pairs: Pairs,
        batch_size: int,
        world: World,
        device: torch.device,
        *,
        seed: int,
        name: str,
        erasing: float = 0.5,
        padding: int = 10,
        words: float = 0.0,
        companions: bool = False,
        augmentation: str = "default",
        views: Sequence[str] = (),
        images_per_identity: int | None = None,
        text_multiple: int = 1,
    ) -> None:
        self.augmentation, self.views = augmentation, tuple(views)
        self.feed, self.pairs, self.world, self.device = feed, pairs, world, device
        self.seed, self.name, self.erasing, self.padding, self.words = seed, name, erasing, padding, words
        self.text_multiple = text_multiple
        self.pinned = device.type == "cuda"
        self.buffers = Buffers(pinned=True) if self.pinned else feed.buffers
        self.companions = Companions(pairs.images, pairs.labels) if companions else None
        self.weights: np.ndarray | None = None
        whole, together = min(batch_size, len(pairs)), math.lcm(world.size, images_per_identity or 1)
        self.batch_size = whole - whole % together
        if self.batch_size == 0:
            each = f", {images_per_identity} pairs of each identity" if images_per_identity else ""
            raise ValueError(
                f"{len(pairs)} training pairs can't be shared by {world.size} processes with a batch of "
                f"{batch_size}{each}: use fewer processes or a larger train.batch_size."
            )
        self.steps = len(pairs) // self.batch_size
        self.identity_batches = (
            IdentityBatches(pairs.images, pairs.labels, self.batch_size, images_per_identity)
            if images_per_identity
            else None
        )

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` on; the next one is prepared while one is used."""
        order = self._order(seed_of(self.seed, self.name, "order", epoch))
        yield from self._ahead(lambda step: self._batch(order, epoch, step), range(start_step, self.steps))

    def plain(self, pieces: Sequence[np.ndarray]) -> Iterator[Batch]:
        """A batch of the pairs (B,) of each piece, as at evaluation: images as they are, whole captions."""
        return self._ahead(self._plain, pieces)

    def _ahead(self, make: Callable[[Any], Batch], orders: Sequence[Any]) -> Iterator[Batch]:
        """Batches on the device, one for each order; the next one is made while one is used."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            pending = None
            for place in range(len(orders) + 1):
                upcoming = pool.submit(self._ready, make, orders[place]) if place < len(orders) else None
                if pending is not None:
                    yield pending.result().to(self.device, non_blocking=True)
                pending = upcoming

    def _ready(self, make: Callable[[Any], Batch], order: Any) -> Batch:
        """A batch in memory that can go to the device while the host goes on."""
        batch = make(order)
        return batch.pin_memory() if self.pinned else batch

    def _order(self, seed: int) -> np.ndarray:
        """The sample numbers of an epoch; number s is a showing of pair s % P, and has randomness of its own."""
        if self.identity_batches is not None:
            return self.identity_batches.order(seed)
        return np.random.default_rng(seed).permutation(len(self.pairs))

    def _batch(self, order: np.ndarray, epoch: int, step: int) -> Batch:
        share = self.batch_size // self.world.size
        start = step * self.batch_size + self.world.rank * share
        samples = order[start : start + share]
        chosen = samples % len(self.pairs)
        seeds = torch.from_numpy(sample_seeds(seed_of(self.seed, self.name, "augment", epoch), samples))
        pixels = self.feed.pixels(self.pairs.images[chosen])
        images = self._augmented(pixels, seeds)
        views = self._further_views(pixels, epoch, samples)
        labels = torch.from_numpy(self.pairs.labels[chosen].astype(np.int64))
        texts = self.pairs.texts[torch.from_numpy(chosen)].trim()
        others, found = self._companions(epoch, samples)
        texts, shortened, others = self._in_one_width(texts, self._shortened(texts, epoch, samples), others)
        weights = None if self.weights is None else torch.from_numpy(self.weights[chosen])
        return Batch(
            images,
            texts,
            labels,
            seeds,
            shortened,
            others,
            found,
            # No numbers: a compiled step would be compiled for every number anew.
            epoch=torch.tensor(epoch),
            progress=torch.tensor(epoch + step / self.steps),
            weights=weights,
            views=views,
        )

    def _augmented(self, pixels: Tensor, seeds: Tensor, view: str = "same") -> Tensor:
        common = {"buffers": self.buffers, "statistics": self.feed.statistics}
        if view == "strong":
            return augment_strongly(pixels, seeds, **common)
        if self.augmentation == "pool":
            return augment_from_pool(pixels, seeds, **common)
        return augment(pixels, seeds, pad=self.padding, erase=self.erasing, **common)

    def _further_views(self, pixels: Tensor, epoch: int, samples: np.ndarray) -> Tensor | None:
        """This epoch's other views of the samples' images: (views, B, 3, H, W)."""
        if not self.views:
            return None
        seen = []
        for number, view in enumerate(self.views):
            seeds = sample_seeds(seed_of(self.seed, self.name, "view", number, epoch), samples)
            seen.append(self._augmented(pixels, torch.from_numpy(seeds), view))
        return torch.stack(seen)

    def _plain(self, chosen: np.ndarray) -> Batch:
        pixels = self.feed.pixels(self.pairs.images[chosen])
        images = normalise(pixels, self.buffers, statistics=self.feed.statistics)
        labels = torch.from_numpy(self.pairs.labels[chosen].astype(np.int64))
        return Batch(images, self.pairs.texts[torch.from_numpy(chosen)].trim(), labels)

    def _in_one_width(self, *texts: TextBatch | None) -> list[TextBatch | None]:
        """All texts of a batch, alike in width where widths are rounded."""
        if self.text_multiple == 1:
            return list(texts)
        longest = max(batch.ids.shape[1] for batch in texts if batch is not None)
        width = -(-longest // self.text_multiple) * self.text_multiple
        return [None if batch is None else batch.widened(width) for batch in texts]

    def _companions(self, epoch: int, samples: np.ndarray) -> tuple[TextBatch | None, Tensor | None]:
        """This epoch's captions of other images of the samples' labels, and where there are any."""
        if self.companions is None:
            return None, None
        seeds = sample_seeds(seed_of(self.seed, self.name, "companion", epoch), samples)
        drawn, found = self.companions.draw(samples % len(self.pairs), seeds)
        return self.pairs.texts[torch.from_numpy(drawn)].trim(), torch.from_numpy(found)

    def _shortened(self, texts: TextBatch, epoch: int, samples: np.ndarray) -> TextBatch | None:
        """The samples' captions without the words that this epoch leaves out."""
        if not self.words:
            return None
        seeds = sample_seeds(seed_of(self.seed, self.name, "words", epoch), samples)
        dropped = uniform(torch.from_numpy(seeds), texts.ids.shape[1]) < self.words
        return texts.without(dropped.gather(1, texts.words))  # all pieces of a word share its draw
