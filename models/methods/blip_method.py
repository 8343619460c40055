"""What PSPD, TSN and CADA share: a BLIP backbone, NDF on its features, and pairs with hard negatives for matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from losses.itc import pair_divergences
from losses.itm import hard_negatives, itm_loss
from losses.local import local_loss, masked_token_mean
from losses.ndf import ndf_loss
from models.backbones.blip.retrieval import BlipRetrieval
from models.batch import Batch
from models.methods.dual_encoder import DualEncoder, Encoded
from models.texts import TextBatch
from models.world import World


@dataclass
class MatchingPairs:
    """This process's P pairs, matching and not; 3b of `matching_pairs`, 2b of `shifted_pairs`."""

    texts: TextBatch  # P
    image_tokens: Tensor  # (M, N, D), each image once
    image_index: Tensor  # (P,) which of them a pair looks at
    targets: Tensor  # (P,) 1 for a match
    weights: Tensor  # (P,) what a decision counts; 0 where a sample has no negative
    total: Tensor  # how many pairs there are in the global batch, divided by the number of processes


class BlipMethod(DualEncoder, BlipRetrieval):
    """A method on the BLIP backbone; its options are the backbone's."""

    has_matching = True
    weighs_pairs = True

    def global_loss(self, encoded: Encoded) -> Tensor:
        """NDF over the global batch: the same number in every process."""
        return ndf_loss(
            encoded.all_image_features,
            encoded.all_text_features,
            encoded.all_labels,
            weights=encoded.all_weights,
        )

    def pair_losses(self, batch: Batch) -> Tensor:
        """(2, B): by the features, and by the match head, which reads image and text together."""
        image_tokens, image_features = self.encode_images(batch.images)
        _, text_features = self.encode_texts(batch.texts)
        by_features = pair_divergences(image_features, text_features, batch.labels, scale=50.0)
        logits = self.match(batch.texts, image_tokens)
        by_matching = cross_entropy(logits.float(), torch.ones_like(batch.labels), reduction="none")
        return torch.stack([by_features, by_matching])

    def warm_up_losses(self, batch: Batch, matching: bool) -> dict[str, Tensor]:
        """The global loss, and with `matching` ITM against other images of the batch, whichever they are.

        Not against the hardest: cross-attention that starts at random learns nothing from negatives which resemble the
        positive in nearly everything, and where every image is its own class the hardest are often the same person.
        """
        encoded = self.encode(batch)
        losses = {"ndf": self.global_loss(encoded)}
        if matching:
            pairs = self.shifted_pairs(batch, encoded)
            losses["itm"] = self.matching_loss(pairs, self.match_pairs(pairs))
        return losses

    @torch.no_grad()
    def start_matching(self) -> None:
        """[ENC], which no unimodal text has, begins as [CLS], which has learnt to sum up a text."""
        words = self.text_encoder.embeddings.word_embeddings.weight
        words[self.tokenizer.enc_id] = words[self.tokenizer.cls_id]

    def _own_rows(self, batch: Batch) -> Tensor:
        """(b,) which samples of the global batch are this process's."""
        size = len(batch)
        return torch.arange(self.world.rank * size, (self.world.rank + 1) * size, device=batch.labels.device)

    def shifted_pairs(self, batch: Batch, encoded: Encoded) -> MatchingPairs:
        """Positives, and each text with the next image of the global batch: 2b pairs of this process."""
        world, size, own = self.world, len(batch), self._own_rows(batch)
        labels = encoded.all_labels
        shifted = (own + 1) % len(labels)
        other = labels != labels.roll(-1)
        images, own_image, next_image = _pool_images(encoded.image_tokens, own, shifted, world)
        positive = torch.ones_like(own)
        return MatchingPairs(
            texts=TextBatch.cat([batch.texts, batch.texts]),
            image_tokens=images,
            image_index=torch.cat([own_image, next_image]),
            targets=torch.cat([positive, torch.zeros_like(own)]),
            weights=torch.cat([positive, other[own]]),
            total=size + other.sum() / world.size,
        )

    def matching_pairs(self, batch: Batch, encoded: Encoded) -> MatchingPairs:
        """The positives, each text with its hardest image, each image with its hardest text, of any process.

        A decision weighs what the pair of its text does: a caption that is wrong about its own image may be right about
        the image that it is most similar to, so that neither answer is known.
        """
        world, size, own = self.world, len(batch), self._own_rows(batch)
        similarity = _similarity(encoded.all_text_features, encoded.all_image_features)
        labels = encoded.all_labels
        hard_image, image_found = hard_negatives(similarity, labels, labels)  # of each text
        hard_text, text_found = hard_negatives(similarity.T, labels, labels)  # of each image

        all_texts = _gather_texts(batch.texts, world)
        texts = TextBatch.cat([batch.texts, batch.texts, all_texts[hard_text[own]]])
        images, own_image, negative_image = _pool_images(encoded.image_tokens, own, hard_image[own], world)
        positive, negative = torch.ones_like(own), torch.zeros_like(own)
        weights = torch.cat([positive, image_found[own], text_found[own]])
        if encoded.all_weights is not None:
            weights = weights * encoded.all_weights[torch.cat([own, own, hard_text[own]])]
        return MatchingPairs(
            texts=texts,
            image_tokens=images,
            image_index=torch.cat([own_image, negative_image, own_image]),
            targets=torch.cat([positive, negative, negative]),
            weights=weights,
            total=size + (image_found.sum() + text_found.sum()) / world.size,
        )

    def match_pairs(self, pairs: MatchingPairs) -> Tensor:
        """Match logits (P, 2), for a method that needs nothing else of the cross-encoder."""
        return self.match(pairs.texts, pairs.image_tokens, pairs.image_index)

    def cross_encode_pairs(self, pairs: MatchingPairs, padding: bool = False) -> Tensor:
        """Last hidden states (P, L, D) of all pairs in one pass, with `padding` those of padding, too."""
        return self.cross_encode(pairs.texts, pairs.image_tokens, pairs.image_index, padding=padding)

    def matching_loss(self, pairs: MatchingPairs, logits: Tensor) -> Tensor:
        """ITM: cross-entropy of the match logits (P, 2)."""
        return itm_loss(logits, pairs.targets, pairs.weights, pairs.total)

    def region_loss(
        self, pairs: MatchingPairs, hidden: Tensor, regions: Sequence[Tensor], head: nn.Module
    ) -> Tensor:
        """One shared head on the mean of each region's tokens; regions are (P, L) masks over the pairs' texts."""
        logits = [head(masked_token_mean(hidden, region)) for region in regions]
        return local_loss(logits, pairs.targets, pairs.weights, pairs.total)


