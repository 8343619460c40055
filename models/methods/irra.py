"""IRRA: similarity distribution matching, identity classification, and words guessed from the image. See docs/methods/irra.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from losses.identity import identity_loss
from losses.masked_language import masked_language_loss
from losses.sdm import sdm_loss
from losses.token_masking import mask_tokens
from models.batch import Batch
from models.eager import eager_on_cpu
from models.heads import Head, identity_classifier
from models.methods.clip_dual_encoder import ClipDualEncoder

ADDED = ("cross_modal.", "language_head.", "classifier.")  # parts that no released weights fill


class IRRA(ClipDualEncoder):
    """Implicit relation reasoning and aligning: IRRA = SDM + ID + language_weight · MLM.

    Args:
        language_weight: of the masked language loss; 0 leaves out the loss and its cross-modal encoder.
        cross_modal_layers: number of blocks of the cross-modal encoder.
        head_lr_factor: learning rate of the cross-modal encoder, the language head and the classifier, in the run's.
        bias_lr_factor: that of biases, except those of the two heads.
        options: of `ClipRetrieval`.
    """

    name = "irra"
    supervision = "labels"
    round_keys = ("classifier.",)
    weighs_pairs = True

    def __init__(
        self,
        *,
        language_weight: float = 1.0,
        cross_modal_layers: int = 4,
        head_lr_factor: float = 5.0,
        bias_lr_factor: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.language_weight = language_weight
        self.head_lr_factor = head_lr_factor
        self.bias_lr_factor = bias_lr_factor
        width = self.size.embed_dim
        self.cross_modal = self.language_head = None
        if language_weight:
            # Not at every start: its blocks bring open_clip along.
            from models.backbones.clip.cross_modal import CrossModalEncoder, language_head

            self.cross_modal = CrossModalEncoder(width, cross_modal_layers)
            self.language_head = language_head(width, cross_modal_layers, self.tokenizer.vocab_size)
        self.classifier: Head | None = None

    def set_identities(self, count: int) -> None:
        """A fresh classifier over `count` classes; replaces the last round's."""
        self.classifier = identity_classifier(self.size.embed_dim, count, self.device)

    def learning_rate_factor(self, parameter_name: str) -> float:
        # In the released code the rate of biases goes before that of the cross-modal encoder, and the heads' before both.
        if parameter_name.startswith(("language_head.", "classifier.")):
            return self.head_lr_factor
        if parameter_name.endswith("bias"):
            return self.bias_lr_factor
        return self.head_lr_factor if parameter_name.startswith(ADDED) else 1.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.classifier is None:
            raise ValueError("IRRA classifies identities: call set_identities(count) before training.")
        encoded = self.encode(batch)
        named = (self.classifier(encoded.image_features), self.classifier(encoded.text_features))
        features = encoded.all_image_features, encoded.all_text_features
        losses = {
            "sdm": sdm_loss(*features, encoded.all_labels, weights=encoded.all_weights),
            "identity": identity_loss(*named, batch.labels, fused_weight=0.5, weights=batch.weights),
        }
        if self.language_weight:
            losses["mlm"] = self.language_weight * self._language_loss(batch, encoded.image_tokens)
        return losses

    def _language_loss(self, batch: Batch, image_tokens: Tensor) -> Tensor:
        """MLM: the hidden words of a caption, guessed from the others and from the image's tokens."""
        if batch.seeds is None:
            raise ValueError("IRRA draws which words to hide from Batch.seeds: give one seed per sample.")
        texts = batch.texts
        hidden, chosen = mask_tokens(
            texts.ids,
            _words(texts.mask),
            batch.seeds,
            self.tokenizer.mask_id,
            replacements=self.tokenizer.start_id,
        )
        text_tokens, _ = self.encode_texts(replace(texts, ids=hidden))
        states = self.cross_modal(text_tokens, texts.mask, image_tokens)
        total = self.world.all_gather(chosen.sum()[None]).sum() / self.world.size
        targets, weights = texts.ids, batch.weights
        if eager_on_cpu(states):
            # One token in seven is looked up in the vocabulary, each as a caption of one word, and not all of them.
            if weights is not None:
                weights = weights[:, None].expand_as(chosen)[chosen]
            states, targets, chosen = (part[chosen][:, None] for part in (states, targets, chosen))
        return masked_language_loss(self.language_head(states), targets, chosen, total, weights)


def _words(mask: Tensor) -> Tensor:
    """(B, L) which tokens of captions are neither their start nor their end nor padding."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    return (columns > 0) & (columns < mask.sum(1, keepdim=True) - 1)
