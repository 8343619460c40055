"""What PSPD, TSN and CADA share: a BLIP backbone, NDF on its features, and pairs with hard negatives for matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from losses.itm import hard_negatives, itm_loss
from losses.local import local_loss, masked_token_mean
from losses.ndf import ndf_loss
from models.backbones.blip import BlipRetrieval
from models.backbones.tokenizer import TextBatch
from models.batch import Batch, TrainingCaption
from models.methods.base import Method
from models.world import World


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


@dataclass
class MatchingPairs:
    """This process's 3b cross-encoded pairs: the positives, each text's hardest image, each image's hardest text."""

    texts: TextBatch  # 3b
    hidden: Tensor  # (3b, L, D) last hidden states of the cross-encoder
    targets: Tensor  # (3b,) 1 for a match
    weights: Tensor  # (3b,) 0 where a sample has no negative
    total: Tensor  # pairs that exist in the global batch, per process


class BlipMethod(Method, BlipRetrieval):
    """A method on the BLIP backbone; its options are the backbone's."""

    def prepare(self, captions: Sequence[TrainingCaption]) -> TextBatch:
        return self.tokenizer([caption.text for caption in captions])

    def encode(self, batch: Batch) -> Encoded:
        """Both encoders on this process's share, and the features and labels of all processes."""
        image_tokens, image_features = self.encode_images(batch.images)
        text_tokens, text_features = self.encode_texts(batch.texts)
        both = self.world.all_gather(torch.cat([image_features, text_features], dim=1))
        all_image, all_text = both.split([image_features.shape[1], text_features.shape[1]], dim=1)
        all_labels = self.world.all_gather(batch.labels)
        return Encoded(
            image_tokens, image_features, text_tokens, text_features, all_image, all_text, all_labels
        )

    def global_loss(self, encoded: Encoded) -> Tensor:
        """NDF over the global batch: the same number in every process."""
        return ndf_loss(encoded.all_image_features, encoded.all_text_features, encoded.all_labels)

    def matching_pairs(self, batch: Batch, encoded: Encoded) -> MatchingPairs:
        """Cross-encode the positives and both kinds of hardest negatives, taken from all processes, in one pass."""
        world = self.world
        own = torch.arange(world.rank * len(batch), (world.rank + 1) * len(batch), device=batch.labels.device)
        similarity = _similarity(encoded.all_text_features, encoded.all_image_features)  # (B texts, B images)
        labels = encoded.all_labels
        hard_image, text_found = hard_negatives(similarity, labels, labels)
        hard_text, image_found = hard_negatives(similarity.T, labels, labels)

        images, own_image, negative_image = self._images_of_pairs(encoded.image_tokens, own, hard_image[own])
        all_texts = _gather_texts(batch.texts, self.tokenizer.pad_id, world)
        texts = TextBatch.cat([batch.texts, batch.texts, all_texts[hard_text[own]]])
        hidden = self.cross_encode(texts, images, torch.cat([own_image, negative_image, own_image]))

        positives = torch.ones_like(own)
        weights = torch.cat([positives, text_found[own], image_found[own]])
        total = len(own) + (text_found.sum() + image_found.sum()) / world.size
        targets = torch.cat([positives, torch.zeros_like(positives), torch.zeros_like(positives)])
        return MatchingPairs(texts, hidden, targets, weights, total)

    def _images_of_pairs(
        self, tokens: Tensor, own: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens to project keys and values of, and where in them this process's own and negative images are."""
        world = self.world
        gathered = world.all_gather(tokens)
        if world.size <= 2:
            return gathered, own, negative
        # Of many processes' images a process looks at 2b at the most: it projects only those.
        rows = torch.arange(len(own), device=own.device)
        return torch.cat([tokens, gathered[negative]]), rows, rows + len(own)

    def matching_loss(self, pairs: MatchingPairs) -> Tensor:
        """ITM: the match head on the cross-encoder's first token."""
        return itm_loss(self.itm_head(pairs.hidden[:, 0]), pairs.targets, pairs.weights, pairs.total)

    def region_loss(self, head: torch.nn.Module, pairs: MatchingPairs, regions: Sequence[Tensor]) -> Tensor:
        """One shared head on the token mean of each region; `regions` are (3b, L) masks over the pairs' texts."""
        logits = [head(masked_token_mean(pairs.hidden, region)) for region in regions]
        return local_loss(logits, pairs.targets, pairs.weights, pairs.total)


@torch.no_grad()
def _similarity(text_features: Tensor, image_features: Tensor) -> Tensor:
    """Un-normalised products, in full precision: which negative is hardest must not depend on autocast."""
    with torch.autocast(text_features.device.type, enabled=False):
        return text_features.float() @ image_features.float().T


def _gather_texts(texts: TextBatch, pad_id: int, world: World) -> TextBatch:
    """The texts of all processes, padded to the longest of them, in one exchange."""
    if world.size == 1:
        return texts
    columns = [texts.ids, texts.mask, *texts.extras.values()]
    fills = [pad_id] + [0] * (len(columns) - 1)
    missing = world.largest(texts.ids.shape[1]) - texts.ids.shape[1]
    padded = [
        pad(column.long(), (0, missing), value=fill) for column, fill in zip(columns, fills, strict=True)
    ]
    ids, mask, *extras = world.all_gather(torch.stack(padded, dim=2)).unbind(dim=2)
    named = zip(texts.extras.items(), extras, strict=True)
    return TextBatch(ids, mask.bool(), {name: column.to(own.dtype) for (name, own), column in named})
