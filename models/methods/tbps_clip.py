"""TBPS-CLIP: N-ITC and R-ITC on OpenAI's CLIP, with views that recognise each other and C-ITC. See docs/methods/tbps_clip.md."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from losses.cyclic import cyclic_loss
from losses.itc import label_targets, n_itc_loss, r_itc_loss
from losses.simclr import simclr_loss
from models.backbones.normalisation import BatchNorm1d
from models.batch import Batch
from models.heads import Head
from models.methods.dual_encoder import Encoded
from models.methods.soft_contrast import SoftContrast

VIEW_WIDTH = 128  # of the hidden layer between a feature and what SS-I compares
TEMPERATURE = 0.1
HARD_EPS = 1e-2  # R-ITC's, whose targets are those of labels alone


class TBPSCLIP(SoftContrast):
    """TBPS-CLIP = N-ITC (a mean over two views) + R-ITC + self_supervision_weight · SS-I + cyclic_weight · C-ITC.

    Args:
        simplified: N-ITC of one view and R-ITC, nothing else.
        self_supervision_weight: of SS-I; 0 leaves out the loss, its two views and its layers.
        cyclic_weight: of C-ITC; 0 leaves it out.
        soft_target: the model's opinion in N-ITC's targets, the softmax of each row or the sigmoid of each similarity.
        alpha: share of that opinion, reached at the end of the first epoch.
        options: of `ClipRetrieval`.
    """

    name = "tbps_clip"

    def __init__(
        self,
        *,
        simplified: bool = False,
        self_supervision_weight: float = 0.4,
        cyclic_weight: float = 0.1,
        soft_target: Literal["sigmoid", "softmax"] = "softmax",
        alpha: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(soft_target=soft_target, alpha=alpha, **options)
        self.simplified = simplified
        self.self_supervision_weight = 0.0 if simplified else self_supervision_weight
        self.cyclic_weight = 0.0 if simplified else cyclic_weight
        self.wants_views = () if simplified else ("same",)
        self.view_head = None
        if self.self_supervision_weight:
            self.wants_views += ("strong", "strong")
            width = self.size.embed_dim
            self.view_head = nn.Sequential(
                Head(width, VIEW_WIDTH, bias=False),
                BatchNorm1d(VIEW_WIDTH),
                nn.ReLU(),
                Head(VIEW_WIDTH, width),
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        images, texts, weights = encoded.all_image_features, encoded.all_text_features, encoded.all_weights
        similarity = self.similarity(images, texts)
        hard = label_targets(encoded.all_labels)
        losses = {
            "n_itc": self._soft_contrast(similarity, encoded, batch),
            "r_itc": r_itc_loss(similarity, hard, HARD_EPS, weights=weights),
        }
        if self.cyclic_weight:
            losses["c_itc"] = self.cyclic_weight * cyclic_loss(images, texts, weights)
        if self.simplified:
            return losses
        second, *strong = self._views(batch)
        of_second = self._soft_contrast(self.similarity(second, texts), encoded, batch)
        losses["n_itc"] = (losses["n_itc"] + of_second) / 2
        if strong:
            # Of images alone: a caption may be as wrong as it likes.
            losses["ss_i"] = self.self_supervision_weight * simclr_loss(*strong, TEMPERATURE)
        return losses

    def _soft_contrast(self, similarity: Tensor, encoded: Encoded, batch: Batch) -> Tensor:
        targets, targets_t2i = self.soft_targets(similarity, encoded, batch)
        return n_itc_loss(similarity, targets, targets_t2i, encoded.all_weights)

    def _views(self, batch: Batch) -> tuple[Tensor, ...]:
        """(B, F) of all processes: a second view's features, and where SS-I is wanted both strong views', projected."""
        if batch.views is None or len(batch.views) != len(self.wants_views):
            raise ValueError(
                f"TBPS-CLIP looks at further views of each image, {', '.join(self.wants_views)}: give them as Batch.views, "
                "or set model.options.simplified."
            )
        _, features = self.encode_images(batch.views.flatten(0, 1))
        own = [features[: len(batch)]]
        if self.view_head is not None:
            # Both at once, so that BatchNorm's statistics are those of all strong views.
            own += self.view_head(features[len(batch) :]).chunk(2)
        return self.world.all_gather(torch.cat(own, dim=1)).chunk(len(own), dim=1)
