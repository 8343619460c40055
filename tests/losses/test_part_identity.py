"""SSAN's identity loss against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from losses.part_identity import part_identity_loss


def loss_by_loop(image_logits, text_logits, labels):
    def cross_entropy(rows):
        costs = [
            math.log(sum(math.exp(x) for x in row)) - row[label]
            for row, label in zip(rows, labels, strict=True)
        ]
        return sum(costs) / len(costs)

    parts = len(image_logits[0])
    return (
        sum(
            cross_entropy([sample[k] for sample in logits])
            for k in range(parts)
            for logits in (image_logits, text_logits)
        )
        / parts
    )


def example(parts, dtype=torch.float64):
    generator = torch.Generator().manual_seed(parts)
    logits = torch.randn(2, 5, parts, 7, generator=generator, dtype=dtype)
    return *logits.unbind(), torch.tensor([0, 6, 6, 3, 0])


@pytest.mark.parametrize("parts", [1, 6])
def test_equals_the_formula(parts):
    image, text, labels = example(parts)
    expected = loss_by_loop(image.tolist(), text.tolist(), labels.tolist())
    assert part_identity_loss(image, text, labels).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_the_value():
    image, text, labels = example(3)
    assert torch.autograd.gradcheck(
        lambda a, b: part_identity_loss(a, b, labels), (image.requires_grad_(), text.requires_grad_())
    )


def test_shares_of_a_batch_average_to_the_whole():
    image, text, labels = (part[:4] for part in example(6))
    shares = [part_identity_loss(image[i : i + 2], text[i : i + 2], labels[i : i + 2]) for i in (0, 2)]
    whole = part_identity_loss(image, text, labels)
    assert torch.stack(shares).mean().item() == pytest.approx(whole.item(), rel=1e-12)


def test_bfloat16_logits_are_computed_in_float32():
    image, text, labels = example(6, torch.bfloat16)
    loss = part_identity_loss(image, text, labels)
    assert loss.dtype == torch.float32
    exact = part_identity_loss(image.double(), text.double(), labels)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_shapes_that_do_not_belong_together():
    image, text, labels = example(6)
    for wrong in ((image, text[:, :5], labels), (image, text, labels[:4]), (image[0], text[0], labels)):
        with pytest.raises(ValueError, match="part_identity_loss needs"):
            part_identity_loss(*wrong)
