"""CLIP for retrieval: two towers, two projections into one space, and the two verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from models.backbones.clip.checkpoints import load_clip
from models.backbones.clip.sizes import POSITIONS, SIZES, Size, architecture, check_length
from models.backbones.clip.tokenizer import ClipTokenizer
from models.backbones.sizes import size_named
from models.backbones.weights import LoadReport
from models.heads import Head
from models.texts import TextBatch
from models.word_maps import WordMaps, contrasted, directions_of, words_in

EXPLAINED_LAYERS = 3  # of the image tower, its last ones; all of a tiny one

Texts = TextBatch | Sequence[str]


class ClipRetrieval(nn.Module):
    """Image and text tower, each with a projection that every token goes through.

    Args:
        size: "tiny", "base" or "eva02-base" (or a `Size`).
        image_size: (height, width) in pixels; None is the size's own.
        tokenizer: required; its vocabulary sets the number of token embeddings.
        arch: another architecture by open_clip's name, such as "ViT-L-14-quickgelu", in the place of the size's.
        text_length: number of text positions; more than CLIP's 77 are stretched from the pre-trained ones.
        vit_grad_ckpt: whether activations of the image tower are recomputed in the backward pass, which saves their memory.

    Raises ValueError without a tokenizer, for an unknown size or architecture, for an image size that is no multiple of the
    patch, and for a text_length below 77.
    """

    backbone = "clip"
    sizes = SIZES
    tokenizer_class = ClipTokenizer
    pixel_mean = (0.48145466, 0.4578275, 0.40821073)
    pixel_std = (0.26862954, 0.26130258, 0.27577711)
    interpolation = "bicubic"
    encoder_prefixes = ("visual.", "text.", "image_projection.", "text_projection.")
    encoders: ClassVar[Mapping[str, str]] = {
        "image": r"visual\.|image_projection\.",
        "text": r"text(_projection)?\.",
    }

    def __init__(
        self,
        size: str | Size = "base",
        image_size: tuple[int, int] | None = None,
        tokenizer: ClipTokenizer | None = None,
        arch: str | None = None,
        text_length: int = POSITIONS,
        vit_grad_ckpt: bool = False,
    ) -> None:
        super().__init__()
        # Not at every start: the towers bring open_clip along.
        from models.backbones.clip.text import ClipText
        from models.backbones.clip.vision import image_tower

        if tokenizer is None:
            raise ValueError("a CLIP model needs a tokenizer: its vocabulary sets the number of embeddings")
        self.size = size = architecture(arch) if arch else size_named(size, SIZES)
        self.tokenizer = tokenizer.of_length(text_length)
        self.visual = image_tower(size, tuple(image_size or size.image_size))
        self.visual.set_grad_checkpointing(vit_grad_ckpt)
        self.text = ClipText(size, tokenizer.vocab_size, text_length)
        self.image_projection = Head(size.vision_width, size.embed_dim, bias=size.rotary)
        self.text_projection = Head(size.text_width, size.embed_dim, bias=False)
        for projection in (self.image_projection, self.text_projection):  # as CLIP starts them
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    @classmethod
    def check_values(cls, options: Mapping[str, Any]) -> None:
        """Refuses values of its options that the constructor would refuse after seconds. Raises ValueError."""
        if options.get("arch"):
            architecture(options["arch"])
        check_length(options.get("text_length", POSITIONS))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.text_projection.weight.device

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) the image tower was built for."""
        return self.visual.image_size

    def load_pretrained(self, path: str | Path) -> LoadReport:
        """Fills the model with released weights; see `load_clip`."""
        return load_clip(self, path)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to tokens (B, 1 + patches, embed_dim), [CLS] first, and features (B, embed_dim).

        Both are projected and un-normalised; the feature is the token [CLS], in float32 whatever autocast does.
        """
        return self._projected_images(self.visual(images))

    def encode_texts(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Captions (a batch or strings) to tokens (B, L, embed_dim) and features (B, embed_dim), as `encode_images`.

        The feature is the end-of-text token, the last of a caption: no other has seen all of it.
        """
        texts = self._here(texts)
        return self._projected_texts(self.text(texts.ids), texts.mask)

    def attend_images(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`encode_images`, and how much [CLS] looks at each token in the tower's last layer: (B, 1 + patches) of sum 1."""
        states, attention = self.visual.with_attention(images)
        return *self._projected_images(states), attention

    def attend_texts(self, texts: Texts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`encode_texts`, how much the end-of-text token looks at each token, (B, L) of sum 1, and the texts' mask (B, L)."""
        texts = self._here(texts)
        states, attention = self.text.with_attention(texts.ids, texts.mask)
        return *self._projected_texts(states, texts.mask), attention, texts.mask

    def word_maps(self, images: Tensor, captions: Sequence[str]) -> list[WordMaps]:
        """For each image (B, 3, H, W) and its caption, the regions that agree with what each word adds; see `models.word_maps`.

        With A_l (heads, N, N) the attention of the image tower's last layers, the region of token j contributes

            sum over l and over the tokens i of the mean over heads of max(0, A_l ⊙ ∂s/∂A_l)_ij

        for the cosine s of CLIP's own embeddings: of a method that has a second one, this is the first's part. Earlier layers
        are not looked into, each would cost as much as a pass through it for every word: a patch's token stands for its patch.
        """
        texts = self._here(captions)
        words = words_in(texts, [self.tokenizer.words(caption) for caption in captions])
        with torch.no_grad():
            directions = directions_of(
                self._caption_features(texts),
                [self._without_each(texts[[row]], list(own)) for row, own in enumerate(words)],
            )
        states, attentions = self.visual.watched(images, min(EXPLAINED_LAYERS, self.size.vision_layers))
        with torch.enable_grad():
            features = self.image_projection(states[:, 0])

        def regions(gradients: Sequence[Tensor]) -> Tensor:
            taken = (
                (attention.detach() * gradient).clamp(min=0).mean(1).sum(1)
                for attention, gradient in zip(attentions, gradients, strict=True)
            )
            return sum(taken)[:, 1:]  # the class token is no region

        spelled = [list(own.values()) for own in words]
        return contrasted(features, directions, attentions, regions, spelled, self.visual.grid)

    def _caption_features(self, texts: TextBatch) -> Tensor:
        """(B, embed_dim) CLIP's own, whatever a method makes of them."""
        return self._projected_texts(self.text(texts.ids), texts.mask)[1]

    def _without_each(self, text: TextBatch, columns: Sequence[int]) -> Tensor:
        """(W, embed_dim) of one caption without each of its words, which begin in these columns."""
        if not columns:
            return self.text_projection.weight.new_zeros(0, self.size.embed_dim)
        left_out = torch.tensor(columns, device=text.ids.device)[:, None]
        return self._caption_features(text[[0] * len(columns)].without(text.words == left_out))

    def _here(self, texts: Texts) -> TextBatch:
        texts = texts if isinstance(texts, TextBatch) else self.tokenizer(list(texts))
        return texts.to(self.device, non_blocking=True)

    def _projected_images(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return _all_tokens(self.image_projection, states), self.image_projection(states[:, 0])

    def _projected_texts(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(states), device=states.device)
        ends = states[rows, mask.sum(1) - 1]
        return _all_tokens(self.text_projection, states), self.text_projection(ends)


def _all_tokens(projection: Head, states: Tensor) -> Tensor:
    """Every state projected, in the body's precision: they are looked at and not compared."""
    return linear(states, projection.weight, projection.bias)
