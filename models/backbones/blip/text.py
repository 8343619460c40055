"""BLIP's text stack: BERT with a cross-attention block per layer, used in three ways.

- unimodal: tokens see each other, the cross-attention blocks are passed by;
- grounded: they are used, and the tokens see an image;
- decoder: grounded, and a token sees only what is before it.

Key names are those of BLIP's checkpoints (Li et al., ICML 2022), which are BERT's. No mask is built where none is
needed, and layers work on tokens, not on padding, where that is cheap to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.attention import Dense, Dropout, attend, layout_of
from models.backbones.linear import Linear
from models.eager import eager_on_cpu

LAYER_NORM_EPS = 1e-12
MAX_POSITIONS = 512
# BERT's 0.02 is made for a width of 768. A narrower stack with it says so little at first that it hardly learns:
# the spread of what a layer adds is kept instead (docs/demo_results.md measures it).
INITIAL_STD, INITIAL_WIDTH = 0.02, 768

KeyValue = tuple[Tensor, Tensor]
Runs = list[tuple[int, int, int]]  # an image, the first text that looks at it, and the first that does not


@dataclass(frozen=True)
class SharedImages:
    """Keys and values (M, heads, N, d) of images, and which texts look at which: an image's texts lie in a row."""

    source: KeyValue
    runs: Runs


@dataclass(frozen=True)
class TextShape:
    """Widths of a text stack; `image_width` is that of the image tokens it may attend to."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    ffn: int
    image_width: int
    dropout: float = 0.1


@dataclass(frozen=True)
class _View:
    """How the tokens of a batch lie, and which of them see which."""

    layout: Dense
    mask: Tensor | None
    causal: bool


DENSE = Dense()


class _Projections(nn.Module):
    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = Linear(width, width)
        self.key = Linear(source_width, width)
        self.value = Linear(source_width, width)


class _AddNorm(nn.Module):
    def __init__(self, source_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = Linear(source_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(self, change: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(change)) + residual)


class _Attention(nn.Module):
    """Multi-head attention, its output projection, and the residual with LayerNorm after it."""

    def __init__(self, shape: TextShape, source_width: int) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = shape.dropout
        self.self = _Projections(shape.width, source_width)
        self.output = _AddNorm(shape.width, shape.width, shape.dropout)

    def split(self, tokens: Tensor) -> Tensor:
        """(B, L, heads * d) -> (B, heads, L, d), a view."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor, layout: Dense, index: Tensor | None = None) -> KeyValue:
        """Keys and values (B, heads, N, d) of source (M, N, D); with an index (B,), row b is source[index[b]].

        They are projected once per source row and gathered after, so that pairs which share an image share the work.
        """
        key, value = layout.pad(self.self.key(source)), layout.pad(self.self.value(source))
        if index is not None:
            key, value = key.index_select(0, index), value.index_select(0, index)
        return self.split(key), self.split(value)

    def forward(
        self,
        hidden: Tensor,
        source: KeyValue,
        layout: Dense,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        query = self.split(layout.pad(self.self.query(hidden)))
        context = attend(query, *source, mask, causal, self.dropout if self.training else 0.0)
        return self.output(layout.pack(context.transpose(1, 2).flatten(2)), hidden)

    def look(self, hidden: Tensor, images: SharedImages, layout: Dense) -> Tensor:
        """`forward` for texts that share images: all tokens of an image's texts are one text to it.

        Nothing is padded then, and no keys and values are copied for every text.
        """
        query, starts = self.self.query(hidden).flatten(0, -2), layout.starts(hidden)
        drop = self.dropout if self.training else 0.0
        parts = []
        for image, first, end in images.runs:
            own = self.split(query[None, starts[first] : starts[end]])
            key, value = (part[image : image + 1] for part in images.source)
            parts.append(attend(own, key, value, None, False, drop).transpose(1, 2).flatten(2)[0])
        return self.output(torch.cat(parts).view_as(hidden), hidden)


class _Intermediate(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.dense = Linear(shape.width, shape.ffn)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))


