"""BLIP for retrieval: the image encoder, the text stack, and the three verbs everything else is built on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.backbones.blip.checkpoints import load_blip
from models.backbones.blip.sizes import SIZES, Size
from models.backbones.blip.text import TextShape, TextStack
from models.backbones.blip.tokenizer import BlipTokenizer
from models.backbones.blip.vision import BlipVision
from models.backbones.blip.word_relevance import word_relevance
from models.backbones.sizes import size_named
from models.backbones.weights import LoadReport
from models.heads import Head
from models.options import check_switch
from models.texts import TextBatch
from models.word_maps import WordMaps, of_sum_one, summed_by_word, words_in

Texts = TextBatch | Sequence[str]


class BlipRetrieval(nn.Module):
    """Image encoder, text encoder, two projections and the image-text matching head, named as in BLIP's files.

    Args:
        size: "tiny", "base" or "large" (or a `Size`).
        image_size: (height, width) in pixels; None is the size's own.
        tokenizer: required; its vocabulary sets the width of the word embedding.
        vit_grad_ckpt: False keeps all activations; otherwise those of the first `vit_ckpt_layer` image blocks are
            recomputed in the backward pass, which saves their memory.
        vit_ckpt_layer: see there; None is the size's own number.
        dropout: of the text stack, in training.
        keep_unknown: whether captions keep a word of which no piece is known, as [UNK]; they leave it out otherwise.

    Raises ValueError without a tokenizer, and for a keep_unknown that is no switch.
    """

    backbone = "blip"
    sizes = SIZES
    tokenizer_class = BlipTokenizer
    pixel_mean = (0.48145466, 0.4578275, 0.40821073)
    pixel_std = (0.26862954, 0.26130258, 0.27577711)
    interpolation = "bilinear"
    has_matching = True
    encoder_prefixes = ("visual_encoder.", "text_encoder.")
    encoders: ClassVar[Mapping[str, str]] = {
        "image": r"visual_encoder\.|vision_proj\.",
        "text": r"text_(encoder|proj)\.(?!.*crossattention)",
    }

    def __init__(
        self,
        size: str | Size = "base",
        image_size: tuple[int, int] | None = None,
        tokenizer: BlipTokenizer | None = None,
        vit_grad_ckpt: bool | None = None,
        vit_ckpt_layer: int | None = None,
        dropout: float = 0.1,
        keep_unknown: bool = False,
    ) -> None:
        check_switch({"keep_unknown": keep_unknown}, "keep_unknown")
        super().__init__()
        self.size = size = size_named(size, SIZES)
        self.tokenizer = tokenizer = required(tokenizer).keeping_unknown(keep_unknown)
        image_size = tuple(image_size or size.image_size)
        self.visual_encoder = BlipVision(size, image_size, recomputed(size, vit_grad_ckpt, vit_ckpt_layer))
        self.text_encoder = TextStack(text_shape(size, tokenizer, dropout))
        self.vision_proj = Head(size.vision_width, size.embed_dim)
        self.text_proj = Head(size.text_width, size.embed_dim)
        self.itm_head = Head(size.text_width, 2)
        self._pair_start = tokenizer.enc_id

    @classmethod
    def check_values(cls, options: Mapping[str, Any]) -> None:
        """Refuses values of its options that can't be. Raises ValueError."""
        check_switch(options, "keep_unknown")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.itm_head.weight.device

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) the image encoder was built for."""
        return self.visual_encoder.image_size

    def load_pretrained(self, path: str | Path) -> LoadReport:
        """Fills the model with released weights; see `load_blip`."""
        return load_blip(self, path)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to tokens (B, N, vision_width) and features (B, embed_dim), un-normalised."""
        tokens = self.visual_encoder(images)
        return tokens, self.vision_proj(tokens[:, 0])

    def encode_texts(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Captions (a batch or strings) to tokens (B, L, text_width) and features (B, embed_dim), un-normalised."""
        texts = self._tokenised(texts)
        tokens = self.text_encoder(texts.ids, _mask(texts))
        return tokens, self.text_proj(tokens[:, 0])

    def match(self, texts: Texts, image_tokens: Tensor, image_index: Tensor | None = None) -> Tensor:
        """Do text and image belong together? Logits (B, 2); index 1 is "yes".

        Pair b is text b with image b, or with image image_index[b] (int64 (B,)) of image_tokens (M, N, vision_width).
        Give every image once and an index: its keys and values are then computed once, however many texts share it.
        """
        return self.itm_head(self._ground(texts, image_tokens, image_index, first_only=True)[:, 0])

    @contextmanager
    def matching_from(self, first_token: Literal["enc", "cls"]) -> Iterator[None]:
        """Inside, texts that are read together with an image begin with [ENC] or with [CLS], as they do alone."""
        before = self._pair_start
        self._pair_start = {"enc": self.tokenizer.enc_id, "cls": self.tokenizer.cls_id}[first_token]
        try:
            yield
        finally:
            self._pair_start = before

    def cross_encode(
        self,
        texts: Texts,
        image_tokens: Tensor,
        image_index: Tensor | None = None,
        *,
        padding: bool = False,
    ) -> Tensor:
        """Last hidden states (B, L, text_width) of the texts that look at their image, [ENC] first; see `match`.

        Args:
            padding: compute the states of padding, too, to which nothing looks; undefined otherwise.
        """
        return self._ground(texts, image_tokens, image_index, padding=padding)

    def word_maps(self, images: Tensor, captions: Sequence[str]) -> list[WordMaps]:
        """For each image (B, 3, H, W) and its caption, what the words looked at when both were matched; see `word_relevance`.

        `overall` is of all tokens, [ENC], which the decision is read from, among them. Effects are of the match logit.
        """
        texts = self._tokenised(captions)
        words = words_in(texts, [self.tokenizer.words(caption) for caption in captions])
        tokens, attentions = self.visual_encoder.watched(images)
        with torch.no_grad():
            logits = [
                self._match_without_each(texts[[row]], list(own), tokens[row : row + 1])
                for row, own in enumerate(words)
            ]
        ids = self._grounded(texts)
        relevance = word_relevance(self.text_encoder, self.itm_head, ids, texts.mask, tokens, attentions)
        found, grid = [], self.visual_encoder.grid
        for row, own in enumerate(words):
            patches = relevance[row, :, 1:]  # the class token is no region
            maps = of_sum_one(summed_by_word(patches, texts.words[row], list(own)), grid)
            overall, (score, *rest) = of_sum_one(patches.sum(0), grid), logits[row].tolist()
            effects = torch.tensor([score - without for without in rest])
            found.append(WordMaps(tuple(own.values()), maps, overall, effects, "match", score))
        return found

    def _match_without_each(self, text: TextBatch, columns: Sequence[int], tokens: Tensor) -> Tensor:
        """(1 + W,) the match logit of an image (1, N, D) with one caption, and without each of its words."""
        dropped = torch.tensor([-1, *columns], device=text.ids.device)[:, None]  # none has the number -1
        pairs = text[[0] * len(dropped)].without(text.words == dropped)
        return self.match(pairs, tokens, torch.zeros(len(pairs), dtype=torch.int64))[:, 1]

    def _grounded(self, texts: TextBatch) -> Tensor:
        """Ids (B, L) of texts that look at an image: they begin with [ENC], unless `matching_from` says otherwise."""
        ids = texts.ids.clone()
        ids[:, 0] = self._pair_start
        return ids

    def _ground(
        self,
        texts: Texts,
        image_tokens: Tensor,
        image_index: Tensor | None,
        *,
        first_only: bool = False,
        padding: bool = False,
    ) -> Tensor:
        texts = self._tokenised(texts)
        pairs = len(image_tokens) if image_index is None else len(image_index)
        if len(texts) != pairs:
            raise ValueError(f"{len(texts)} texts but {pairs} images to match them with: they must pair up")
        if image_index is not None:
            image_index = image_index.to(image_tokens.device, non_blocking=True)
        return self.text_encoder(
            self._grounded(texts),
            _mask(texts),
            image_tokens,
            image_index,
            first_only=first_only,
            padding=padding,
        )

    def _tokenised(self, texts: Texts) -> TextBatch:
        batch = texts if isinstance(texts, TextBatch) else self.tokenizer(list(texts))
        return batch.to(self.device, non_blocking=True)


def required(tokenizer: BlipTokenizer | None) -> BlipTokenizer:
    """The tokenizer; ValueError without one (it stands after arguments that have defaults, so it needs one too)."""
    if tokenizer is None:
        raise ValueError(
            "a BLIP model needs a tokenizer: its vocabulary sets the width of the word embedding"
        )
    return tokenizer


def recomputed(size: Size, wanted: bool | None, blocks: int | None) -> int:
    """How many of the first image blocks are recomputed in the backward pass."""
    if wanted is False:
        return 0
    return size.checkpoint_blocks if blocks is None else blocks


def text_shape(size: Size, tokenizer: BlipTokenizer, dropout: float) -> TextShape:
    """The text stack of a model size over a tokenizer's vocabulary."""
    return TextShape(
        tokenizer.vocab_size,
        size.text_width,
        size.text_layers,
        size.text_heads,
        size.text_ffn,
        size.vision_width,
        dropout,
    )


def _mask(texts: TextBatch) -> Tensor | None:
    return None if texts.full else texts.mask
