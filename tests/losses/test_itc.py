"""N-ITC, R-ITC and soft targets against plain loops, and the numbers that SynTBPR's smoothing amounts to."""

from __future__ import annotations

import math

import pytest
import torch

from losses.itc import label_targets, n_itc_loss, n_itc_losses, pair_divergences, r_itc_loss, soft_targets

LABELS = ([0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [7, 7, 7, 7, 7], [-1, 5, 5, -1, 900000])


def example(size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(3, size, size, generator=generator, dtype=torch.float64)
    return 4 * draw[0], draw[1].softmax(1), draw[2].softmax(1)


def log_probabilities(row):
    top = max(row)
    log_sum = top + math.log(sum(math.exp(x - top) for x in row))
    return [x - log_sum for x in row]


def by_loop(similarity, targets, targets_t2i, term):
    """Per pair: half the sum over both directions of Σ_j term(log P_ij, q_ij), in Python floats."""
    scores, forth, back = similarity.tolist(), targets.tolist(), targets_t2i.tolist()
    columns = [list(column) for column in zip(*scores, strict=True)]
    losses = []
    for i in range(len(scores)):
        both = [
            sum(term(p, q) for p, q in zip(log_probabilities(rows[i]), goal[i], strict=True))
            for rows, goal in ((scores, forth), (columns, back))
        ]
        losses.append(sum(both) / 2)
    return losses


def n_term(log_p, q):
    return -q * log_p


def r_term(eps):
    return lambda log_p, q: math.exp(log_p) * (log_p - math.log(q + eps))


def test_n_itc_equals_the_formula():
    similarity, forth, back = example()
    expected = by_loop(similarity, forth, back, n_term)
    assert n_itc_losses(similarity, forth, back).tolist() == pytest.approx(expected, rel=1e-12)
    assert n_itc_loss(similarity, forth, back).item() == pytest.approx(sum(expected) / 5, rel=1e-12)


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_r_itc_equals_the_formula(eps):
    similarity, forth, back = example()
    expected = sum(by_loop(similarity, forth, back, r_term(eps))) / 5
    assert r_itc_loss(similarity, forth, eps, back).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("labels", LABELS, ids=str)
def test_targets_of_labels_serve_both_directions(labels):
    similarity, _, _ = example(seed=1)
    targets = label_targets(torch.tensor(labels))
    plain = [[(a == b) / labels.count(a) for b in labels] for a in labels]
    assert targets.tolist() == pytest.approx([pytest.approx(row) for row in plain])
    assert torch.equal(targets, targets.T)
    exact = torch.tensor(plain, dtype=torch.float64)
    expected = sum(by_loop(similarity, exact, exact, n_term)) / 5
    assert n_itc_loss(similarity, exact).item() == pytest.approx(expected, rel=1e-12)
    assert n_itc_loss(similarity, targets).item() == pytest.approx(expected, rel=1e-6)
    expected = sum(by_loop(similarity, exact, exact, r_term(1e-8))) / 5
    assert r_itc_loss(similarity, exact).item() == pytest.approx(expected, rel=1e-12)


def test_r_itc_is_the_divergence_from_the_fit_to_the_target():
    similarity, forth, back = example(seed=2)
    own, other = (torch.distributions.Categorical(logits=rows) for rows in (similarity, similarity.T))
    kl = torch.distributions.kl_divergence
    expected = kl(own, torch.distributions.Categorical(forth)).mean() / 2
    expected += kl(other, torch.distributions.Categorical(back)).mean() / 2
    assert r_itc_loss(similarity, forth, 0.0, back).item() == pytest.approx(expected.item(), rel=1e-12)
    assert r_itc_loss(forth.log(), forth, 0.0, forth.log().T.softmax(1)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("alpha", [0.0, 0.005, 0.5, 1.0])
def test_soft_targets_equal_the_formula(kind, alpha):
    similarity, _, _ = example(seed=3)
    labels = [0, 0, 1, 2, 1]
    for i, (row, found) in enumerate(
        zip(
            similarity.tolist(),
            soft_targets(similarity, torch.tensor(labels), alpha, kind).tolist(),
            strict=True,
        )
    ):
        own = (
            [1 / (1 + math.exp(-x)) for x in row]
            if kind == "sigmoid"
            else list(map(math.exp, log_probabilities(row)))
        )
        hard = [(label == labels[i]) / labels.count(labels[i]) for label in labels]
        mixed = [alpha * g + (1 - alpha) * q for g, q in zip(own, hard, strict=True)]
        assert found == pytest.approx([x / sum(mixed) for x in mixed], rel=1e-6)
        assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize(("batch", "kept"), [(320, 0.385), (80, 0.72), (48, 0.81)])
def test_the_sigmoid_target_is_smoothing_that_grows_with_the_batch(batch, kept):
    """At s = 100 and alpha = 0.005: every cosine above 0.1 counts as a match, whoever it is with."""
    cosine = torch.empty(batch, batch).uniform_(0.1, 0.6, generator=torch.Generator().manual_seed(0))
    targets = soft_targets(100 * cosine, torch.arange(batch), 0.005)
    assert targets.diag().tolist() == pytest.approx([1 / (0.995 + 0.005 * batch)] * batch, rel=1e-4)
    assert targets.diag().mean().item() == pytest.approx(kept, abs=0.004)


@pytest.mark.parametrize("alpha", [0.005, 0.5])
def test_the_softmax_as_target_of_n_itc_only_shortens_the_gradient(alpha):
    """P - (alpha P + (1 - alpha) q) = (1 - alpha) (P - q), in both directions."""
    similarity = example(seed=7)[0].requires_grad_()
    labels = torch.tensor([0, 0, 1, 2, 1])
    forth, back = (soft_targets(rows, labels, alpha, "softmax") for rows in (similarity, similarity.T))
    (soft,) = torch.autograd.grad(n_itc_loss(similarity, forth, back), similarity)
    (hard,) = torch.autograd.grad(n_itc_loss(similarity, label_targets(labels)), similarity)
    torch.testing.assert_close(soft, (1 - alpha) * hard, rtol=1e-6, atol=1e-9)


def test_alpha_may_be_a_tensor():
    similarity, labels = example(seed=8)[0], torch.arange(5)
    assert torch.equal(
        soft_targets(similarity, labels, torch.tensor(0.25)), soft_targets(similarity, labels, 0.25)
    )


def test_no_gradient_flows_through_soft_targets():
    similarity = example()[0].requires_grad_()
    assert not soft_targets(similarity, torch.arange(5), 0.5, "softmax").requires_grad


@pytest.mark.parametrize("loss", [n_itc_loss, r_itc_loss])
def test_weights_are_those_of_the_pairs(loss):
    similarity, forth, back = example(seed=4)
    options = {"targets_t2i": back}
    assert loss(similarity, forth, **options, weights=torch.ones(5)).item() == pytest.approx(
        loss(similarity, forth, **options).item(), rel=1e-12
    )
    single = [loss(similarity, forth, **options, weights=row) for row in torch.eye(5, dtype=torch.float64)]
    weights = torch.tensor([0, 0.25, 1, 0.5, 0], dtype=torch.float64)
    expected = sum(w * one for w, one in zip(weights, single, strict=True))
    assert loss(similarity, forth, **options, weights=weights).item() == pytest.approx(expected.item())
    terms = by_loop(similarity, forth, back, n_term if loss is n_itc_loss else r_term(1e-8))
    assert [5 * one.item() for one in single] == pytest.approx(terms, rel=1e-10)


@pytest.mark.parametrize("loss", [n_itc_loss, r_itc_loss])
def test_gradient_is_that_of_the_value(loss):
    similarity, forth, back = example()
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, forth, targets_t2i=back), similarity)


@pytest.mark.parametrize("loss", [n_itc_loss, r_itc_loss])
def test_half_precision_is_computed_in_float32(loss):
    similarity, forth, back = example(seed=5)
    half = similarity.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(half, forth.float(), targets_t2i=back.float())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(half.double(), forth, targets_t2i=back).item(), rel=1e-5)