class _Layer(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.attention = _Attention(shape, shape.width)
        self.crossattention = _Attention(shape, shape.image_width)
        self.intermediate = _Intermediate(shape)
        self.output = _AddNorm(shape.ffn, shape.width, shape.dropout)

    def forward(
        self,
        hidden: Tensor,
        image: KeyValue | SharedImages | None,
        view: _View,
        first_only: bool = False,
        remember: Callable[[KeyValue], KeyValue] | None = None,
    ) -> Tensor:
        layout = view.layout
        source = self.attention.keys_values(hidden, layout)
        if remember is not None:
            source = remember(source)
        if first_only:
            hidden, layout = layout.first(hidden), DENSE
        hidden = self.attention(hidden, source, layout, view.mask, view.causal)
        if isinstance(image, SharedImages):
            hidden = self.crossattention.look(hidden, image, layout)
        elif image is not None:
            hidden = self.crossattention(hidden, image, layout)
        return self.output(self.intermediate(hidden), hidden)


class _Embeddings(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab_size, shape.width, padding_idx=0)
        self.position_embeddings = nn.Embedding(MAX_POSITIONS, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(shape.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            places = self.position_embeddings.weight[: ids.shape[-1]]
        else:
            places = self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + places))


class _Encoder(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))


class DecoderCache:
    """Keys and values of texts being written, and of the images they are about (projected once).

    Texts start at column 0 and are as long as they are: row b's next token goes to its own next column, so
    prompts of different lengths need no padding on the left and positions are columns, as in training.
    Columns not yet written hold left-overs which `mask` hides.
    """

    def __init__(self, stack: TextStack, image_tokens: Tensor, max_length: int) -> None:
        self.images = [layer.crossattention.keys_values(image_tokens, DENSE) for layer in stack.encoder.layer]
        key = self.images[0][0]
        room = (len(image_tokens), key.shape[1], max_length, key.shape[3])
        self._store = [(key.new_zeros(room), key.new_zeros(room)) for _ in self.images]
        self.mask: Tensor | None = None
        self._columns: Tensor | None = None
        self._span = 0

    def open_columns(self, width: int) -> None:
        """The next tokens are (B, width) prompts, padded on the right, for columns 0 to width - 1."""
        self._columns, self._span, self.mask = None, width, None

    def open_next(self, lengths: Tensor) -> Tensor:
        """The next tokens are (B, 1); row b's goes to column lengths[b] (a CPU tensor). Returns them as positions."""
        device = self._store[0][0].device
        self._span = int(lengths.max()) + 1
        self._columns = lengths.to(device, non_blocking=True)
        ragged = int(lengths.min()) + 1 < self._span
        written = torch.arange(self._span, device=device) <= self._columns[:, None]
        self.mask = written[:, None, None, :] if ragged else None
        return self._columns[:, None]

    def remember(self, number: int, source: KeyValue) -> KeyValue:
        """Stores layer `number`'s new keys and values and returns all there are, (B, heads, span, d)."""
        for store, new in zip(self._store[number], source, strict=True):
            if self._columns is None:
                store[:, :, : self._span] = new
            else:
                store[torch.arange(len(new), device=new.device), :, self._columns] = new[:, :, 0].to(
                    store.dtype
                )
        key, value = self._store[number]
        return key[:, :, : self._span], value[:, :, : self._span]


def runs_of(image_index: Tensor) -> Runs | None:
    """The runs of texts with one image; None where an image's texts lie apart, or asking would mean to wait."""
    if not eager_on_cpu(image_index) or bool((image_index.diff() < 0).any()):
        return None
    images, counts = image_index.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0).tolist()
    return list(zip(images.tolist(), [0, *ends], ends, strict=False))


