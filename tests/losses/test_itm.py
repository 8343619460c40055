"""Hard negatives and the matching loss against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.itm import hard_negatives, itm_loss


def hardest_by_loop(similarity, labels, candidate_labels):
    result = []
    for row, label in zip(similarity.tolist(), labels.tolist(), strict=True):
        best = None
        for j, value in enumerate(row):
            if candidate_labels[j] != label and (best is None or value > row[best]):
                best = j
        result.append(best)
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10**6))
def test_hardest_of_another_label(rows, columns, kinds, seed):
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values, so that ties occur.
    similarity = torch.randint(-3, 3, (rows, columns), generator=generator).double()
    labels = torch.randint(0, kinds, (rows,), generator=generator)
    candidates = torch.randint(0, kinds, (columns,), generator=generator)
    index, found = hard_negatives(similarity, labels, candidates)
    expected = hardest_by_loop(similarity, labels, candidates)
    assert found.tolist() == [best is not None for best in expected]
    assert [i for i, f in zip(index.tolist(), found.tolist(), strict=True) if f] == [
        b for b in expected if b is not None
    ]
    assert ((index >= 0) & (index < columns)).all()


def test_no_gradient_through_mining():
    similarity = torch.randn(3, 3, requires_grad=True)
    index, _ = hard_negatives(similarity, torch.arange(3), torch.arange(3))
    assert not index.requires_grad


def test_similarities_of_the_wrong_shape():
    with pytest.raises(ValueError, match="one column per candidate"):
        hard_negatives(torch.ones(3, 2), torch.arange(3), torch.arange(3))


def itm_by_loop(logits, targets, weights, total):
    summed = 0.0
    for (no, yes), target, weight in zip(logits.tolist(), targets.tolist(), weights.tolist(), strict=True):
        chosen = yes if target else no
        summed += weight * (math.log(math.exp(no) + math.exp(yes)) - chosen)
    return summed / total


LOGITS = torch.tensor([[0.3, -1.2], [2.0, 0.5], [-0.7, 0.1], [1.5, 1.5]], dtype=torch.float64)
TARGETS = torch.tensor([1, 0, 0, 1])


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1]])
def test_mean_over_the_pairs_that_exist(weights):
    weights = torch.tensor(weights)
    expected = itm_by_loop(LOGITS, TARGETS, weights, weights.sum().item())
    assert itm_loss(LOGITS, TARGETS, weights).item() == pytest.approx(expected, rel=1e-12)


def test_unweighted_is_the_mean():
    expected = itm_by_loop(LOGITS, TARGETS, torch.ones(4), 4)
    assert itm_loss(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-12)


def test_shares_of_a_batch_average_to_the_whole():
    weights = torch.tensor([1, 0, 1, 1])
    whole = itm_loss(LOGITS, TARGETS, weights)
    total = weights.sum() / 2
    shares = [
        itm_loss(LOGITS[rows], TARGETS[rows], weights[rows], total) for rows in (slice(0, 2), slice(2, 4))
    ]
    assert torch.stack(shares).mean().item() == pytest.approx(whole.item(), rel=1e-12)


def test_pairs_that_do_not_exist_get_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    itm_loss(logits, TARGETS, torch.tensor([1, 0, 1, 1])).backward()
    assert logits.grad[1].eq(0).all()
    assert logits.grad[[0, 2, 3]].ne(0).all()


def test_gradient_is_that_of_the_value():
    weights = torch.tensor([1, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: itm_loss(x, TARGETS, weights), LOGITS.clone().requires_grad_())


def test_no_pair_at_all_costs_nothing():
    logits = LOGITS.clone().requires_grad_()
    loss = itm_loss(logits, TARGETS, torch.zeros(4))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


def test_bfloat16_logits_are_computed_in_float32():
    loss = itm_loss(LOGITS.bfloat16(), TARGETS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(itm_loss(LOGITS.bfloat16().double(), TARGETS).item(), rel=1e-6)


def test_logits_of_the_wrong_shape():
    with pytest.raises(ValueError, match="itm_loss needs logits"):
        itm_loss(LOGITS[:3], TARGETS)
