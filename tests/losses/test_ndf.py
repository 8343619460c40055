"""NDF against a plain loop written from the formula, its gradient, and its behaviour at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from losses.ndf import ndf_loss


def ndf_by_loop(image, text, labels, scale=50.0, eps=1e-8):
    """The formula of the loss, entry by entry, in Python floats."""

    def unit(row):
        length = math.sqrt(sum(x * x for x in row))
        return [x / length for x in row]

    images = [unit(row) for row in image.tolist()]
    texts = [unit(row) for row in text.tolist()]
    labels = labels.tolist()
    size = len(labels)

    def direction(rows, columns):
        fit_to_labels = labels_to_fit = cross_entropy = 0.0
        for i in range(size):
            logits = [
                scale * sum(a * b for a, b in zip(rows[i], columns[j], strict=True)) for j in range(size)
            ]
            top = max(logits)
            log_sum = top + math.log(sum(math.exp(x - top) for x in logits))
            count = sum(labels[j] == labels[i] for j in range(size))
            for j in range(size):
                log_p = logits[j] - log_sum
                q = (labels[i] == labels[j]) / count
                fit_to_labels += math.exp(log_p) * (log_p - math.log(q + eps)) / size**2
                labels_to_fit += q * (math.log(q + eps) - log_p) / size**2
                cross_entropy -= q * log_p / size
        return fit_to_labels + labels_to_fit + cross_entropy

    return (direction(images, texts) + direction(texts, images)) / 2


def features(rows, width=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, width, generator=generator, dtype=dtype).unbind()


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [7, 7, 7, 7, 7], [-1, 5, 5, -1, 900000]], ids=str
)
@pytest.mark.parametrize(("scale", "eps"), [(50.0, 1e-8), (3.0, 1e-3)])
def test_equals_the_formula(labels, scale, eps):
    image, text = features(len(labels))
    labels = torch.tensor(labels)
    loss = ndf_loss(image, text, labels, scale, eps)
    assert loss.item() == pytest.approx(ndf_by_loop(image, text, labels, scale, eps), rel=1e-12)


def test_gradient_is_that_of_the_value():
    image, text = (f.requires_grad_() for f in features(4, width=3))
    labels = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda v, t: ndf_loss(v, t, labels, scale=5.0), (image, text))


def test_single_precision_follows_double():
    image, text = features(32, width=64, seed=3)
    labels = torch.arange(32) // 3
    exact = ndf_loss(image, text, labels)
    assert ndf_loss(image.float(), text.float(), labels).item() == pytest.approx(exact.item(), rel=1e-5)


def test_autocast_does_not_lower_the_precision():
    image, text = (f.float() for f in features(16, width=64, seed=4))
    labels = torch.arange(16) // 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ndf_loss(image, text, labels)
    assert inside.dtype == torch.float32
    assert inside.item() == ndf_loss(image, text, labels).item()


def test_bfloat16_features_are_computed_in_float32():
    image, text = (f.bfloat16().requires_grad_() for f in features(8, seed=5))
    labels = torch.arange(8)
    loss = ndf_loss(image, text, labels)
    assert loss.item() == pytest.approx(ndf_loss(image.double(), text.double(), labels).item(), rel=1e-5)
    loss.backward()
    assert image.grad.isfinite().all()


def test_only_directions_and_equality_of_labels_count():
    image, text = features(6)
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    renamed = torch.tensor([9, 9, 4, -7, -7, -7])
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = ndf_loss(image, text, labels).item()
    assert ndf_loss(3 * image, 0.1 * text, renamed).item() == pytest.approx(expected)
    assert ndf_loss(image[order], text[order], labels[order]).item() == pytest.approx(expected)
    assert ndf_loss(text, image, labels).item() == pytest.approx(expected)


def test_matching_pairs_beat_mismatching_ones():
    image, _ = features(6, width=16)
    labels = torch.arange(6)
    assert ndf_loss(image, image, labels) < 0.1 < ndf_loss(image, image.roll(1, 0), labels)


def test_opposite_features_stay_finite():
    image = torch.eye(4)
    loss = ndf_loss(image.requires_grad_(), -image.detach(), torch.arange(4))
    loss.backward()
    assert loss.isfinite()
    assert image.grad.isfinite().all()


def test_one_pair_costs_nothing():
    image, text = features(1)
    assert ndf_loss(image, text, torch.tensor([3])).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("rows", "labels"), [(3, 4), (4, 3)])
def test_shapes_that_do_not_belong_together(rows, labels):
    with pytest.raises(ValueError, match="one shape"):
        ndf_loss(torch.ones(rows, 2), torch.ones(4, 2), torch.zeros(labels))


def test_weights_multiply_what_a_row_of_each_direction_adds():
    image, text = features(5)
    labels, weights = [0, 0, 1, 1, 2], [1.0, 0.5, 0.0, 0.25, 1.0]

    def unit(rows):
        return rows / rows.norm(dim=1, keepdim=True)

    scores, expected = (50 * unit(image) @ unit(text).T), 0.0
    for logits in (scores, scores.T):
        for i, row in enumerate(torch.log_softmax(logits, 1).tolist()):
            for j, log_p in enumerate(row):
                q = (labels[i] == labels[j]) / labels.count(labels[i])
                divergence = (math.exp(log_p) - q) * (log_p - math.log(q + 1e-8)) / 25
                expected += weights[i] * (divergence - q * log_p / 5) / 2
    loss = ndf_loss(image, text, torch.tensor(labels), weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    ones = ndf_loss(image.float(), text.float(), torch.tensor(labels), weights=torch.ones(5))
    assert torch.equal(ones, ndf_loss(image.float(), text.float(), torch.tensor(labels)))
