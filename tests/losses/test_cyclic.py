"""C-ITC against a plain loop written from the formula."""

from __future__ import annotations

import math

import pytest
import torch

from losses.cyclic import cyclic_loss


def cyclic_by_loop(image, text, scale):
    """TBPS-CLIP's form, with similarities scaled by s and the sum divided by s², in Python floats."""

    def unit(row):
        length = math.sqrt(sum(x * x for x in row))
        return [x / length for x in row]

    def similarity(a, b):
        return scale * sum(x * y for x, y in zip(a, b, strict=True))

    v, t = ([unit(row) for row in features.tolist()] for features in (image, text))
    size, total = len(v), 0.0
    for i in range(size):
        for j in range(size):
            total += (similarity(v[i], v[j]) - similarity(t[i], t[j])) ** 2 / size**2 / 4
            total += (similarity(v[i], t[j]) - similarity(t[i], v[j])) ** 2 / size**2 / 4
    return total / scale**2


def features(rows, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, width, generator=generator, dtype=torch.float64).unbind()


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_equals_the_formula_at_every_scale(scale):
    image, text = features(5)
    assert cyclic_loss(image, text).item() == pytest.approx(cyclic_by_loop(image, text, scale), rel=1e-12)


def test_gradient_is_that_of_the_value():
    assert torch.autograd.gradcheck(cyclic_loss, tuple(f.requires_grad_() for f in features(4, width=3)))


def test_equal_geometry_costs_nothing():
    image, text = features(5)
    assert cyclic_loss(image, 3 * image).item() == pytest.approx(0, abs=1e-15)
    assert cyclic_loss(image, text) > 0.01


def test_weights_are_those_of_the_rows():
    image, text = features(5, seed=2)
    v, t = (f / f.norm(dim=1, keepdim=True) for f in (image, text))
    weights = [0.0, 0.25, 1.0, 0.5, 0.75]
    expected = 0.0
    for i, weight in enumerate(weights):
        for j in range(5):
            within, across = float(v[i] @ v[j] - t[i] @ t[j]), float(v[i] @ t[j] - t[i] @ v[j])
            expected += weight * (within**2 + across**2) / 4 / 25
    found = cyclic_loss(image, text, torch.tensor(weights))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_half_precision_is_computed_in_float32():
    image, text = (f.bfloat16() for f in features(8, width=32, seed=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cyclic_loss(image, text)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(cyclic_loss(image.double(), text.double()).item(), rel=1e-5)


def test_features_of_different_shapes():
    with pytest.raises(ValueError, match="one shape"):
        cyclic_loss(torch.ones(3, 4), torch.ones(3, 5))
