"""Features of a person's parts, from head to foot, and linear maps that each part has for itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from losses.precision import no_autocast, widen

SLOPE = 0.25  # of every LeakyReLU in SSAN


class PartLinear(nn.Module):
    """One linear map for each of K parts: weight (K, outputs, inputs), bias (K, outputs) or None; computed at once.

    In float32 whatever autocast does: what leaves it is compared, or says who somebody is.
    """

    def __init__(self, parts: int, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(parts, outputs)) if bias else None
        for parameter in self.parameters():  # as torch starts nn.Linear
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        """(B, K, inputs) to (B, K, outputs)."""
        with no_autocast(values):
            values = widen(values).transpose(0, 1)
            mapped = torch.bmm(values, self.weight.transpose(1, 2)).transpose(0, 1)
            return mapped if self.bias is None else mapped + self.bias


@dataclass(frozen=True)
class Parts:
    """What SSAN reads from images or captions, at its three levels, un-normalised.

    Attributes:
        global_: (B, F) of the whole.
        local: (B, K, F) of each part.
        relation: (B, K, R) of each part among the others.
    """

    global_: Tensor
    local: Tensor
    relation: Tensor

    @property
    def levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, F), (B, K · F) and (B, K · R), each of norm 1: their products are a level's cosines."""
        with no_autocast(self.global_):
            flat = (widen(level).flatten(1) for level in (self.global_, self.local, self.relation))
            return tuple(normalize(level, dim=1) for level in flat)

    @property
    def by_part(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, F), (B, K, F) and (B, K, R): the levels with the whole as one part."""
        return self.global_[:, None], self.local, self.relation

    @property
    def features(self) -> Tensor:
        """(B, F + K · F + K · R), the levels side by side: a cosine of two is the mean of the three levels' cosines."""
        return torch.cat(self.levels, dim=1)
