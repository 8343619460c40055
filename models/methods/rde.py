"""RDE: two embeddings, a triplet loss over all negatives, and pairs that do not count where both say so. See docs/methods/rde.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from losses.triplet_alignment import triplet_alignment_loss
from models.backbones.clip.retrieval import Texts
from models.backbones.clip.token_selection import TokenSelection
from models.batch import Batch
from models.methods.clip_dual_encoder import ClipDualEncoder

ADDED = ("image_selection.", "text_selection.")  # parts that no released weights fill


class RDE(ClipDualEncoder):
    """Robust dual embedding: TAL of the global embedding + TAL of the embedding of selected tokens.

    A feature is both embeddings, each of length 1, one after the other. The cosine of two features is then the mean of the
    two cosines, which is RDE's score, so whoever ranks, clusters or indexes features needs to know of one vector alone.

    Args:
        selected_share: of the image's patches, and of the text positions between start and end, that are selected.
        tau, margin: of the triplet alignment loss.
        head_lr_factor: learning rate of the two selections, in the run's.
        bias_lr_factor: that of biases.
        options: of `ClipRetrieval`.

    Raises ValueError for a share outside 0..1.
    """

    name = "rde"
    supervision = "labels"
    weighs_pairs = True

    def __init__(
        self,
        *,
        selected_share: float = 0.3,
        tau: float = 0.015,
        margin: float = 0.1,
        head_lr_factor: float = 5.0,
        bias_lr_factor: float = 2.0,
        **options: Any,
    ) -> None:
        self.check_values({"selected_share": selected_share})
        super().__init__(**options)
        self.tau, self.margin = tau, margin
        self.head_lr_factor, self.bias_lr_factor = head_lr_factor, bias_lr_factor
        rows, columns = self.visual.grid
        width, positions = self.size.embed_dim, self.tokenizer.length - 2
        self.image_selection = TokenSelection(width, max(1, int(selected_share * rows * columns)))
        self.text_selection = TokenSelection(width, max(1, int(selected_share * positions)))

    @classmethod
    def check_values(cls, options: Mapping[str, Any]) -> None:
        """Refuses values of its options that can't be. Raises ValueError."""
        share = options.get("selected_share", 1.0)
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise ValueError(f"selected_share is {share!r}: give a share of the tokens, 0 < share <= 1")

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the backbone's, with features (B, 3 embed_dim): both embeddings."""
        tokens, whole, attention = self.attend_images(images)
        patches = torch.ones_like(attention, dtype=torch.bool)
        patches[:, 0] = False
        return tokens, _both(whole, self.image_selection(tokens, attention, patches))

    def encode_texts(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """As the backbone's, with features (B, 3 embed_dim): both embeddings."""
        tokens, whole, attention, mask = self.attend_texts(texts)
        return tokens, _both(whole, self.text_selection(tokens, attention, _words(mask)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the pairs of the global batch, the same numbers in every process."""
        encoded = self.encode(batch)
        both = self._losses_of_pairs(
            encoded.all_image_features, encoded.all_text_features, encoded.all_labels
        )
        if encoded.all_weights is not None:
            both = both * encoded.all_weights
        return dict(zip(("tal_global", "tal_selected"), both.sum(1), strict=True))

    def pair_losses(self, batch: Batch) -> Tensor:
        """(2, B): what either embedding thinks of each pair."""
        _, image_features = self.encode_images(batch.images)
        _, text_features = self.encode_texts(batch.texts)
        return self._losses_of_pairs(image_features, text_features, batch.labels)

    def _losses_of_pairs(self, image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
        """(2, B) of features (B, 3 embed_dim)."""
        widths = [self.size.embed_dim, 2 * self.size.embed_dim]
        embeddings = zip(image_features.split(widths, 1), text_features.split(widths, 1), strict=True)
        return torch.stack(
            [triplet_alignment_loss(image, text, labels, self.tau, self.margin) for image, text in embeddings]
        )

    def learning_rate_factor(self, parameter_name: str) -> float:
        if parameter_name.endswith("bias"):
            return self.bias_lr_factor
        return self.head_lr_factor if parameter_name.startswith(ADDED) else 1.0


def _both(whole: Tensor, selected: Tensor) -> Tensor:
    return torch.cat([normalize(whole, dim=1), normalize(selected, dim=1)], dim=1)


def _words(mask: Tensor) -> Tensor:
    """(B, L) which tokens of captions lie between their start and end; the end, where nothing does."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    return (columns > 0) & (columns < mask.sum(1, keepdim=True).clamp(min=3) - 1)
