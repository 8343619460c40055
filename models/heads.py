"""The last layer of a feature or a decision, in single precision whatever the network below it computes in.

A bfloat16 number has three digits: a logit near 8 moves in steps of 0.03, and features that all lie within a few
hundredths of each other become equal. So bodies may be bfloat16, and what is compared, ranked or decided is not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.precision import no_autocast, widen


class Head(nn.Linear):
    """A linear layer that computes in float32 (float64 where its weights are) under autocast, too."""

    def forward(self, values: Tensor) -> Tensor:
        with no_autocast(values):
            return F.linear(widen(values), self.weight, self.bias)


def identity_classifier(width: int, count: int, device: torch.device) -> Head:
    """A fresh head that tells `count` identities by features of this width.

    Nearly equal logits at first: the encoders should not have to undo a random opinion about who is who.
    """
    head = Head(width, count, device=device)
    nn.init.normal_(head.weight, std=0.001)
    nn.init.zeros_(head.bias)
    return head
