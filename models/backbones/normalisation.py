"""BatchNorm over the global batch, so that dividing a batch over processes changes nothing.

torch's SyncBatchNorm does this on GPUs alone. Here the statistics travel as everything else does, through `World.all_gather`,
on any device and with the same result as one process has on the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from losses.precision import no_autocast, widen
from models.world import World


class _OverTheGlobalBatch:
    """What the two layers share; stands before torch's class, whose parameters, buffers and names stay as they are."""

    world: World = World()

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, ...) normalised per channel: in training over the processes' B · size samples, an equal share each.

        In training every process must call it, with the same shape; and as often, as the running statistics follow
        every call.
        """
        if not self.training or self.world.size == 1:
            return super().forward(values)
        self._check_input_dim(values)
        with no_autocast(values):
            wide = widen(values)
            mean, variance = self._statistics(wide)
            self._follow(mean, variance, self.world.size * wide.numel() // wide.shape[1])
            column = (-1,) + (1,) * (wide.ndim - 2)  # a channel's number beside its values
            scale = (self.weight * (variance + self.eps).rsqrt()).view(column)
            # The mean first: it may be a thousand times the deviation, and scale · mean would take its digits.
            return torch.addcmul(self.bias.view(column), wide - mean.view(column), scale).to(values.dtype)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,) of all processes' values; differentiable.

        Joined from each share's mean and its deviation from that mean (Chan et al., 1979): a difference of mean squares
        would leave nothing of the variance where the mean is large.
        """
        others = [dimension for dimension in range(values.ndim) if dimension != 1]
        variance, mean = torch.var_mean(values, others, correction=0)
        means, variances = self.world.all_gather(torch.stack([mean, variance])[None]).unbind(1)
        mean = means.mean(0)
        return mean, (variances + (means - mean).square()).mean(0)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Running statistics as torch keeps them: the variance without bias, over `count` values a channel."""
        self.num_batches_tracked += 1
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


class BatchNorm1d(_OverTheGlobalBatch, nn.BatchNorm1d):
    """torch's layer for (B, C) or (B, C, L), with its defaults, over the global batch."""


class BatchNorm2d(_OverTheGlobalBatch, nn.BatchNorm2d):
    """torch's layer for (B, C, H, W), with its defaults, over the global batch."""


_OURS = {nn.BatchNorm1d: BatchNorm1d, nn.BatchNorm2d: BatchNorm2d}


def convert(module: nn.Module) -> None:
    """Turns torch's BatchNorm layers inside a module of somebody else's into ours, weights and names untouched.

    Raises ValueError for a layer without weights, running statistics or a fixed momentum, which no network here has.
    """
    for name, part in module.named_modules():
        if type(part) in _OURS:
            if part.momentum is None or not (part.affine and part.track_running_stats):
                raise ValueError(
                    f"the BatchNorm {name!r} lacks weights, running statistics or a momentum: "
                    "only torch's default kind is computed over the global batch"
                )
            part.__class__ = _OURS[type(part)]
