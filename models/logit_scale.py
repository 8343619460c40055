"""The learned scale of cosines in CLIP's contrast."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

START = 1 / 0.07  # where CLIP's training begins


class LogitScale(nn.Module):
    """s, by which cosines are multiplied before a softmax (Radford et al., ICML 2021, section 2.5); its logarithm is learnt.

    Args:
        start: s at first, whatever a released file says of its own.
        limit: s grows to this and no further.
    """

    def __init__(self, start: float = START, limit: float = 100.0) -> None:
        super().__init__()
        self.limit = math.log(limit)
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """s, a tensor ()."""
        # The weight itself, as the released codes do: beyond the limit of a clamped value no gradient would lead back.
        with torch.no_grad():
            self.log.clamp_(max=self.limit)
        return self.log.exp()
