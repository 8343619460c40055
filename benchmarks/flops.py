"""How many floating-point operations a pass takes by its definition, and what the device could do in that time.

A product of (m, k) and (k, n) counts 2 m k n; a backward pass counts twice its forward pass; everything that is no matrix
product counts nothing. Only what has to be computed is counted: padding and recomputation count nothing either.
"""

from __future__ import annotations

import torch

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
