"""What methods share whose losses compare the features of whole images with those of whole captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, TrainingCaption
from models.methods.base import Method
from models.texts import TextBatch


@dataclass
class Encoded:
    """A batch after both encoders; `all_*` hold every process's rows, in rank order, the others this process's."""

    image_tokens: Tensor  # (b, N, D)
    image_features: Tensor  # (b, F)
    text_tokens: Tensor  # (b, L, D)
    text_features: Tensor  # (b, F)
    all_image_features: Tensor  # (B, F)
    all_text_features: Tensor  # (B, F)
    all_labels: Tensor  # (B,)
    all_weights: Tensor | None  # (B,)


class DualEncoder(Method):
    """A method whose texts are captions as they are, and which meets the other processes' features."""

    def prepare(self, captions: Sequence[TrainingCaption]) -> TextBatch:
        return self.tokenizer([caption.text for caption in captions])

    def encode(self, batch: Batch) -> Encoded:
        """Both encoders on this process's share, and the features and labels of all processes."""
        image_tokens, image_features = self.encode_images(batch.images)
        text_tokens, text_features = self.encode_texts(batch.feature_texts)
        both = self.world.all_gather(torch.cat([image_features, text_features], dim=1))
        all_image, all_text = both.chunk(2, dim=1)
        all_labels = self.world.all_gather(batch.labels)
        all_weights = None if batch.weights is None else self.world.all_gather(batch.weights)
        return Encoded(
            image_tokens,
            image_features,
            text_tokens,
            text_features,
            all_image,
            all_text,
            all_labels,
            all_weights,
        )
