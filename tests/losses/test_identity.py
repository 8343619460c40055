"""TSN's identity loss against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from losses.identity import identity_loss


def cross_entropy_by_loop(logits, labels):
    costs = [
        math.log(sum(math.exp(x) for x in row)) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    return sum(costs) / len(costs)


def example():
    fused, text = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return fused, text, torch.tensor([0, 3, 3, 1, 2])


def test_four_parts_fused_one_part_text():
    fused, text, labels = example()
    expected = 0.8 * cross_entropy_by_loop(fused, labels) + 0.2 * cross_entropy_by_loop(text, labels)
    assert identity_loss(fused, text, labels).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_the_value():
    fused, text, labels = example()
    inputs = (fused.requires_grad_(), text.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, t: identity_loss(f, t, labels), inputs)


def test_one_class_costs_nothing():
    assert identity_loss(torch.ones(3, 1), torch.ones(3, 1), torch.zeros(3, dtype=torch.long)).item() == 0


def test_bfloat16_logits_are_computed_in_float32():
    fused, text, labels = example()
    loss = identity_loss(fused.bfloat16(), text.bfloat16(), labels)
    exact = identity_loss(fused.bfloat16().double(), text.bfloat16().double(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_logits_of_different_shapes():
    fused, text, labels = example()
    with pytest.raises(ValueError, match="one shape"):
        identity_loss(fused, text[:, :3], labels)


def test_weights_multiply_what_a_sample_adds():
    fused, text, labels = example()
    weights = torch.tensor([1.0, 0.0, 0.5, 0.25, 1.0], dtype=torch.float64)
    single = [
        identity_loss(fused[i : i + 1], text[i : i + 1], labels[i : i + 1]).item() * weights[i].item() / 5
        for i in range(5)
    ]
    loss = identity_loss(fused, text, labels, weights=weights)
    assert loss.item() == pytest.approx(sum(single), rel=1e-12)
