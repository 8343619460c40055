"""CADA: NDF, matching by halves of the text, and masked attribute words. Supervised. See docs/methods/cada.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from losses.masked_language import hidden_units, masked_language_loss
from models.backbones.blip.retrieval import text_shape
from models.backbones.blip.text import TextDecoder
from models.batch import Batch, TrainingCaption
from models.heads import Head
from models.methods.attribute_words import attribute_units
from models.methods.blip_method import BlipMethod
from models.texts import TextBatch

HALVES = ((1, 37), (37, 73))  # token positions of ATP's two halves; position 0 is [ENC]
HIDING = {"words": 0.4, "phrases": 0.8}  # probability with which ARA hides a unit
HEAD = "text_decoder.cls."


class CADA(BlipMethod):
    """Cross-modal adaptive dual association: CADA = NDF + ITM + ATP + attribute_weight · ARA.

    Args:
        masking: what ARA hides whole: "words" (adjectives and nouns, each with probability 0.4) or "phrases"
            (adjectives with their nouns, 0.8).
        attribute_weight: of ARA's loss; 0 leaves the loss and its decoder out.
        head_lr_factor: learning rate of the language head, in the run's.
        options: of `BlipRetrieval`.
    """

    name = "cada"
    supervision = "labels"

    def __init__(
        self,
        *,
        masking: Literal["words", "phrases"] = "words",
        attribute_weight: float = 0.1,
        head_lr_factor: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if masking not in HIDING:
            raise ValueError(f"masking is {masking!r}; CADA hides {' or '.join(HIDING)}.")
        self.masking = masking
        self.attribute_weight = attribute_weight
        self.head_lr_factor = head_lr_factor
        self.itm_local_head = Head(self.itm_head.in_features, 2)
        shape = text_shape(self.size, self.tokenizer, options.get("dropout", 0.1))
        self.text_decoder = TextDecoder(shape) if attribute_weight else None

    def learning_rate_factor(self, parameter_name: str) -> float:
        return self.head_lr_factor if parameter_name.startswith(HEAD) else 1.0

    def prepare(self, captions: Sequence[TrainingCaption]) -> TextBatch:
        """Tokens, with the attribute unit that each belongs to as the extra "units" (0: none)."""
        texts = super().prepare(captions)
        units = torch.zeros_like(texts.ids)
        comma = self.tokenizer([","]).ids[0, 1].item()
        for row, caption in enumerate(captions):
            words = self.tokenizer.words(caption.text)
            # A comma belongs to the word before it, but it parts phrases and is not worth guessing.
            ids = texts.ids[row, : len(words)].tolist()
            parted = [None if token == comma else word for word, token in zip(words, ids, strict=True)]
            numbers = attribute_units(parted, phrases=self.masking == "phrases")
            units[row, : len(words)] = torch.tensor(numbers)
        return texts.with_extras(units=units)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        pairs = self.matching_pairs(batch, encoded)
        hidden = self.cross_encode_pairs(pairs)
        losses = {
            "ndf": self.global_loss(encoded),
            "itm": self.matching_loss(pairs, self.itm_head(hidden[:, 0])),
            "atp": self.region_loss(pairs, hidden, _halves(pairs.texts.mask), self.itm_local_head),
        }
        if self.text_decoder is not None:
            losses["ara"] = self.attribute_weight * self._attribute_loss(batch, encoded.image_tokens)
        return losses

    def _attribute_loss(self, batch: Batch, image_tokens: Tensor) -> Tensor:
        """ARA: the decoder sees the image and the caption with attribute words hidden, and names the hidden words."""
        if batch.seeds is None:
            raise ValueError("CADA draws which words to hide from Batch.seeds: give one seed per sample.")
        texts = batch.texts
        hidden = hidden_units(texts.extras["units"], batch.seeds, HIDING[self.masking])
        ids = texts.ids.masked_fill(hidden, self.tokenizer.mask_id)
        ids[:, 0] = self.tokenizer.dec_id
        states = self.text_decoder.bert(ids, None if texts.full else texts.mask, image_tokens)
        total = self.world.all_gather(hidden.sum()[None]).sum() / self.world.size
        logits = self.text_decoder.word_logits(states)
        return masked_language_loss(logits, texts.ids, hidden, total, batch.weights)


def _halves(mask: Tensor) -> list[Tensor]:
    """(P, L) masks of the first and the second half's tokens that are not padding."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return [mask & (positions >= start) & (positions < stop) for start, stop in HALVES]
