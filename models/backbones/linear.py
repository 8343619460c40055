"""Matrix products of linear layers on a CPU, by oneDNN instead of the BLAS library.

torch's wheels hand fp32 products on x86 to MKL, which does not use AVX-512 on processors that are not Intel's: measured on
one (docs/benchmarks.md), oneDNN, which torch ships as well, needs less than half the time, forward and backward, for the
same sums in another order. Everywhere else (GPU, other types, autocast, torch.compile, small products) this is torch's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.eager import eager_on_cpu

_WORTH = 1 << 21  # multiplications; below, making ready for oneDNN (10 us) costs more than it saves


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """values (T, I) @ weight (O, I)^T + bias. Both may be transposed: any other gaps in the weight's memory send oneDNN
    to its reference loops, a thousand times slower."""
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _product(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        wanted = ctx.needs_input_grad
        return (
            _product(gradient, weight.t(), None) if wanted[0] else None,
            _product(gradient.t(), values.t(), None) if wanted[1] else None,
            gradient.sum(0) if wanted[2] else None,
        )


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` for values (..., I), weight (O, I) and bias (O,)."""
    if not _suits_onednn(values, weight):
        return F.linear(values, weight, bias)
    rows = values.reshape(-1, values.shape[-1]).contiguous()
    return _OneDnnLinear.apply(rows, weight, bias).unflatten(0, values.shape[:-1])


def _suits_onednn(values: Tensor, weight: Tensor) -> bool:
    return (
        eager_on_cpu(values)
        and values.dtype == weight.dtype == torch.float32
        and values.numel() * len(weight) >= _WORTH
        and weight.is_contiguous()
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


class Linear(nn.Linear):
    """torch's layer, with `linear` for its product."""

    def forward(self, values: Tensor) -> Tensor:
        return linear(values, self.weight, self.bias)


def speed_up(module: nn.Module) -> None:
    """Turns the plain linear layers inside a module of somebody else's into `Linear`, weights and names untouched."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear
