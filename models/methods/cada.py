"""CADA: NDF, matching by halves of the text, and masked attribute words. Supervised. See docs/methods/cada.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from losses.masked_language import hidden_units, masked_language_loss
from models.backbones.blip.retrieval import text_shape
from models.backbones.blip.text import TextDecoder
from models.backbones.blip.tokenizer import RETRIEVAL_LENGTH
from models.batch import Batch, TrainingCaption
from models.heads import Head
from models.methods.attribute_words import attribute_units
from models.methods.blip_method import BlipMethod, MatchingPairs
from models.options import check_choice, check_switch
from models.texts import TextBatch

HALVES = ((1, 37), (37, RETRIEVAL_LENGTH))  # token positions of ATP's two halves; position 0 is [ENC]
HIDING = {"words": 0.4, "phrases": 0.8}  # probability with which ARA hides a unit
HEAD = "text_decoder.cls."


class CADA(BlipMethod):
    """Cross-modal adaptive dual association: CADA = NDF + ITM + ATP + attribute_weight · ARA.

    Args:
        masking: what ARA hides whole: "words" (adjectives and nouns, each with probability 0.4) or "phrases"
            (adjectives with their nouns, 0.8).
        attribute_weight: of ARA's loss; 0 leaves the loss and its decoder out.
        head_lr_factor: learning rate of the language head, in the run's.
        half_padding: whether ATP's means take in padding, up to position 72, as in the released code. False: a half's tokens
            alone, and `[ENC]` where it has none.
        causal_decoder: whether ARA's decoder sees the words before a gap alone, as in the released code, or both sides.
        options: of `BlipRetrieval`.

    Raises ValueError for an option's value that there is not.
    """

    name = "cada"
    supervision = "labels"

    def __init__(
        self,
        *,
        masking: Literal["words", "phrases"] = "words",
        attribute_weight: float = 0.1,
        head_lr_factor: float = 5.0,
        half_padding: bool = False,
        causal_decoder: bool = False,
        **options: Any,
    ) -> None:
        self.check_values(
            {"masking": masking, "half_padding": half_padding, "causal_decoder": causal_decoder}
        )
        super().__init__(**options)
        self.masking = masking
        self.half_padding, self.causal_decoder = half_padding, causal_decoder
        self.attribute_weight = attribute_weight
        self.head_lr_factor = head_lr_factor
        self.itm_local_head = Head(self.itm_head.in_features, 2)
        shape = text_shape(self.size, self.tokenizer, options.get("dropout", 0.1))
        self.text_decoder = TextDecoder(shape) if attribute_weight else None

    @classmethod
    def check_values(cls, options: Mapping[str, Any]) -> None:
        """Refuses values of its options that can't be. Raises ValueError."""
        check_choice(options, "masking", HIDING)
        check_switch(options, "half_padding")
        check_switch(options, "causal_decoder")

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
        if self.half_padding:
            pairs.texts = pairs.texts.widened(RETRIEVAL_LENGTH)
        hidden = self.cross_encode_pairs(pairs, padding=self.half_padding)
        losses = {
            "ndf": self.global_loss(encoded),
            "itm": self.matching_loss(pairs, self.itm_head(hidden[:, 0])),
            "atp": self.region_loss(pairs, hidden, self._halves(pairs), self.itm_local_head),
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
        mask = None if texts.full else texts.mask
        states = self.text_decoder.bert(ids, mask, image_tokens, causal=self.causal_decoder)
        total = self.world.all_gather(hidden.sum()[None]).sum() / self.world.size
        logits = self.text_decoder.word_logits(states)
        return masked_language_loss(logits, texts.ids, hidden, total, batch.weights)

    def _halves(self, pairs: MatchingPairs) -> list[Tensor]:
        """(P, L) masks of the first and the second half, with or without padding."""
        mask = pairs.texts.mask
        counted = torch.ones_like(mask) if self.half_padding else mask
        positions = torch.arange(mask.shape[1], device=mask.device)
        return [counted & (positions >= start) & (positions < stop) for start, stop in HALVES]
