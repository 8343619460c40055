"""SSAN: identities and compound ranking at three levels of ResNet and LSTM features. Supervised. See docs/methods/ssan.md."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from losses.compound_ranking import compound_ranking_loss
from losses.part_identity import part_identity_loss
from losses.precision import no_autocast
from models.backbones.resnet_lstm.parts import PartLinear, Parts
from models.backbones.resnet_lstm.retrieval import ResNetLstm
from models.batch import Batch
from models.methods.dual_encoder import DualEncoder

LEVELS = {"global": 1.0, "local": 0.5, "relation": 0.5}  # and the weight of each level's losses
CLASSIFIER_STD = 0.001


class SSAN(DualEncoder, ResNetLstm):
    """Semantically self-aligned network: ID_g + (ID_l + ID_n) / 2 + CR_g + (CR_l + CR_n) / 2.

    Args:
        margin: alpha of the compound ranking loss.
        companion_weight: beta, of the term that compares with a caption of another image of the same person.
        image_lr_factor: learning rate of the image encoder, in the run's; a tenth for one that comes with ImageNet's weights.
        options: of `ResNetLstm`.
    """

    name = "ssan"
    supervision = "labels"
    wants_companions = True
    round_keys = ("classifiers.",)

    def __init__(
        self,
        *,
        margin: float = 0.2,
        companion_weight: float = 0.1,
        image_lr_factor: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.margin, self.companion_weight = margin, companion_weight
        self.image_lr_factor = image_lr_factor
        self.classifiers: nn.ModuleList | None = None

    def set_identities(self, count: int) -> None:
        """Fresh classifiers over `count` classes: one for the whole, one per part for each of the other levels."""
        size = self.size
        shapes = ((1, size.features), (size.parts, size.features), (size.parts, size.relation_width))
        self.classifiers = nn.ModuleList(
            PartLinear(parts, width, count, bias=True) for parts, width in shapes
        )
        self.classifiers.to(self.device)
        for classifier in self.classifiers:
            nn.init.normal_(classifier.weight, std=CLASSIFIER_STD)
            nn.init.zeros_(classifier.bias)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.classifiers is None:
            raise ValueError("SSAN classifies identities: call set_identities(count) before training.")
        if batch.companions is None or batch.seeds is None:
            raise ValueError("SSAN compares with Batch.companions and draws from Batch.seeds: give both.")
        image, text = self.image_parts(batch.images), self.text_parts(batch.feature_texts)
        companion = self.text_parts(batch.companions)
        return self._identity(image, text, batch.labels) | self._ranking(image, text, companion, batch)

    def warm_up_losses(self, batch: Batch, matching: bool) -> dict[str, Tensor]:
        """The ranking alone: every image is its own class, so there is nobody to classify and no companion."""
        image, text = self.image_parts(batch.images), self.text_parts(batch.feature_texts)
        return self._ranking(image, text, None, batch)

    def _identity(self, image: Parts, text: Parts, labels: Tensor) -> dict[str, Tensor]:
        losses = {}
        for (name, weight), classifier, *pair in zip(
            LEVELS.items(), self.classifiers, image.by_part, text.by_part, strict=True
        ):
            logits = [classifier(features) for features in pair]
            losses[f"identity_{name}"] = weight * part_identity_loss(*logits, labels)
        return losses

    def _ranking(self, image: Parts, text: Parts, companion: Parts | None, batch: Batch) -> dict[str, Tensor]:
        """Of the global batch, the same number in every process; without companions their term is nothing."""
        gather = self.world.all_gather
        labels, seeds = gather(batch.labels), gather(batch.seeds)
        found = torch.zeros_like(batch.labels) if companion is None else batch.companion_found.long()
        found = gather(found).bool()
        losses = {}
        levels = zip(LEVELS.items(), image.levels, text.levels, (companion or text).levels, strict=True)
        for number, ((name, weight), *features) in enumerate(levels):
            seen, said, said_of_another = (gather(level) for level in features)
            with no_autocast(seen):  # in half precision most negatives would tie with their positive
                similarities = seen @ said.T, seen @ said_of_another.T
            loss = compound_ranking_loss(
                *similarities, found, labels, seeds, batch.epoch, number, self.margin, self.companion_weight
            )
            losses[f"ranking_{name}"] = weight * loss
        return losses

    def learning_rate_factor(self, parameter_name: str) -> float:
        return self.image_lr_factor if parameter_name.startswith(self.encoder_prefixes) else 1.0
