"""PSPD: NDF, image-text matching, and matching by upper and lower garment. See docs/methods/pspd.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from models.batch import Batch, TrainingCaption
from models.heads import Head
from models.methods.blip_method import BlipMethod
from models.texts import TextBatch


class PSPD(BlipMethod):
    """Progressive diverse text generation's trainee: PSPD = NDF + ITM + local.

    Args:
        local_weight: of the local loss; 0 leaves the loss and its head out (ablation).
        options: of `BlipRetrieval`.
    """

    name = "pspd"
    supervision = "pseudo"
    caption_kinds = ("base", "styled")

    def __init__(self, *, local_weight: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.local_weight = local_weight
        self.itm_local_head = Head(self.itm_head.in_features, 2) if local_weight else None

    def prepare(self, captions: Sequence[TrainingCaption]) -> TextBatch:
        sentences = [caption.text for caption in captions]
        return self.tokenizer(sentences).with_extras(
            upper=self.tokenizer.word_mask(sentences, [caption.upper for caption in captions]),
            lower=self.tokenizer.word_mask(sentences, [caption.lower for caption in captions]),
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        pairs = self.matching_pairs(batch, encoded)
        losses = {"ndf": self.global_loss(encoded)}
        if self.itm_local_head is None:
            return losses | {"itm": self.matching_loss(pairs, self.match_pairs(pairs))}
        hidden = self.cross_encode_pairs(pairs)
        losses["itm"] = self.matching_loss(pairs, self.itm_head(hidden[:, 0]))
        regions = [pairs.texts.extras["upper"], pairs.texts.extras["lower"]]
        losses["local"] = self.local_weight * self.region_loss(pairs, hidden, regions, self.itm_local_head)
        return losses
