"""Masked attribute words: the loss against a plain loop, the draw by its properties."""

from __future__ import annotations

import math

import pytest
import torch

from losses.masked_language import hidden_units, masked_language_loss


def loss_by_loop(logits, targets, hidden):
    costs = []
    for b in range(logits.shape[0]):
        for position in range(logits.shape[1]):
            if hidden[b, position]:
                row = logits[b, position].tolist()
                costs.append(math.log(sum(math.exp(x) for x in row)) - row[targets[b, position]])
    return sum(costs) / len(costs)


def example():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 9, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 9, (3, 6), generator=generator)
    hidden = torch.rand(3, 6, generator=generator) < 0.4
    hidden[1] = False
    return logits, targets, hidden


def test_mean_over_hidden_positions():
    logits, targets, hidden = example()
    expected = loss_by_loop(logits, targets, hidden)
    assert masked_language_loss(logits, targets, hidden).item() == pytest.approx(expected, rel=1e-12)


def test_weights_multiply_what_a_caption_adds():
    logits, targets, hidden = example()
    weights, expected = [0.25, 1.0, 0.5], 0.0
    for b in (0, 2):  # nothing is hidden in the other one
        alone = loss_by_loop(logits[b : b + 1], targets[b : b + 1], hidden[b : b + 1])
        expected += weights[b] * alone * hidden[b].sum().item() / hidden.sum().item()
    loss = masked_language_loss(logits, targets, hidden, weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_shares_of_a_batch_average_to_the_whole():
    logits, targets, hidden = example()
    total = hidden.sum().double() / 3
    shares = [
        masked_language_loss(logits[b : b + 1], targets[b : b + 1], hidden[b : b + 1], total)
        for b in range(3)
    ]
    whole = masked_language_loss(logits, targets, hidden)
    assert torch.stack(shares).mean().item() == pytest.approx(whole.item(), rel=1e-12)


def test_gradient_is_that_of_the_value():
    logits, targets, hidden = example()
    assert torch.autograd.gradcheck(
        lambda x: masked_language_loss(x, targets, hidden), logits.requires_grad_()
    )


def test_nothing_hidden_costs_nothing():
    logits, targets, hidden = example()
    loss = masked_language_loss(logits.requires_grad_(), targets, torch.zeros_like(hidden))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


def test_bfloat16_logits_are_computed_in_float32():
    logits, targets, hidden = example()
    loss = masked_language_loss(logits.bfloat16(), targets, hidden)
    exact = masked_language_loss(logits.bfloat16().double(), targets, hidden)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_shapes_that_do_not_belong_together():
    logits, targets, hidden = example()
    with pytest.raises(ValueError, match="masked_language_loss needs"):
        masked_language_loss(logits, targets[:, :3], hidden)


UNITS = torch.tensor([[0, 1, 1, 0, 2, 3, 0], [0, 0, 1, 2, 2, 2, 0]])


@pytest.mark.parametrize("seed", range(20))
def test_units_are_hidden_whole_and_nothing_else(seed):
    hidden = hidden_units(UNITS, torch.tensor([seed, -seed]), 0.5)
    assert not hidden[UNITS == 0].any()
    for row, marks in zip(UNITS, hidden, strict=True):
        for unit in range(1, 4):
            assert len(set(marks[row == unit].tolist())) <= 1


@pytest.mark.parametrize("probability", [0.4, 0.8])
def test_units_are_hidden_as_often_as_asked(probability):
    units = torch.arange(1, 41).expand(5000, 40)
    hidden = hidden_units(units, torch.arange(5000) * 7 - 100, probability).double()
    deviation = math.sqrt(probability * (1 - probability) / hidden.numel())
    assert hidden.mean().item() == pytest.approx(probability, abs=4 * deviation)
    # No unit and no neighbour of a unit is favoured.
    assert (hidden.mean(0) - probability).abs().max() < 5 * deviation * math.sqrt(40)
    neighbours = torch.corrcoef(hidden[:, :2].T)[0, 1].abs()
    assert neighbours < 4 / math.sqrt(5000)


def test_certain_and_impossible():
    seeds = torch.tensor([1, 2])
    assert hidden_units(UNITS, seeds, 1.0).equal(UNITS > 0)
    assert not hidden_units(UNITS, seeds, 0.0).any()


def test_a_caption_is_masked_alike_in_any_batch():
    units = torch.arange(1, 13).expand(6, 12)
    seeds = torch.tensor([5, 2**40 + 5, -3, 0, 2**62, 17])
    together = hidden_units(units, seeds, 0.5)
    alone = torch.cat([hidden_units(units[:1], seed[None], 0.5) for seed in seeds])
    assert together.equal(alone)
    assert len({tuple(row) for row in together.tolist()}) > 4
