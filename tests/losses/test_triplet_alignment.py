"""TAL against a plain loop written from the formula, its gradient, and its behaviour at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from losses.triplet_alignment import triplet_alignment_loss


def tal_by_loop(image, text, labels, tau=0.015, margin=0.1):
    """The formula of the loss, sample by sample, in Python floats."""

    def cosine(a, b):
        length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / length

    def direction(rows, columns, i):
        scores = [cosine(rows[i], column) for column in columns]
        positives = [s for s, label in zip(scores, labels, strict=True) if label == labels[i]]
        negatives = [s for s, label in zip(scores, labels, strict=True) if label != labels[i]]
        if not negatives:
            return 0.0
        powers = [math.exp((s - max(positives)) / tau) for s in positives]
        positive = sum(power / sum(powers) * s for power, s in zip(powers, positives, strict=True))
        top = max(negatives)
        log_sum = top / tau + math.log(sum(math.exp((s - top) / tau) for s in negatives))
        return max(0.0, margin - positive + tau * log_sum)

    images, texts, labels = image.tolist(), text.tolist(), labels.tolist()
    return [direction(images, texts, i) + direction(texts, images, i) for i in range(len(labels))]


def features(rows, width=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, width, generator=generator, dtype=dtype).unbind()


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [7, 7, 7, 7, 7], [-1, 5, 5, -1, 900000]], ids=str
)
@pytest.mark.parametrize(("tau", "margin"), [(0.015, 0.1), (0.5, 0.0), (2.0, 1.5)])
def test_equals_the_formula(labels, tau, margin):
    image, text = features(len(labels))
    labels = torch.tensor(labels)
    losses = triplet_alignment_loss(image, text, labels, tau, margin)
    assert losses.tolist() == pytest.approx(tal_by_loop(image, text, labels, tau, margin), rel=1e-10)


def test_gradient_is_that_of_the_value_with_the_weights_of_the_positives_held():
    """With one positive each, α is 1 whatever the features are, so differences of the value are the gradient."""
    image, text = (f.requires_grad_() for f in features(4, width=3))
    labels = torch.arange(4)
    assert torch.autograd.gradcheck(
        lambda v, t: triplet_alignment_loss(v, t, labels, tau=0.5, margin=1.0), (image, text)
    )


def test_no_gradient_flows_through_the_weights_of_the_positives():
    image, text = features(5)
    image, text = (f / f.norm(dim=1, keepdim=True) for f in (image, text))
    labels, tau = torch.tensor([0, 0, 1, 1, 2]), 0.3
    image.requires_grad_()
    triplet_alignment_loss(image, text, labels, tau, margin=3.0).sum().backward()
    free = image.detach().clone().requires_grad_()
    scores = (free / free.norm(dim=1, keepdim=True)) @ text.T
    same = labels[:, None] == labels[None, :]
    total = 0
    for one in (scores, scores.T):
        fixed = torch.where(same, (one.detach() / tau).exp(), 0)
        fixed = fixed / fixed.sum(1, keepdim=True)
        negative = tau * torch.where(same, 0, (one / tau).exp()).sum(1).log()
        total = total + (3.0 - (fixed * one).sum(1) + negative).clamp(min=0).sum()
    total.backward()
    torch.testing.assert_close(image.grad, free.grad, rtol=1e-10, atol=1e-12)


def test_a_small_temperature_leaves_the_hardest_negative():
    image, text = features(6, width=16)
    image, text = (f / f.norm(dim=1, keepdim=True) for f in (image, text))
    scores = image @ text.T
    hardest = scores.masked_fill(torch.eye(6, dtype=torch.bool), -2)
    forth = (0.5 - scores.diag() + hardest.amax(1)).clamp(min=0)
    back = (0.5 - scores.diag() + hardest.amax(0)).clamp(min=0)
    losses = triplet_alignment_loss(image, text, torch.arange(6), tau=1e-4, margin=0.5)
    torch.testing.assert_close(losses, forth + back, rtol=0, atol=1e-3)


def test_autocast_and_half_precision():
    image, text = (f.bfloat16().requires_grad_() for f in features(16, width=64, seed=4))
    labels = torch.arange(16) // 2
    outside = triplet_alignment_loss(image, text, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = triplet_alignment_loss(image, text, labels)
    assert outside.dtype == torch.float32
    assert torch.equal(inside, outside)
    exact = triplet_alignment_loss(image.double(), text.double(), labels)
    torch.testing.assert_close(outside.double(), exact, rtol=1e-4, atol=1e-5)
    outside.sum().backward()
    assert image.grad.isfinite().all()


def test_without_any_negative_nothing_is_lost_or_learnt():
    image, text = (f.requires_grad_() for f in features(3))
    losses = triplet_alignment_loss(image, text, torch.tensor([4, 4, 4]))
    assert losses.tolist() == [0, 0, 0]
    losses.sum().backward()
    assert not image.grad.any()
    assert not text.grad.any()


def test_matching_pairs_beat_mismatching_ones():
    image, _ = features(6, width=16)
    labels = torch.arange(6)
    assert triplet_alignment_loss(image, image, labels).sum() == 0
    assert (triplet_alignment_loss(image, image.roll(1, 0), labels) > 0.5).all()


@pytest.mark.parametrize(("rows", "labels"), [(3, 4), (4, 3)])
def test_shapes_that_do_not_belong_together(rows, labels):
    with pytest.raises(ValueError, match="one shape"):
        triplet_alignment_loss(torch.ones(rows, 2), torch.ones(4, 2), torch.zeros(labels))
