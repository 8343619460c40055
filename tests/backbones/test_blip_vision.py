"""BLIP's image encoder against timm's vision transformer: the same start, the same tokens, the same steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from models.backbones.blip.sizes import SIZES, Size
from models.backbones.blip.vision import BlipVision

PLAIN = replace(SIZES["tiny"], vision_width=32)
DROPPING = replace(PLAIN, drop_path=0.4)
IMAGE = (32, 16)


def timms(size: Size) -> VisionTransformer:
    torch.manual_seed(3)
    return VisionTransformer(
        img_size=IMAGE,
        patch_size=size.patch,
        embed_dim=size.vision_width,
        depth=size.vision_depth,
        num_heads=size.vision_heads,
        num_classes=0,
        global_pool="",
        drop_path_rate=size.drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def ours(size: Size) -> BlipVision:
    torch.manual_seed(3)
    return BlipVision(size, IMAGE)


@pytest.mark.parametrize("size", [PLAIN, DROPPING], ids=["plain", "drop path"])
def test_it_starts_computes_and_learns_as_timms(size):
    """To the last bit: what was measured with timm's is reproduced with ours."""
    own, other = ours(size), timms(size)
    assert list(own.state_dict()) == list(other.state_dict())  # in this order an optimiser's state is kept
    assert all(tensor.equal(other.state_dict()[name]) for name, tensor in own.state_dict().items())
    assert next_number_after(timms, size) == next_number_after(ours, size)

    images = torch.randn(4, 3, *IMAGE)
    losses = []
    for model in (own.train(), other.train()):
        torch.manual_seed(5)
        loss = model(images).square().mean()
        loss.backward()
        losses.append(loss)
    assert losses[0] == losses[1]
    gradients = dict(other.named_parameters())
    assert all(weight.grad.equal(gradients[name].grad) for name, weight in own.named_parameters())
    assert own.eval()(images).equal(other.eval()(images))


def next_number_after(make, size: Size) -> torch.Tensor:
    """What the generator draws once a model is made."""
    make(size)
    return torch.rand(1)
