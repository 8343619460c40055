"""SynTBPR's retrieval model: N-ITC and R-ITC on EVA-02's CLIP, with slightly softened targets. See docs/methods/syntbpr.md."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from losses.itc import n_itc_loss, r_itc_loss
from models.batch import Batch
from models.methods.soft_contrast import SoftContrast


class SynTBPR(SoftContrast):
    """SynTBPR = N-ITC + R-ITC, both against alpha g(S) + (1 - alpha) q with rows normalised.

    Args:
        soft_target: g, the sigmoid of each similarity or the softmax of each row.
        alpha: share of the model's own opinion in the targets, reached at the end of the first epoch.
        options: of `ClipRetrieval`.
    """

    name = "syntbpr"

    def __init__(
        self, *, soft_target: Literal["sigmoid", "softmax"] = "sigmoid", alpha: float = 0.005, **options: Any
    ) -> None:
        super().__init__(soft_target=soft_target, alpha=alpha, **options)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        similarity = self.similarity(encoded.all_image_features, encoded.all_text_features)
        targets, targets_t2i = self.soft_targets(similarity, encoded, batch)
        both = {"targets_t2i": targets_t2i, "weights": encoded.all_weights}
        return {
            "n_itc": n_itc_loss(similarity, targets, **both),
            "r_itc": r_itc_loss(similarity, targets, **both),
        }
