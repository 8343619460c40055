"""What TBPS-CLIP and SynTBPR share: CLIP's learned scale, and targets that the model's own opinion softens bit by bit."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from losses.itc import pair_divergences, scaled_cosines, soft_targets
from models.batch import Batch
from models.logit_scale import LogitScale
from models.methods.clip_dual_encoder import ClipDualEncoder
from models.methods.dual_encoder import Encoded

Targets = tuple[Tensor, Tensor]  # (B, B) of images to texts, and of texts to images


class SoftContrast(ClipDualEncoder):
    """A dual encoder on CLIP whose losses contrast images with texts against soft targets.

    Args:
        soft_target: what the model's opinion is, the sigmoid of each similarity or the softmax of each row.
        alpha: share of that opinion in the targets, reached at the end of the first epoch.
        options: of `ClipRetrieval`.

    Raises ValueError for another soft_target, and for an alpha outside of 0..1.
    """

    supervision = "labels"
    weighs_pairs = True

    def __init__(self, *, soft_target: Literal["sigmoid", "softmax"], alpha: float, **options: Any) -> None:
        super().__init__(**options)
        if soft_target not in ("sigmoid", "softmax"):
            raise ValueError(f"soft_target is {soft_target!r}: it is sigmoid or softmax")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}: it is a share, from 0 to 1")
        self.soft_target, self.alpha = soft_target, alpha
        self.logit_scale = LogitScale()

    def similarity(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """(B, B) scaled cosines of images (rows) and texts."""
        return scaled_cosines(image_features, text_features, self.logit_scale())

    def soft_targets(self, similarity: Tensor, encoded: Encoded, batch: Batch) -> Targets:
        """The targets of both directions; alpha rises linearly from 0 in the first epoch of a training."""
        # A tensor in training: a number would be compiled anew with every step.
        alpha = self.alpha * torch.as_tensor(batch.progress).clamp(max=1.0)
        labels, kind = encoded.all_labels, self.soft_target
        return soft_targets(similarity, labels, alpha, kind), soft_targets(similarity.T, labels, alpha, kind)

    def pair_losses(self, batch: Batch) -> Tensor:
        """(B,) what each pair adds to N-ITC with targets of labels alone, at the scale that was learnt."""
        _, image_features = self.encode_images(batch.images)
        _, text_features = self.encode_texts(batch.texts)
        return pair_divergences(image_features, text_features, batch.labels, self.logit_scale())
