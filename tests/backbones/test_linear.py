"""The linear layer on a CPU against torch's own: values, gradients, and when it steps aside."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import linear as torch_linear

from models.backbones import linear as module
from models.backbones.linear import (
    Attention,
    Linear,
    has_onednn,
    is_wide,
    library,
    linear,
    narrow,
    speed_up,
    use,
)


@pytest.fixture(autouse=True)
def onednn(monkeypatch):
    """Whatever this machine's runs have chosen."""
    monkeypatch.setattr(module, "_library", "onednn")


@pytest.fixture
def product_calls(monkeypatch):
    """Counts the products that oneDNN computes."""
    has_onednn()  # which asks for one the first time
    calls = []
    real = module._product

    def counted(values, weight, bias):
        calls.append((tuple(values.shape), tuple(weight.shape)))
        return real(values, weight, bias)

    monkeypatch.setattr(module, "_product", counted)
    return calls


@pytest.mark.parametrize("shape", [(400, 96), (7, 61, 96), (3, 5, 31, 96)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_double_precision(shape, bias, product_calls):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator, requires_grad=True)
    weight = torch.randn(130, 96, generator=generator, requires_grad=True)
    added = torch.randn(130, generator=generator, requires_grad=True) if bias else None
    given = [tensor for tensor in (values, weight, added) if tensor is not None]
    result = linear(values, weight, added)
    direction = torch.randn(result.shape, generator=generator)
    gradients = torch.autograd.grad(result, given, direction)
    assert len(product_calls) == 3
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    expected = torch_linear(*exact)
    for found, wanted in zip(
        (result, *gradients),
        (expected, *torch.autograd.grad(expected, exact, direction.double())),
        strict=True,
    ):
        assert found.shape == wanted.shape
        assert torch.allclose(found.double(), wanted, atol=1e-5 * wanted.abs().max().item(), rtol=0)


def test_views_and_the_gradient_of_one_input_alone(product_calls):
    """Memory with gaps reaches oneDNN closed up: it would fall back to loops a thousand times slower."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(96, 400, generator=generator).t()
    weight = torch.randn(64, 96, generator=generator, requires_grad=True)
    result = linear(values, weight)
    assert torch.allclose(result, values @ weight.t(), atol=1e-4)
    gapped = torch.randn(400, 128, generator=generator)[:, ::2]
    (gradient,) = torch.autograd.grad(result, weight, gapped)
    assert torch.allclose(gradient, gapped.t() @ values, atol=1e-4)
    assert len(product_calls) == 2
    wide = torch.randn(64, 200, generator=generator)[:, 50:146]
    assert linear(values, wide).equal(torch_linear(values, wide))
    assert len(product_calls) == 2


def test_the_same_input_gives_the_same_bits():
    """Wherever it lies in memory: a resumed run must repeat an uninterrupted one."""
    generator = torch.Generator().manual_seed(2)
    values, weight = torch.randn(311, 128, generator=generator), torch.randn(512, 128, generator=generator)
    expected = linear(values, weight)
    for offset in range(1, 9):
        moved = torch.empty(values.numel() + offset)[offset:].view_as(values).copy_(values)
        assert linear(moved, weight).equal(expected)


@pytest.mark.filterwarnings("ignore:TF32")  # from switching oneDNN off
@pytest.mark.parametrize("case", ["small", "double", "autocast", "meta", "switched off"])
def test_it_steps_aside(case, product_calls):
    layer = Linear(96, 130)
    values = torch.randn(4 if case == "small" else 400, 96)
    if case == "double":
        layer, values = layer.double(), values.double()
    if case == "meta":
        layer, values = layer.to("meta"), values.to("meta")
    switched_off = torch.backends.mkldnn.flags(enabled=False, allow_tf32=False)
    autocast = torch.autocast("cpu", torch.bfloat16)
    with {"switched off": switched_off, "autocast": autocast}.get(case, nullcontext()):
        result = layer(values)
        assert result.shape == (len(values), 130)
        assert case == "meta" or result.equal(torch_linear(values, layer.weight, layer.bias))
    assert product_calls == []


def test_layers_of_a_foreign_module_are_turned(product_calls):
    torch.manual_seed(0)
    foreign = nn.Sequential(nn.Linear(96, 130), nn.GELU(), nn.Sequential(nn.Linear(130, 96, bias=False)))
    values = torch.randn(400, 96)
    expected, names = foreign(values), list(foreign.state_dict())
    speed_up(foreign)
    assert torch.allclose(foreign(values), expected, atol=1e-6)
    assert list(foreign.state_dict()) == names
    assert len(product_calls) == 2


def test_the_other_library_is_torchs_own(product_calls):
    use("torch")
    layer, values = Linear(96, 130), torch.randn(400, 96)
    assert layer(values).equal(torch_linear(values, layer.weight, layer.bias))
    assert product_calls == []
    use("onednn")
    layer(values)
    assert len(product_calls) == 1
    with pytest.raises(ValueError, match="no library 'mkl' for products: use onednn or torch"):
        use("mkl")


def no_such_operator(*_):
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def other_arguments(*_):
    return torch.ops.mkldnn._linear_pointwise(*_)  # one of six


def other_results(values, weight, bias):
    return torch_linear(values, weight)


@pytest.mark.parametrize("operator", [no_such_operator, other_arguments, other_results])
def test_a_torch_without_that_operator_multiplies_by_itself(monkeypatch, operator):
    monkeypatch.setattr(module, "_product", operator)
    monkeypatch.setattr(module, "_library", None)
    has_onednn.cache_clear()
    try:
        assert not has_onednn()
        assert library() == "torch"
        layer, values = Linear(96, 130), torch.randn(400, 96, requires_grad=True)
        result = layer(values)
        assert result.equal(torch_linear(values, layer.weight, layer.bias))
        result.sum().backward()
        with pytest.raises(ValueError, match=r"can't be asked for products by oneDNN here: use torch"):
            use("onednn")
    finally:
        has_onednn.cache_clear()


def test_weights_rounded_once_are_those_that_autocast_rounds():
    torch.manual_seed(0)
    words = nn.Embedding(130, 96)
    network = nn.Sequential(
        Linear(96, 200), nn.GELU(), nn.LayerNorm(200), Linear(200, 96), Linear(96, 130), nn.Linear(130, 8)
    )
    network[4].weight = words.weight  # as a word head's
    values = torch.randn(50, 96)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = network(values)
        narrow(nn.ModuleList([words, network]))
        found = network(values)
    assert found.equal(expected)
    kinds = [part.weight.dtype for part in network if hasattr(part, "weight")]
    half, full = torch.bfloat16, torch.float32
    assert kinds == [half, full, half, full, full]
    assert words.weight.dtype is full


def test_a_network_is_wide_by_the_products_it_is_made_of():
    assert not is_wide(nn.Sequential(nn.Linear(2000, 2000)))
    assert not is_wide(nn.Sequential(Linear(192, 192), Linear(192, 768)))
    assert is_wide(nn.Sequential(Linear(768, 768), Linear(768, 3072)))


@pytest.mark.parametrize("mask", ["none", "causal", "of each sample"])
def test_self_attention_equals_torchs(mask, product_calls):
    """Values and all gradients; 7 samples of 61 tokens, 4 heads."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(96, 4, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = nn.Sequential(copy.deepcopy(theirs))
    speed_up(ours)
    assert type(ours[0]) is Attention
    values = torch.randn(7, 61, 96)
    added = {
        "none": None,
        "causal": torch.full((61, 61), -torch.inf).triu(1),
        "of each sample": torch.randn(7, 1, 61).expand(-1, 61, -1).repeat_interleave(4, 0),
    }[mask]
    direction = torch.randn(7, 61, 96)
    found = []
    for layer in (ours[0], theirs):
        given = values.clone().requires_grad_()
        result, weights = layer(given, given, given, need_weights=False, attn_mask=added)
        assert weights is None
        result.backward(direction)
        found.append([result, given.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(product_calls) == 6
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("case", ["cross", "weights", "padding", "bool mask"])
def test_other_attention_is_torchs(case, product_calls):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(96, 4, batch_first=True)
    ours = nn.Sequential(copy.deepcopy(theirs))
    speed_up(ours)
    values = torch.randn(7, 61, 96)
    keys = torch.randn(7, 20, 96) if case == "cross" else values
    options = {
        "cross": {"need_weights": False},
        "weights": {},
        "padding": {"need_weights": False, "key_padding_mask": torch.arange(61).expand(7, 61) > 40},
        "bool mask": {"need_weights": False, "attn_mask": torch.ones(61, 61).triu(1).bool()},
    }[case]
    for one, other in zip(
        ours[0](values, keys, keys, **options), theirs(values, keys, keys, **options), strict=True
    ):
        assert one is other or one.equal(other)
    assert product_calls == []