def test_divergences_of_features_are_those_of_their_scaled_cosines():
    generator = torch.Generator().manual_seed(6)
    image, text = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64).unbind()
    labels = torch.tensor([0, 0, 1, 2, 2])
    cosine = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=2)
    q = (labels[:, None] == labels).double()
    q = q / q.sum(1, keepdim=True)
    expected = by_loop(30 * cosine, q, q, lambda log_p, q: q * (math.log(q) - log_p) if q else 0.0)
    found = pair_divergences(image, text, labels, 30.0)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    single = image.float(), text.float(), labels, 30.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pair_divergences(*single)
    assert torch.equal(inside, pair_divergences(*single))


def test_a_perfect_fit_costs_nothing_however_many_share_a_label():
    labels = torch.tensor([0, 0, 0, 1, 2])
    features = torch.eye(3)[labels]
    assert pair_divergences(features, features, labels, 50.0).tolist() == pytest.approx([0] * 5, abs=1e-5)
    assert (pair_divergences(features, features.roll(1, 0), labels, 50.0)[[0, 3, 4]] > 10).all()


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match="one shape"):
        n_itc_loss(torch.ones(3, 3), torch.ones(3, 4))
    with pytest.raises(ValueError, match="one shape"):
        r_itc_loss(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match="labels"):
        soft_targets(torch.ones(3, 3), torch.arange(4), 0.1)
    with pytest.raises(ValueError, match="sigmoid or softmax"):
        soft_targets(torch.ones(3, 3), torch.arange(3), 0.1, "relu")
