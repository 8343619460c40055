"""The compound ranking loss in Python floats, for both epoch regimes, and what must hold of any negative it draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.compound_ranking import (
    COMPANION,
    OWN_CAPTION,
    companion_margins,
    compound_ranking_loss,
    negative_draws,
    ranking_term,
)

SEEDS = torch.tensor([3, 2**40 + 1, 4, -15, 9, 2**62])


def mixed(value):
    value = ((value ^ value >> 16) * 0x7FEB352D) % 2**32
    value = ((value ^ value >> 15) * 0x846CA68B) % 2**32
    return value ^ value >> 16


def hash_by_hand(seed, level, term, direction, column):
    """Of one anchor and column, on Python's integers."""
    low, high = seed % 2**32, (seed >> 32) % 2**32
    hashed = mixed(mixed(low) ^ mixed(high ^ 0x5BD1E995))
    hashed = mixed(hashed ^ mixed((4 * level + 2 * term + direction) * 0x9E3779B1 % 2**32))
    return mixed(hashed ^ mixed(column * 0x9E3779B1 % 2**32))


def term_by_loop(similarity, labels, margins, draw):
    """draw(direction, a, n) decides among the semi-hard negatives."""
    total, size = 0.0, len(labels)
    for direction in (0, 1):
        for a in range(size):
            positive = similarity[a][a]
            candidates = []
            for n in range(size):
                value = similarity[a][n] if direction == 0 else similarity[n][a]
                if labels[n] != labels[a] and positive - margins[a] < value < positive:
                    candidates.append((draw(direction, a, n), value))
            if candidates:
                total += max(0.0, margins[a] - positive + max(candidates)[1])
    return total


def compound_by_loop(own, companion, found, labels, seeds, epoch, level, alpha=0.2, beta=0.1):
    size = len(labels)
    margins = []
    for a in range(size):
        ratio = min(abs(companion[a][a]) / abs(own[a][a]), 1.0)
        margin = alpha / 2 if epoch < 5 else (ratio + 1) * alpha / 2
        if not found[a] or (epoch >= 5 and ratio < 0.6):
            margin = 0.0
        margins.append(margin)

    def draws(term):
        return lambda direction, a, n: hash_by_hand(seeds[a], level, term, direction, n)

    return term_by_loop(own, labels, [alpha] * size, draws(0)) + beta * term_by_loop(
        companion, labels, margins, draws(1)
    )


def similarities(seed=0, size=6, dtype=torch.float64):
    """Positives around 0.6 and everything else around it too, so that many negatives are semi-hard."""
    generator = torch.Generator().manual_seed(seed)
    return (0.6 + 0.15 * torch.randn(2, size, size, generator=generator, dtype=dtype)).unbind()


LABELS = [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 1, 0], [7, 7, 7, 7, 7, -1], [3, 3, 3, 3, 3, 3]]


def test_draws_are_the_hash():
    for level in range(3):
        for term in (OWN_CAPTION, COMPANION):
            expected = [
                [[hash_by_hand(seed, level, term, way, n) for n in range(6)] for seed in SEEDS.tolist()]
                for way in (0, 1)
            ]
            assert negative_draws(SEEDS, level, term).tolist() == expected


