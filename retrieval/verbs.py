"""What retrieval asks of a model: two verbs or three, and the tokenizer that makes their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class RetrievalModel(Protocol):
    """A torch module with the two verbs of every model in this project: a dual encoder.

    Where it has a `precision`, torch.float32 or torch.bfloat16, the verbs compute in it; without one in float32.
    `has_matching` says whether it is a `MatchingModel` as well. `tokenizer(captions)` returns a text batch: it has `mask`
    (B, L) bool, `len`, `[index tensor]`, `.trim()` (drops columns that are padding everywhere) and `.to(device, non_blocking)`.
    """

    tokenizer: Any
    has_matching: bool

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) -> tokens (B, N, D), features (B, F), not normalised."""

    def encode_texts(self, texts: Any) -> tuple[Tensor, Tensor]:
        """A text batch of B captions -> tokens (B, L, D), features (B, F), not normalised."""

    def word_maps(self, images: Tensor, captions: Sequence[str]) -> Sequence[Any]:
        """For each image (B, 3, H, W) and its caption, which regions each word goes with; see `models.word_maps`."""


class MatchingModel(RetrievalModel, Protocol):
    """A model with the third verb, which reads a text and an image together: a cross encoder as well."""

    def match(self, texts: Any, image_tokens: Tensor, image_index: Tensor | None = None) -> Tensor:
        """Logits (B, 2), index 1 is "match". Pair b reads image_tokens[image_index[b]]."""


def device_of(model: RetrievalModel) -> torch.device:
    """The device the model's first parameter lives on."""
    return next(model.parameters()).device


def precision_of(model: RetrievalModel) -> torch.dtype:
    """What the model's body computes in."""
    return getattr(model, "precision", torch.float32)


@contextmanager
def inference(model: RetrievalModel) -> Iterator[torch.device]:
    """Evaluation mode without gradients, in the model's precision; puts the training mode back afterwards.

    Only the verbs belong inside: what is computed from their results is float32.
    """
    device, precision = device_of(model), precision_of(model)
    was_training = model.training
    model.eval()
    try:
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16),
        ):
            yield device
    finally:
        model.train(was_training)


class TokenisedCaptions:
    """Captions tokenised once, from which batches of any order are cut without padding beyond their longest.

    Attributes: `lengths` (Q,) int64 numpy, tokens per caption.
    """

    def __init__(self, model: RetrievalModel, captions: Sequence[str]):
        if len(captions) == 0:
            raise ValueError("There is no caption to encode; give at least one.")
        self._batch = model.tokenizer(list(captions))
        self.lengths: np.ndarray = self._batch.mask.sum(dim=1).cpu().numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, indices: np.ndarray, device: torch.device) -> Any:
        """The text batch of these captions (B,), in this order, trimmed, on `device`."""
        return self._batch[torch.from_numpy(indices)].trim().to(device, non_blocking=True)
