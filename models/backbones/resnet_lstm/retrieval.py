"""ResNet and LSTM for retrieval: SSAN's model without its losses, and the two verbs everything else is built on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from losses.precision import no_autocast, widen
from models.backbones.resnet_lstm.image import ImageEncoder
from models.backbones.resnet_lstm.parts import SLOPE, PartLinear, Parts
from models.backbones.resnet_lstm.pretrained import ENCODER, load_resnet
from models.backbones.resnet_lstm.relation import RelationNetwork
from models.backbones.resnet_lstm.sizes import SIZES, Size
from models.backbones.resnet_lstm.text import TextEncoder
from models.backbones.resnet_lstm.words import Words
from models.backbones.sizes import size_named
from models.backbones.weights import LoadReport
from models.heads import Head
from models.options import check_switch
from models.texts import TextBatch
from models.word_maps import WordMaps, contrasted, directions_of

Texts = TextBatch | Sequence[str]


class ResNetLstm(nn.Module):
    """Semantically Self-Aligned Network (Ding et al., arXiv 2107.12666): images and captions as a whole and in six parts.

    Both encoders end in vectors of one width, one for the whole and one per part, and from there on share every weight:
    the projections, whose local ones are followed by a LeakyReLU as in SSAN's released code (the paper has none), and the
    relation network. All that comes after the encoders is computed in float32, whatever autocast does.

    Args:
        size: "tiny" or "base" (or a `Size`).
        image_size: (height, width) in pixels; None is the size's own.
        tokenizer: required; its vocabulary sets the number of word embeddings.
        dropout: of the word embeddings, in training.
        padding_counts: whether maxima over a caption are over its padding as well, as in SSAN's released code (`TextEncoder`).

    Raises ValueError without a tokenizer, for a padding_counts that is no switch, and for images too low to be cut into the size's parts.
    """

    backbone = "resnet_lstm"
    sizes = SIZES
    tokenizer_class = Words
    pixel_mean = pixel_std = (0.5, 0.5, 0.5)
    interpolation = "bicubic"
    encoder_prefixes = (ENCODER,)
    # The projections are shared.
    encoders: ClassVar[Mapping[str, str]] = {"image": r"image_encoder\.", "text": r"text_encoder\."}

    def __init__(
        self,
        size: str | Size = "base",
        image_size: tuple[int, int] | None = None,
        tokenizer: Words | None = None,
        dropout: float = 0.3,
        padding_counts: bool = False,
    ) -> None:
        check_switch({"padding_counts": padding_counts}, "padding_counts")
        super().__init__()
        if tokenizer is None:
            raise ValueError(
                "a ResNet and LSTM model needs a tokenizer: its vocabulary sets the number of word embeddings"
            )
        self.size = size = size_named(size, SIZES)
        self.tokenizer = tokenizer
        self.image_encoder = ImageEncoder(size, tuple(image_size or size.image_size))
        self.text_encoder = TextEncoder(size, tokenizer.vocab_size, dropout, padding_counts)
        self.global_projection = Head(size.state_width, size.features, bias=False)
        self.part_projection = PartLinear(size.parts, size.state_width, size.features)
        self.relation_network = RelationNetwork(size)

    @classmethod
    def check_values(cls, options: Mapping[str, Any]) -> None:
        """Refuses values of its options that can't be. Raises ValueError."""
        check_switch(options, "padding_counts")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.global_projection.weight.device

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) the image encoder was built for."""
        return self.image_encoder.image_size

    def load_pretrained(self, path: str | Path) -> LoadReport:
        """Fills the image encoder with ImageNet's weights; see `load_resnet`."""
        return load_resnet(self, path)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to tokens (B, K, F), their parts, and features (B, F + K · F + K · R).

        The three levels in a feature have norm 1 each, so that a cosine is the mean of the levels' cosines.
        """
        parts = self.image_parts(images)
        return parts.local, parts.features

    def encode_texts(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Captions (a batch or strings) to tokens and features, as `encode_images`."""
        parts = self.text_parts(texts)
        return parts.local, parts.features

    def word_maps(self, images: Tensor, captions: Sequence[str]) -> list[WordMaps]:
        """For each image (B, 3, H, W) and its caption, the regions that agree with what each word adds; see `models.word_maps`.

        With M (C, h, w) the last feature map, region j contributes max(0, sum over channels of M ⊙ ∂s/∂M)_j: Grad-CAM without
        its mean over the map (Draelos and Carin, arXiv 2011.08891), as the maxima that features are made of say where they lie.
        """
        words = [list(self.tokenizer.words(caption)) for caption in captions]
        with torch.no_grad():
            described = self.encode_texts(captions)[1]
            directions = directions_of(described, [self._without_each(own) for own in words])
            features = self.image_encoder.feature_map(images)
        with torch.enable_grad():
            features = features.detach().requires_grad_()
            seen = self._project(*self.image_encoder.pooled(features)).features

        def regions(gradients: Sequence[Tensor]) -> Tensor:
            return (features.detach() * gradients[0]).sum(1).clamp(min=0).flatten(1)

        return contrasted(seen, directions, [features], regions, words, tuple(features.shape[2:]))

    def _without_each(self, words: Sequence[str]) -> Tensor:
        """Features (W, F) of a caption's words without each of them."""
        left = [" ".join([*words[:place], *words[place + 1 :]]) for place in range(len(words))]
        # A caption without words has features, too; no caption at all has none.
        return self.encode_texts(left or [""])[1][: len(left)]

    def image_parts(self, images: Tensor) -> Parts:
        """Normalised images (B, 3, H, W) at the three levels, which losses read."""
        return self._project(*self.image_encoder(images))

    def text_parts(self, texts: Texts) -> Parts:
        """Captions (a batch or strings) at the three levels, which losses read."""
        batch = texts if isinstance(texts, TextBatch) else self.tokenizer(list(texts))
        batch = batch.to(self.device, non_blocking=True)
        return self._project(*self.text_encoder(batch.ids, batch.mask))

    def _project(self, whole: Tensor, stripes: Tensor) -> Parts:
        """What both encoders end in, (B, D) and (B, K, D), to the three levels."""
        with no_autocast(whole):
            local = leaky_relu(self.part_projection(widen(stripes)), SLOPE)
            return Parts(self.global_projection(widen(whole)), local, self.relation_network(local))