@pytest.mark.parametrize("labels", LABELS, ids=str)
@pytest.mark.parametrize("margins", [0.2, [0.2, 0.1, 0.0, 0.17, 0.3, 0.2]], ids=str)
def test_term_equals_the_formula(labels, margins):
    for seed in range(10):
        similarity, other = similarities(seed)
        draws = torch.stack([other, -other])
        given = margins if isinstance(margins, float) else torch.tensor(margins, dtype=torch.float64)
        found = ranking_term(similarity, torch.tensor(labels), given, draws)
        each = [margins] * 6 if isinstance(margins, float) else margins
        expected = term_by_loop(
            similarity.tolist(), labels, each, lambda way, a, n, draws=draws: draws[way, a, n].item()
        )
        assert math.isclose(found.item(), expected, rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize("epoch", [0, 4, 5, 59])
@pytest.mark.parametrize("labels", LABELS, ids=str)
def test_loss_equals_the_formula(labels, epoch):
    found = torch.tensor([True, True, False, True, True, False])
    different = set()
    for seed in range(10):
        own, companion = similarities(seed)
        loss = compound_ranking_loss(
            own, companion, found, torch.tensor(labels), SEEDS, epoch, level=seed % 3
        )
        expected = compound_by_loop(
            own.tolist(), companion.tolist(), found.tolist(), labels, SEEDS.tolist(), epoch, seed % 3
        )
        assert math.isclose(loss.item(), expected, rel_tol=1e-12, abs_tol=1e-15)
        different.add(expected)
    assert len(different) == (1 if len(set(labels)) == 1 else 10)


@pytest.mark.parametrize(("companion", "counts"), [(0.6 - 1e-9, False), (0.6 + 1e-9, True)])
def test_a_companion_that_says_too_little_is_left_out(companion, counts):
    """l just below and just above 0.6, of a pair whose only semi-hard negatives are the companions'."""
    own = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    other = torch.tensor([[companion, 0.5], [0.5, -companion]], dtype=torch.float64)
    both, labels, seeds = torch.tensor([True, True]), torch.tensor([0, 1]), SEEDS[:2]
    # Image 0 and text 0 have a negative within the margin; the positives of pair 1 are below all negatives.
    expected = 0.1 * 2 * (0.16 - companion + 0.5) if counts else 0.0
    loss = compound_ranking_loss(own, other, both, labels, seeds, epoch=5, level=0)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    early = compound_ranking_loss(own, other, both, labels, seeds, epoch=4, level=0)
    assert early.item() == pytest.approx(0.1 * 2 * max(0.0, 0.1 - companion + 0.5), abs=1e-9)
    margins = companion_margins(own, other, both, epoch=5)
    assert margins.tolist() == pytest.approx([0.16 if counts else 0.0] * 2, abs=1e-9)


def test_margins_lie_between_half_of_alpha_and_alpha():
    for seed in range(50):
        own, companion = similarities(seed, dtype=torch.float32)
        found = torch.arange(6) != seed % 6
        for epoch in (0, 4, 5, 30):
            margins = companion_margins(own - 0.5, companion - 0.5, found, epoch, alpha=0.2)
            kept = margins > 0
            assert not kept[~found].any()
            assert ((margins[kept] >= 0.1) & (margins[kept] <= 0.2)).all()
            if epoch < 5:
                assert kept.equal(found)
    same = companion_margins(own, own, torch.ones(6, dtype=torch.bool), 5)
    assert same.equal(torch.full((6,), 0.2))


def test_a_similarity_of_zero_gives_a_number():
    zero, ones = torch.zeros(3, 3), torch.ones(3, dtype=torch.bool)
    assert companion_margins(zero, zero, ones, 5).tolist() == [0, 0, 0]
    assert companion_margins(zero, zero + 0.1, ones, 5).tolist() == pytest.approx([0.2] * 3)


def test_no_gradient_through_margins():
    own, companion = (part.requires_grad_() for part in similarities())
    assert not companion_margins(own, companion, torch.ones(6, dtype=torch.bool), 5).requires_grad


@pytest.mark.parametrize(
    ("positive", "negative"),
    [(0.9, 0.1), (0.3, 0.6), (0.5, 0.5)],
    ids=["all easy", "all too hard", "all equal to the positive"],
)
def test_without_a_semi_hard_negative_the_loss_is_zero(positive, negative):
    similarity = torch.full((4, 4), negative).fill_diagonal_(positive).requires_grad_()
    loss = ranking_term(similarity, torch.arange(4), 0.2, negative_draws(SEEDS[:4], 0, OWN_CAPTION))
    loss.backward()
    assert loss.item() == 0
    assert similarity.grad.eq(0).all()


@pytest.mark.parametrize("size", [1, 6])
def test_one_label_has_no_negatives(size):
    own, companion = (part[:size, :size].clone().requires_grad_() for part in similarities())
    found, labels = torch.ones(size, dtype=torch.bool), torch.full((size,), 8)
    for epoch in (0, 5):
        loss = compound_ranking_loss(own, companion, found, labels, SEEDS[:size], epoch, 0)
        assert loss.item() == 0
        assert all(gradient.eq(0).all() for gradient in torch.autograd.grad(loss, (own, companion)))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 10**6))
