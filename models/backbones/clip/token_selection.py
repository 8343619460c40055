"""RDE's second embedding: of the tokens that matter most to [CLS] or to the end of a caption, and of no other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from losses.precision import widen
from models.backbones.normalisation import BatchNorm1d
from models.heads import Head


class TokenSelection(nn.Module):
    """max over the selected tokens of linear(x) + MLP(x), x a token of length 1 (Qin et al., CVPR 2024, section 3.1).

    All in single precision: what comes out is compared. BatchNorm's statistics are those of the selected tokens of all
    processes.

    Args:
        width: of the tokens; the embedding is twice as wide (512 and 1024 at base size).
        count: how many tokens of a sample are selected.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = Head(width, 2 * width)
        self.mlp = nn.Sequential(Head(width, width), BatchNorm1d(width), nn.ReLU(), Head(width, 2 * width))

    def forward(self, tokens: Tensor, attention: Tensor, candidates: Tensor) -> Tensor:
        """Tokens (B, N, width) to (B, 2 width), in float32 (float64 for float64 tokens).

        Args:
            tokens: of both kinds, those that may be selected and others.
            attention: (B, N) by which they are ranked.
            candidates: (B, N) bool, which may be selected; at least one of each sample.
        """
        selected = select(attention, candidates, self.count)[:, :, None].expand(-1, -1, tokens.shape[2])
        chosen = normalize(widen(tokens.gather(1, selected)), dim=2).flatten(0, 1)
        embedded = self.linear(chosen) + self.mlp(chosen)
        return embedded.unflatten(0, (-1, self.count)).amax(1)


def select(attention: Tensor, candidates: Tensor, count: int) -> Tensor:
    """The columns (B, count) int64 of the candidates that are looked at most, the most first.

    A sample with fewer candidates repeats them in that order: a maximum over them stays the same, and every sample has as many
    rows in a BatchNorm's statistics. So neither padding nor the other samples of a batch change what comes out.
    """
    order = attention.masked_fill(~candidates, -1.0).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(count, device=order.device) % candidates.sum(1, keepdim=True)
    return order.gather(1, places)
