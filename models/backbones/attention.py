"""What encoders are made of besides matrices: attention, dropout, and the packing of padded batches.

On a GPU, and in a compiled graph, these are torch's own kernels. On a CPU three things cost more than they should and are done otherwise:
dropout draws one random number per element from a serial generator (here one per four), attention with dropout falls
back to a path that checks every row for being masked, and padding is computed with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.precision import no_autocast, widen
from models.eager import eager_on_cpu

_LEVELS = 1 << 16


def dropout(values: Tensor, probability: float) -> Tensor:
    """Zeroes entries with the probability (on a CPU rounded to 1/65,536) and scales the others up; torch's generator."""
    if probability == 0.0:
        return values
    if not eager_on_cpu(values):
        return F.dropout(values, probability)
    count = values.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    draws = draws.view(torch.int16)[:count].view(values.shape)
    dropped = round(probability * _LEVELS)
    keep = draws >= dropped - _LEVELS // 2
    return values * keep.to(values.dtype).mul_(_LEVELS / (_LEVELS - dropped))


class Dropout(nn.Module):
    """`dropout` in training, nothing in evaluation."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout is a probability below 1, not {probability}")
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.probability) if self.training else values


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, drop: float
) -> Tensor:
    """softmax(query key^T / sqrt(d)) value with dropout on the weights.

    Args:
        query: (B, heads, L, d); key, value: (B, heads, N, d).
        mask: bool, True where a query may look, to be broadcast to (B, heads, L, N); None for everywhere.
        causal: query i looks at keys 0 to i; not together with a mask.
        drop: probability.
    """
    if drop == 0.0 or not eager_on_cpu(query):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=drop, is_causal=causal
        )
    scores = query @ (key * query.shape[-1] ** -0.5).transpose(-1, -2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return dropout(scores.softmax(-1), drop) @ value


def attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(query key^T / sqrt(d)) value in single precision, and the softmax, which a graph leads through: no kernel of
    torch's holds it.

    Args:
        query: (B, heads, L, d); key, value: (B, heads, N, d).

    Returns:
        The heads' results side by side, (B, L, heads d), and how much is looked at what, (B, heads, L, N).
    """
    query, key, value = map(widen, (query, key, value))
    with no_autocast(query):
        weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(3)
        return (weights @ value).transpose(1, 2).flatten(2), weights


class Dense:
    """A batch (B, L, D) as it is: nothing to pack. Also the interface of `Packed`."""

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, D) to the form layers work on."""
        return padded

    def pad(self, tokens: Tensor) -> Tensor:
        """Back to (B, L, D)."""
        return tokens

    def first(self, tokens: Tensor) -> Tensor:
        """The first token of every text, (B, 1, D)."""
        return tokens[:, :1]

    def positions(self) -> Tensor | None:
        """The column of every token, None where the tokens are all columns in order."""
        return None

    def starts(self, tokens: Tensor) -> list[int]:
        """Where every text begins among all tokens in a row, and where the last one ends."""
        return list(range(0, tokens.shape[0] * tokens.shape[1] + 1, tokens.shape[1]))


class Packed(Dense):
    """The tokens of a padded batch in a row, (T, D): all but attention then works on tokens and on no padding."""

    def __init__(self, mask: Tensor) -> None:
        """mask (B, L) bool, on the CPU: the number of tokens has to be known."""
        self._shape = mask.shape
        self._starts = [0, *mask.sum(1).cumsum(0).tolist()]
        self._rows = mask.flatten().nonzero()[:, 0]

    def pack(self, padded: Tensor) -> Tensor:
        return padded.flatten(0, 1).index_select(0, self._rows)

    def pad(self, tokens: Tensor) -> Tensor:
        padded = tokens.new_zeros(self._shape.numel(), tokens.shape[-1])
        return padded.index_copy_(0, self._rows, tokens).unflatten(0, self._shape)

    def first(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(0, (self.positions() == 0).nonzero()[:, 0])[:, None]

    def positions(self) -> Tensor:
        return self._rows % self._shape[1]

    def starts(self, tokens: Tensor) -> list[int]:
        return self._starts


def layout_of(mask: Tensor | None) -> Dense:
    """Packed where there is padding and its extent is known without waiting."""
    return Dense() if mask is None or not eager_on_cpu(mask) or bool(mask.all()) else Packed(mask)