def test_a_negative_has_another_label_and_lies_within_the_margin(size, kinds, seed):
    generator = torch.Generator().manual_seed(seed)
    # Steps of a sixteenth, so that equal similarities and exact margins occur.
    similarity = (torch.randint(0, 12, (size, size), generator=generator) / 16).requires_grad_()
    labels = torch.randint(0, kinds, (size,), generator=generator)
    seeds = torch.randint(0, 2**62, (size,), generator=generator)
    draws = negative_draws(seeds, 1, COMPANION)
    for a in range(size):
        alone = torch.where(torch.arange(size) == a, 3 / 16, 0.0)
        (gradient,) = torch.autograd.grad(ranking_term(similarity, labels, alone, draws), similarity)
        for direction, costs, values in (
            (0, gradient[a], similarity[a]),
            (1, gradient[:, a], similarity[:, a]),
        ):
            chosen = [n for n in costs.nonzero().flatten().tolist() if n != a]
            allowed = [
                n
                for n in range(size)
                if labels[n] != labels[a] and values[a] - 3 / 16 < values[n] < values[a]
            ]
            assert len(chosen) == min(1, len(allowed))
            assert set(chosen) <= set(allowed)
            assert not chosen or draws[direction, a, chosen[0]] == max(
                draws[direction, a, n] for n in allowed
            )


def chosen_columns(seeds, level, term, direction):
    """For every seed the negative of anchor 0 among nine that are all semi-hard."""
    picks = []
    for seed in seeds:
        similarity = torch.full((10, 10), 0.5, requires_grad=True)
        values = similarity + 0.1 * torch.eye(10)
        margins = torch.where(torch.arange(10) == 0, 0.2, 0.0)
        draws = negative_draws(torch.full((10,), seed), level, term)
        ranking_term(values, torch.arange(10), margins, draws).backward()
        line = similarity.grad[0] if direction == 0 else similarity.grad[:, 0]
        picks.append(int(line[1:].argmax()) + 1)
    return picks


def test_every_semi_hard_negative_is_drawn_as_often():
    number = 900
    seeds = torch.randint(0, 2**62, (number,), generator=torch.Generator().manual_seed(0)).tolist()
    drawn = {
        key: chosen_columns(seeds, *key)
        for key in ((0, OWN_CAPTION, 0), (0, OWN_CAPTION, 1), (0, COMPANION, 0))
    }
    for picks in drawn.values():
        counts = torch.bincount(torch.tensor(picks), minlength=10)[1:].double()
        assert ((counts - number / 9) ** 2 / (number / 9)).sum() < 26.1  # chi-square, 8 degrees, p = 0.001
    first, *others = drawn.values()
    for picks in others:  # another term, another direction: agreement is chance
        agree = sum(a == b for a, b in zip(first, picks, strict=True)) / number
        assert abs(agree - 1 / 9) < 4 * math.sqrt(8 / 81 / number)


def test_the_draw_of_an_anchor_is_its_own():
    """It follows from its seed alone, whatever stands in the other rows."""
    together = negative_draws(SEEDS, 2, COMPANION)
    for a, seed in enumerate(SEEDS):
        assert negative_draws(seed.expand(6), 2, COMPANION)[:, 0].equal(together[:, a])


def test_gradient_is_that_of_the_value():
    found, labels = torch.tensor([True] * 5 + [False]), torch.tensor(LABELS[1])
    own, companion = (part.requires_grad_() for part in similarities(3))

    def loss(own, companion):
        return compound_ranking_loss(own, companion, found, labels, SEEDS, 0, 1)

    assert loss(own, companion) > 0
    assert torch.autograd.gradcheck(loss, (own, companion))


def test_half_precision_similarities_are_computed_in_float32():
    own, companion = (part.bfloat16() for part in similarities(3))
    given = (torch.ones(6, dtype=torch.bool), torch.tensor(LABELS[1]), SEEDS, 5, 0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = compound_ranking_loss(own, companion, *given)
    assert loss.dtype == torch.float32
    exact = compound_ranking_loss(own.double(), companion.double(), *given)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_shapes_that_do_not_belong_together():
    own, companion = similarities()
    labels, draws = torch.arange(6), negative_draws(SEEDS, 0, 0)
    with pytest.raises(ValueError, match=r"similarities \(6, 6\)"):
        ranking_term(own[:, :5], labels, 0.2, draws)
    with pytest.raises(ValueError, match=r"draws \(2, 6, 6\)"):
        ranking_term(own, labels, 0.2, draws[0])
    with pytest.raises(ValueError, match="companion_found"):
        companion_margins(own, companion, torch.ones(5, dtype=torch.bool), 0)
