"""SDM against a plain loop written from the formula, its gradient, and its behaviour at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from losses.sdm import sdm_loss

LABELS = [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [7, 7, 7, 7, 7], [-1, 5, 5, -1, 900000]]


def sdm_by_loop(image, text, labels, scale, eps, weights=None):
    """The formula of the loss, entry by entry, in Python floats."""

    def unit(row):
        length = math.sqrt(sum(x * x for x in row))
        return [x / length for x in row]

    images, texts = [unit(row) for row in image.tolist()], [unit(row) for row in text.tolist()]
    total = 0.0
    for rows, columns in ((images, texts), (texts, images)):
        for i, row in enumerate(rows):
            logits = [scale * sum(a * b for a, b in zip(row, column, strict=True)) for column in columns]
            log_sum = max(logits) + math.log(sum(math.exp(x - max(logits)) for x in logits))
            count = labels.count(labels[i])
            for j, logit in enumerate(logits):
                q = (labels[i] == labels[j]) / count
                cost = math.exp(logit - log_sum) * (logit - log_sum - math.log(q + eps))
                total += cost * (weights[i] if weights else 1) / len(rows)
    return total


def features(rows, width=6, dtype=torch.float64):
    return torch.randn(2, rows, width, generator=torch.Generator().manual_seed(0), dtype=dtype).unbind()


@pytest.mark.parametrize("labels", LABELS, ids=str)
@pytest.mark.parametrize(("scale", "eps"), [(50.0, 1e-8), (3.0, 1e-3)])
def test_equals_the_formula(labels, scale, eps):
    image, text = features(len(labels))
    loss = sdm_loss(image, text, torch.tensor(labels), scale, eps)
    assert loss.item() == pytest.approx(sdm_by_loop(image, text, labels, scale, eps), rel=1e-12)
    assert sdm_loss(text, image, torch.tensor(labels), scale, eps).item() == pytest.approx(
        loss.item(), rel=1e-12
    )


def test_the_gradient_is_that_of_the_value():
    image, text = features(4)
    labels = torch.tensor([0, 1, 1, 2])
    inputs = image.requires_grad_(), text.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, t: sdm_loss(v, t, labels, 5.0), inputs)


def test_perfect_pairs_cost_nothing_and_one_pair_neither():
    labels = torch.arange(5)
    assert sdm_loss(torch.eye(5), torch.eye(5), labels).item() == pytest.approx(0.0, abs=1e-6)
    assert sdm_loss(*features(1), torch.tensor([3])).item() == pytest.approx(0.0, abs=1e-6)


def test_autocast_and_half_inputs_change_nothing():
    image, text = features(8, dtype=torch.float32)
    labels = torch.arange(8)
    exact = sdm_loss(image, text, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert sdm_loss(image, text, labels).equal(exact)
    half = sdm_loss(image.bfloat16(), text.bfloat16(), labels)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(
        sdm_loss(image.bfloat16().float(), text.bfloat16().float(), labels).item()
    )


def test_shapes_that_do_not_belong_together():
    image, text = features(4)
    for arguments in ((image, text[:3], torch.arange(4)), (image, text, torch.arange(3))):
        with pytest.raises(ValueError, match="sdm_loss needs"):
            sdm_loss(*arguments)


def test_weights_multiply_what_a_row_of_each_direction_adds():
    image, text = features(5)
    labels, weights = [0, 0, 1, 1, 2], [1.0, 0.5, 0.0, 0.25, 1.0]
    expected = sdm_by_loop(image, text, labels, 50.0, 1e-8, weights)
    found = sdm_loss(image, text, torch.tensor(labels), weights=torch.tensor(weights))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    ones = sdm_loss(image, text, torch.tensor(labels), weights=torch.ones(5))
    assert ones.item() == pytest.approx(sdm_loss(image, text, torch.tensor(labels)).item(), rel=1e-12)
