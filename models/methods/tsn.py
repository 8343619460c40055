"""TSN: NDF, image-text matching, and an identity loss on a fused feature. See docs/methods/tsn.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torch.nn.functional import normalize

from losses.identity import identity_loss
from models.batch import Batch
from models.heads import Head, identity_classifier
from models.methods.blip_method import BlipMethod
from models.methods.fusion import STARTS, FusionEncoder
from models.options import check_choice, check_switch


class TSN(BlipMethod):
    """Text style normalisation's retrieval model: TSN = NDF + ITM + identity.

    Args:
        identity_weight: of the identity loss.
        normalise_fused: whether the fused feature is brought to length 1 before it is clustered; the released code clusters it
            as it is.
        fusion_start: the fusion encoder's first weights, as `FusionEncoder`'s start.
        options: of `BlipRetrieval`.

    Raises ValueError for an option's value that there is not.
    """

    name = "tsn"
    supervision = "pseudo"
    caption_kinds = ("fixed",)
    round_keys = ("classifier.",)

    def __init__(
        self,
        *,
        identity_weight: float = 1.0,
        normalise_fused: bool = True,
        fusion_start: Literal["torch", "normal"] = "torch",
        **options: Any,
    ) -> None:
        self.check_values({"normalise_fused": normalise_fused, "fusion_start": fusion_start})
        super().__init__(**options)
        self.identity_weight, self.normalise_fused = identity_weight, normalise_fused
        size = self.size
        self.fusion = FusionEncoder(size.vision_width, size.text_width, size.embed_dim, fusion_start)
        self.classifier: Head | None = None

    @classmethod
    def check_values(cls, options: Mapping[str, Any]) -> None:
        """Refuses values of its options that can't be. Raises ValueError."""
        check_switch(options, "normalise_fused")
        check_choice(options, "fusion_start", STARTS)

    def set_identities(self, count: int) -> None:
        """A fresh classifier over `count` classes; replaces the last round's."""
        self.classifier = identity_classifier(self.size.embed_dim, count, self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.classifier is None:
            raise ValueError("TSN classifies identities: call set_identities(count) before training.")
        encoded = self.encode(batch)
        pairs = self.matching_pairs(batch, encoded)
        fused = self.fuse(encoded.image_tokens, encoded.text_tokens, batch.feature_texts.mask)
        identity = identity_loss(
            self.classifier(fused),
            self.classifier(encoded.text_features),
            batch.labels,
            weights=batch.weights,
        )
        return {
            "ndf": self.global_loss(encoded),
            "itm": self.matching_loss(pairs, self.match_pairs(pairs)),
            "identity": self.identity_weight * identity,
        }

    def fuse(self, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> Tensor:
        """Fused features (B, embed_dim), un-normalised; no gradient reaches the encoders this way."""
        return self.fusion(image_tokens.detach(), text_tokens.detach(), text_mask)

    def cluster_features(
        self,
        image_tokens: Tensor,
        image_features: Tensor,
        text_tokens: Tensor,
        text_features: Tensor,
        text_mask: Tensor,
    ) -> Tensor:
        fused = self.fuse(image_tokens, text_tokens, text_mask)
        return normalize(fused, dim=1) if self.normalise_fused else fused
