"""SimCLR's loss against a plain loop written from the formula."""

from __future__ import annotations

import math

import pytest
import torch

from losses.simclr import simclr_loss


def simclr_by_loop(first, second, temperature):
    """Equation 1 for each of the 2B views, in Python floats."""

    def cosine(a, b):
        length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / length

    views, size, total = [*first.tolist(), *second.tolist()], len(first), 0.0
    for i, view in enumerate(views):
        powers = {j: math.exp(cosine(view, views[j]) / temperature) for j in range(2 * size) if j != i}
        total -= math.log(powers[(i + size) % (2 * size)] / sum(powers.values()))
    return total / (2 * size)


def views(rows, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, width, generator=generator, dtype=torch.float64).unbind()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("rows", [2, 5])
def test_equals_the_formula(rows, temperature):
    first, second = views(rows)
    expected = simclr_by_loop(first, second, temperature)
    assert simclr_loss(first, second, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_the_value():
    inputs = tuple(view.requires_grad_() for view in views(3, width=3))
    assert torch.autograd.gradcheck(lambda a, b: simclr_loss(a, b, 0.7), inputs)


def test_one_image_has_nothing_to_be_mistaken_for():
    assert simclr_loss(*views(1)).item() == pytest.approx(0, abs=1e-12)


def test_equal_views_beat_exchanged_ones():
    first, _ = views(6, width=32)
    assert simclr_loss(first, first) < 0.1 < simclr_loss(first, first.roll(1, 0))


def test_half_precision_is_computed_in_float32():
    first, second = (view.bfloat16().requires_grad_() for view in views(8, width=32, seed=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = simclr_loss(first, second)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(simclr_loss(first.double(), second.double()).item(), rel=1e-5)
    loss.backward()
    assert first.grad.isfinite().all()


def test_views_of_different_shapes():
    with pytest.raises(ValueError, match="one shape"):
        simclr_loss(torch.ones(3, 4), torch.ones(2, 4))