@torch.no_grad()
def _similarity(text_features: Tensor, image_features: Tensor) -> Tensor:
    """(B texts, B images) products of un-normalised features, in full precision: autocast must not pick negatives."""
    with torch.autocast(text_features.device.type, enabled=False):
        return text_features.float() @ image_features.float().T


def _pool_images(
    tokens: Tensor, own: Tensor, negative: Tensor, world: World
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of the images this process looks at, and where among them its own and its negative images are."""
    gathered = world.all_gather(tokens)
    if world.size <= 2:
        return gathered, own, negative
    # A process looks at no more than 2b of the B images: keys and values of the others would be projected for nothing.
    rows = torch.arange(len(own), device=own.device)
    return torch.cat([tokens, gathered[negative]]), rows, rows + len(own)


def _gather_texts(texts: TextBatch, world: World) -> TextBatch:
    """The texts of all processes, padded to the longest of them, in one exchange."""
    if world.size == 1:
        return texts
    missing = world.largest(texts.ids.shape[1]) - texts.ids.shape[1]
    columns = [texts.ids, texts.mask.long(), *(extra.long() for extra in texts.extras.values())]
    ids, mask, *extras = world.all_gather(pad(torch.stack(columns), (0, missing)).transpose(0, 1)).unbind(1)
    named = zip(texts.extras.items(), extras, strict=True)
    return TextBatch(ids, mask.bool(), {name: column.to(own.dtype) for (name, own), column in named})
