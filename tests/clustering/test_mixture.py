"""The mixture of losses: two groups are found, one group is left whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clustering.mixture import clean_probability


def two_groups(right=400, wrong=100, seed=0):
    generator = np.random.default_rng(seed)
    losses = np.concatenate([generator.normal(1.0, 0.2, right), generator.normal(3.0, 0.4, wrong)])
    is_right = np.arange(right + wrong) < right
    order = generator.permutation(len(losses))
    return losses[order], is_right[order]


@pytest.mark.parametrize(("right", "wrong"), [(400, 100), (60, 40), (100, 300)])
def test_two_groups_are_told_apart(right, wrong):
    losses, is_right = two_groups(right, wrong)
    clean = clean_probability(losses) > 0.5
    assert (clean == is_right).mean() > 0.98


def test_it_is_the_posterior_of_the_fitted_mixture():
    """Expectation maximisation written out, from another start, comes to the same posterior."""
    losses, _ = two_groups()
    x = (losses - losses.min()) / (losses.max() - losses.min())
    mean, variance, share = [0.1, 0.9], [0.05, 0.05], [0.5, 0.5]
    for _ in range(500):
        dense = [
            [
                s * math.exp(-((v - m) ** 2) / 2 / w) / math.sqrt(w)
                for m, w, s in zip(mean, variance, share, strict=True)
            ]
            for v in x
        ]
        posterior = np.array([[a / (a + b), b / (a + b)] for a, b in dense])
        count = posterior.sum(0)
        mean = list((posterior * x[:, None]).sum(0) / count)
        variance = [float((posterior[:, k] * (x - mean[k]) ** 2).sum() / count[k]) + 5e-4 for k in range(2)]
        share = list(count / len(x))
    np.testing.assert_allclose(clean_probability(losses), posterior[:, 0], atol=0.02)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scale_and_offset_do_not_matter(scale):
    losses, _ = two_groups()
    np.testing.assert_allclose(clean_probability(scale * (losses + 5)), clean_probability(losses), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [50, 1000])
def test_one_group_is_all_clean(seed, count):
    losses = np.random.default_rng(seed).normal(2.0, 0.3, count)
    assert (clean_probability(losses) == 1).all()


@pytest.mark.parametrize("losses", [[], [0.7], [2.0] * 9])
def test_equal_losses_are_all_clean(losses):
    assert clean_probability(np.array(losses)).tolist() == [1.0] * len(losses)


def test_a_few_that_stand_far_out_are_a_group():
    losses = np.concatenate([np.random.default_rng(0).normal(1.0, 0.1, 200), [40.0, 41.0, 45.0]])
    clean = clean_probability(losses)
    assert (clean[:200] > 0.99).all()
    assert (clean[200:] < 0.01).all()


def test_the_same_losses_give_the_same_bits():
    losses, _ = two_groups()
    first = clean_probability(losses)
    assert (clean_probability(losses) == first).all()


def test_a_loss_that_is_no_number_is_told():
    with pytest.raises(ValueError, match="init_lr"):
        clean_probability(np.array([0.1, np.nan, 0.3]))