class TextStack(nn.Module):
    """The stack without a head: `embeddings` and `encoder.layer.N`, as in BLIP's `text_encoder`."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = _Embeddings(shape)
        self.encoder = _Encoder(shape)
        self.apply(partial(_initialise, width=shape.width))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        image_tokens: Tensor | None = None,
        image_index: Tensor | None = None,
        *,
        causal: bool = False,
        first_only: bool = False,
        padding: bool = False,
    ) -> Tensor:
        """Last hidden states (B, L, width), or (B, 1, width) where only the first token's are wanted.

        Args:
            ids: (B, L) int64.
            mask: (B, L) bool, True at tokens; None where nothing is padding. With `causal` it only saves work:
                padding is on the right, where no token looks. What comes out at padding is undefined without `padding`.
            image_tokens: (M, N, image_width); None passes the cross-attention by.
            image_index: (B,) int64, the image of each text; None where M = B and they are in order.
            causal: a token sees itself and what is before it.
            first_only: spares the last layer all tokens but the first (their results reach nobody).
            padding: compute padding's states as well: it looks at the tokens, and no token at it.
        """
        layout = DENSE if padding else layout_of(mask)
        view = _View(layout, None if mask is None or causal else mask[:, None, None, :], causal)
        hidden = self.embeddings(layout.pack(ids[..., None])[..., 0], layout.positions())
        last = len(self.encoder.layer) - 1
        # in training, where dropout needs the scores, the copies cost no more than going through the images
        runs = None if self.training or image_index is None else runs_of(image_index)
        for number, layer in enumerate(self.encoder.layer):
            image = None
            if runs is not None:
                image = SharedImages(layer.crossattention.keys_values(image_tokens, DENSE), runs)
            elif image_tokens is not None:
                image = layer.crossattention.keys_values(image_tokens, DENSE, image_index)
            hidden = layer(hidden, image, view, first_only and number == last)
        return hidden if first_only else layout.pad(hidden)

    def extend(self, ids: Tensor, cache: DecoderCache, lengths: Tensor | None = None) -> Tensor:
        """Causal hidden states (B, L, width) of new tokens only; what came before is in the cache.

        Args:
            ids: prompts (B, L), padded on the right, to begin with; then one token per text (B, 1).
            lengths: (B,) on the CPU, how many tokens each text has so far; None for the prompts.
        """
        if lengths is None:
            cache.open_columns(ids.shape[1])
            hidden = self.embeddings(ids, None)
        else:
            hidden = self.embeddings(ids, cache.open_next(lengths))
        view = _View(DENSE, cache.mask, causal=lengths is None)
        for number, layer in enumerate(self.encoder.layer):
            hidden = layer(hidden, cache.images[number], view, remember=partial(cache.remember, number))
        return hidden


class _Transform(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(hidden)))


class _Predictions(nn.Module):
    """The word head; its matrix is the word embedding and its bias has two names, as in the checkpoints."""

    def __init__(self, shape: TextShape, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.transform = _Transform(shape.width)
        self.decoder = Linear(shape.width, shape.vocab_size)
        self.decoder.weight = word_embeddings.weight
        nn.init.zeros_(self.decoder.bias)
        self.bias = self.decoder.bias

    def forward(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden))


class _WordHead(nn.Module):
    def __init__(self, shape: TextShape, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.predictions = _Predictions(shape, word_embeddings)


class TextDecoder(nn.Module):
    """A text stack with a word head: `bert.*` and `cls.predictions.*`, as in BLIP's `text_decoder`."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.bert = TextStack(shape)
        self.cls = _WordHead(shape, self.bert.embeddings.word_embeddings)
        self.cls.predictions.transform.apply(partial(_initialise, width=shape.width))

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., width) to logits over the vocabulary (..., vocab_size)."""
        return self.cls.predictions(hidden)


def _initialise(module: nn.Module, width: int) -> None:
    """BERT's at its width: normal weights of standard deviation 0.02, zero biases and a zero padding embedding."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL_STD * (INITIAL_WIDTH / width) ** 0.5)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx].detach())
