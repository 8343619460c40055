"""An average of the weights over the steps of a training, which is what is evaluated, kept and labelled with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from data.errors import UserError

# An average over fewer steps than it reaches back for is nearer to the present (Tarvainen and Valpola, 2017, section 3).
_FIRST, _LATER = 1, 10


class WeightAverage:
    """Exponential moving average of a module's parameters: a <- d a + (1 - d) w after every step (Mean Teacher, 2017).

    d is at most ``decay``, and after n steps at most (1 + n) / (10 + n): the start is forgotten soon.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.parameters = [weight for weight in module.parameters() if weight.requires_grad]
        self.average = [weight.detach().clone() for weight in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (_FIRST + self.steps) / (_LATER + self.steps))
        get_ema_multi_avg_fn(decay)(self.average, [weight.detach() for weight in self.parameters], self.steps)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the average as its weights, and its own again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, average in zip(self.parameters, self.average, strict=True):
            own = weight.detach().clone()
            weight.copy_(average)
            average.copy_(own)

    def state(self) -> dict[str, Any]:
        """What ``load`` goes on from."""
        return {"steps": self.steps, "average": self.average}

    def load(self, state: dict[str, Any] | None) -> None:
        """Go on from a saved state.

        Raises:
            UserError: the state is of a training without an average.
        """
        if not state:
            raise UserError(
                "The training in progress began without train.average: go on without it, or start over with --force."
            )
        self.steps = state["steps"]
        saved: list[Tensor] = state["average"]
        for average, values in zip(self.average, saved, strict=True):
            average.copy_(values)
