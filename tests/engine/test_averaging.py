"""The average of the weights: the formula, step by step, and that a module gets its own weights back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.averaging import WeightAverage

DECAY = 0.7


def test_the_average_is_that_of_a_plain_loop():
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    averaged = WeightAverage(module, DECAY)
    expected = module.weight.detach().clone()
    for step in range(1, 12):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3))
        averaged.update()
        decay = min(DECAY, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    own = module.weight.detach().clone()
    with averaged.in_place():
        torch.testing.assert_close(module.weight.detach(), expected)
    assert torch.equal(module.weight.detach(), own)


def test_weights_come_back_after_an_error():
    module = nn.Linear(3, 2)
    averaged = WeightAverage(module, DECAY)
    with torch.no_grad():
        module.weight.add_(1)
    own = module.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), averaged.in_place():
        raise KeyboardInterrupt
    assert torch.equal(module.weight.detach(), own)
