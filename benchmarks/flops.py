"""How many floating-point operations a pass takes by its definition, and what the device could do in that time.

A product of (m, k) and (k, n) counts 2 m k n; a backward pass counts twice its forward pass; everything that is no matrix
product counts nothing. Only what has to be computed is counted: padding and recomputation count nothing either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from models.backbones.blip.retrieval import BlipRetrieval

# Dense bf16 matrix products with fp32 sums, operations per second, from NVIDIA's data sheets; a name is looked for in the device's name.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
}


def peak_of(device: str) -> float | None:
    """The device's peak, None where it is not known."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def image_tokens_of(model: BlipRetrieval) -> int:
    """Tokens of an image, the class token included."""
    height, width = model.image_size
    return 1 + (height // model.size.patch) * (width // model.size.patch)


def image_flops(model: BlipRetrieval) -> float:
    """The image encoder's forward pass on one image."""
    size, tokens = model.size, image_tokens_of(model)
    block = 12 * size.vision_width**2 * tokens + 2 * tokens**2 * size.vision_width
    return 2.0 * (size.vision_depth * block + 3 * size.patch**2 * size.vision_width * (tokens - 1))


def text_flops(model: BlipRetrieval, length: float, grounded: bool) -> float:
    """The text stack's forward pass on one text of that many tokens, without its image's keys and values."""
    size = model.size
    layer = (4 * size.text_width**2 + 2 * size.text_width * size.text_ffn) * length
    layer += 2 * length**2 * size.text_width
    if grounded:
        layer += 2 * size.text_width**2 * length + 2 * length * image_tokens_of(model) * size.text_width
    return 2.0 * size.text_layers * layer


def keys_values_flops(model: BlipRetrieval) -> float:
    """Keys and values of one image's tokens in every layer of the text stack."""
    size = model.size
    return 2.0 * size.text_layers * 2 * size.vision_width * size.text_width * image_tokens_of(model)


def training_step_flops(model: BlipRetrieval, batch: int, length: float) -> float:
    """Forward and backward of PSPD: every image, every text alone, three grounded pairs per sample."""
    sample = image_flops(model) + text_flops(model, length, False) + keys_values_flops(model)
    return 3.0 * batch * (sample + 3 * text_flops(model, length, True))


def operations_of(action: Callable[[], Any]) -> int:
    """Floating-point operations of an action's matrix products, as torch counts them while it runs, gradients left out.

    Raises:
        ValueError: it computes products by an operation that neither torch's counter nor `FORMULAS` knows.
    """
    seen = _Products()
    with torch.no_grad(), seen, FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        action()
    if unknown := seen.names - {str(operation) for operation in (*flop_registry, *FORMULAS)}:
        raise ValueError(
            f"Nobody counts {', '.join(sorted(unknown))}: add a formula to FORMULAS in benchmarks/flops.py."
        )
    return counter.get_total_flops()


class _Products(TorchDispatchMode):
    """Notes the names of operations that compute products."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, operation: Any, _types: Any, arguments: tuple = (), options: dict | None = None
    ) -> Any:
        name = str(operation.overloadpacket)
        if re.search(r"m[mv]\b|linear|attention|rnn|lstm|gru|convolution|einsum", name):
            self.names.add(name)
        return operation(*arguments, **(options or {}))


def _linear(values: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * prod(values) * weight[0]


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _self_attention(query: torch.Size, *rest: Any, **_: Any) -> int:
    """A whole layer of self-attention: projections to queries, keys, values and out, and the two products between."""
    batch, length, width = query
    return 2 * batch * length * width * (4 * width + 2 * length)


def _lstm(values: torch.Size, of_inputs: torch.Size, of_states: torch.Size, *_: Any, **__: Any) -> int:
    """One direction of one layer over (L, B, D): both weights (4 H, D) and (4 H, H) at every word."""
    return 2 * prod(values[:2]) * (prod(of_inputs) + prod(of_states))


# What torch's counter does not know: the products that CPUs compute by other means, each by its definition.
FORMULAS = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._native_multi_head_attention: _self_attention,
    torch.ops.aten.mkldnn_rnn_layer: _lstm,
}
