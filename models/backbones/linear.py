"""Matrix products of linear layers on a CPU: by the library that torch asks (MKL in its wheels for x86), or by oneDNN.

torch ships both, with the same sums in another order. Which is faster depends on the processor: MKL does not use AVX-512 on
those that are not Intel's, where oneDNN needs less than half the time, forward and backward; elsewhere oneDNN may be the
slower one (docs/benchmarks.md). So whoever starts a run measures and says `use` (engine/multiplication.py). Everywhere else
(GPU, other types, autocast, torch.compile, small products) this is torch's own.

oneDNN is reached by an operator of torch that is private. No public one does the same: `set_float32_matmul_precision("medium")`
hands products to it as well, and has them computed in bf16 on processors with AMX; a 1 x 1 convolution goes there or not by a
rule of thumb. A torch that lacks the operator, or has it in another form, multiplies by itself.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.eager import eager_on_cpu

LIBRARIES = ("onednn", "torch")
_WORTH = 1 << 21  # multiplications; below, making ready for oneDNN (10 us) costs more than it saves
_WIDE = 512 * 512  # weights of a layer, on average
_library: str | None = None  # of this process; None: oneDNN where it is there


@cache
def has_onednn() -> bool:
    """Whether this torch computes a product by oneDNN when it is asked the way it is asked here, and rightly."""
    if not torch.backends.mkldnn.is_available():
        return False
    draws = torch.Generator().manual_seed(0)  # of its own: a question must not move what a run draws
    values, weight, bias = (torch.randn(shape, generator=draws) for shape in ((3, 4), (5, 4), (5,)))
    try:
        found = _product(values, weight, bias)
    except (AttributeError, RuntimeError, TypeError):  # no such operator, or one with other arguments
        return False
    return isinstance(found, Tensor) and torch.allclose(found, F.linear(values, weight, bias), atol=1e-5)


def library() -> str:
    """Who computes large products in this process: "onednn" or "torch"."""
    return ("onednn" if has_onednn() else "torch") if _library is None else _library


def use(name: str) -> None:
    """From now on large products of this process are computed by "onednn" or "torch".

    Raises ValueError for another name, and for oneDNN where this torch can't be asked for it.
    """
    global _library
    if name not in LIBRARIES:
        raise ValueError(f"There is no library {name!r} for products: use {' or '.join(LIBRARIES)}.")
    if name == "onednn" and not has_onednn():
        raise ValueError(f"torch {torch.__version__} can't be asked for products by oneDNN here: use torch.")
    _library = name


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
        and library() == "onednn"
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


class Linear(nn.Linear):
    """torch's layer, with `linear` for its product."""

    def forward(self, values: Tensor) -> Tensor:
        return linear(values, self.weight, self.bias)


class Attention(nn.MultiheadAttention):
    """torch's layer, with `linear` for the products of self-attention; what else it can do, it does as there."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **options: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's."""
        only_itself = query is key is value and key_padding_mask is None and not need_weights
        batched = self.batch_first and query.ndim == 3 and not self.dropout
        added = attn_mask is None or attn_mask.is_floating_point()
        known = only_itself and batched and added and not options and self.in_proj_weight is not None
        if not (known and _suits_onednn(query, self.in_proj_weight)):
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask, **options)
        parts = linear(query, self.in_proj_weight, self.in_proj_bias).unflatten(2, (3, self.num_heads, -1))
        if attn_mask is not None and attn_mask.ndim == 3:  # a sample's heads one after another
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        mixed = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), attn_mask=attn_mask)
        return linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias), None


_OURS = {nn.Linear: Linear, nn.MultiheadAttention: Attention}


def speed_up(module: nn.Module) -> None:
    """Turns plain linear layers and attention inside a module of somebody else's into ours; weights and names stay."""
    for part in module.modules():
        part.__class__ = _OURS.get(type(part), type(part))


def is_wide(module: nn.Module) -> bool:
    """Whether products are most of what a module spends its time on: those of its `Linear` layers have BERT's size or so.

    In narrow ones what is done besides takes longer in bf16 than products gain (docs/benchmarks.md).
    """
    sizes = [part.weight.numel() for part in module.modules() if isinstance(part, Linear)]
    return bool(sizes) and sum(sizes) / len(sizes) >= _WIDE


def narrow(module: nn.Module) -> None:
    """Rounds the weights of all `Linear` layers inside a module to bf16, for one that only computes under autocast from now on.

    The same numbers come out, since autocast rounds these weights anew at every call; a query of one sentence would spend more
    time on that than on products. A weight that is also an embedding's stays: it is read as it is there.
    """
    shared = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for part in module.modules():
        if isinstance(part, Linear) and id(part.weight) not in shared:
            part.to(torch.bfloat16)
