"""Losses are computed in single precision at least, whatever autocast does around them.

A contrastive logit is 50 times a cosine and a log-probability reaches -100: bfloat16's three digits are not enough for either.
"""

from __future__ import annotations

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or untouched if it is float64 (gradient checks)."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def no_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which products of `tensor` keep the precision of their operands."""
    return torch.autocast(tensor.device.type, enabled=False)
