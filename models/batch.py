"""What a method is given: captions to prepare, and batches to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.texts import TextBatch


@dataclass(frozen=True)
class TrainingCaption:
    """A caption with the words that describe the upper and the lower garment, where they are known."""

    text: str
    upper: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()


@dataclass
class Batch:
    """One process's share of a training batch; row b of everything belongs together.

    Attributes:
        images: (B, 3, H, W) normalised pixels.
        texts: B captions as the method's `prepare` made them.
        labels: (B,) int64, identities or pseudo labels, comparable over all processes.
        seeds: (B,) int64, one per sample and epoch; what a method draws at random for a sample follows from its seed
            alone. None: the method draws nothing or takes seed 0.
        shortened: the same captions with some words left out, which features are learnt from; None: the captions.
        companions: for each sample a caption, whole, of another image with the same label; None: nobody asked for them.
        companion_found: (B,) bool, False where the label has one image only: the caption itself stands in `companions`.
        epoch: of the training that the batch belongs to, from 0; the feed gives a tensor () int64, which a step must not
            branch on (`torch.where` does without).
        progress: epochs of that training gone by, with the part of the present one, as `epoch` a tensor () where the feed
            gives it, float32.
        weights: (B,) float32, how much each pair counts, 0..1; None: all 1.
        views: (V, B, 3, H, W), the same images augmented in other ways; None: nobody asked for them.
    """

    images: Tensor
    texts: TextBatch
    labels: Tensor
    seeds: Tensor | None = None
    shortened: TextBatch | None = None
    companions: TextBatch | None = None
    companion_found: Tensor | None = None
    epoch: Tensor | int = 0
    progress: Tensor | float = 0.0
    weights: Tensor | None = None
    views: Tensor | None = None

    @property
    def feature_texts(self) -> TextBatch:
        """The texts that features are learnt from."""
        return self.texts if self.shortened is None else self.shortened

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """Page-locked copies of what is not page-locked yet: nobody then waits for a copy to a GPU."""
        return self._map(lambda part: part.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def _map(self, change: Callable[[Tensor | TextBatch], Tensor | TextBatch]) -> Batch:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(
            **{
                name: change(part) if isinstance(part, Tensor | TextBatch) else part
                for name, part in parts.items()
            }
        )
