"""The training loop that every stage shares: steps, schedule, logging, saving, stopping, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.errors import UserError
from engine import checkpoints, distributed
from engine.averaging import WeightAverage
from engine.distributed import Interrupted
from engine.feeds import PairBatches
from engine.log import LOGGER
from engine.machine import Machine
from engine.run import Run
from engine.seeds import seed_of
from models.batch import Batch


class DivergedError(UserError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate: after a linear warm-up, over steps or epochs, it changes with the epochs or, ``per_step``, within them.

    It falls by a cosine from ``init_lr`` to ``min_lr``, or, where there are ``lr_steps``, to ``lr_step_factor`` of what it
    was at the start of each of these epochs (counted from 0). A warm-up over epochs starts at ``lr_warmup_start`` of
    ``init_lr``, and the cosine at its end.
    """

    init_lr: float
    max_epoch: int
    min_lr: float = 0.0
    lr_warmup_steps: int = 0
    lr_steps: Sequence[int] = ()
    lr_step_factor: float = 0.1
    lr_warmup_epochs: float = 0.0
    lr_warmup_start: float = 0.0
    per_step: bool = False

    def rate(self, epoch: int, total_step: int, steps: int = 1) -> float:
        """The learning rate of one step.

        Args:
            total_step: counts from the start of this training.
            steps: in an epoch, which a rate that changes ``per_step`` goes by.
        """
        at = total_step / steps if self.per_step else epoch
        if at < self.lr_warmup_epochs:
            risen = at / self.lr_warmup_epochs
            rate = self.init_lr * (self.lr_warmup_start + (1 - self.lr_warmup_start) * risen)
        elif self.lr_steps:
            rate = self.init_lr * self.lr_step_factor ** sum(at >= step for step in self.lr_steps)
        else:
            gone = (at - self.lr_warmup_epochs) / (self.max_epoch - self.lr_warmup_epochs)
            cosine = 0.5 * (1 + math.cos(math.pi * gone))
            rate = self.min_lr + (self.init_lr - self.min_lr) * cosine
        return rate * min(1.0, (total_step + 1) / max(1, self.lr_warmup_steps))


@dataclass(frozen=True)
class Place:
    """Where in a run this training stands: a name such as ``round-0``, its round, and the steps before it."""

    phase: str
    round: int = 0
    steps_before: int = 0


GRAPHS = 64  # of one function: five text widths, and a classifier of another size in each round


def _compiled(task: nn.Module) -> Callable[[Batch], dict[str, Tensor]]:
    """The task as one graph for every text width of the feed, or a few where it breaks: at an LSTM, and at what several
    processes exchange.

    Dropout draws otherwise than without compiling, and sums are added in another order.
    """
    torch._dynamo.config.recompile_limit = GRAPHS
    compiled = torch.compile(task, dynamic=False)

    def forward(batch: Batch) -> dict[str, Tensor]:
        try:
            return compiled(batch)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = " ".join(str(error.inner_exception).split())[:200]
            raise UserError(
                f"torch.compile failed ({reason}): it needs a C++ compiler, and Triton on a GPU. "
                "Install them, or use --set runtime.compile=false."
            ) from None

    return forward


class Trainer:
    """Train ``task`` (batch -> named losses) over ``batches``; resumes from ``state_path`` by itself.

    Args:
        groups: of parameters, each with its "lr" at the start and its "weight_decay".
        betas, eps: AdamW's.
        average: the decay of an average of the weights over the steps; 0: none.
        on_epoch: called on every process after each epoch with (epoch, mean losses, seconds), before saving, while the
            task has its averaged weights, if there are any.
        before_epoch: called on every process before each epoch with (epoch, step), with step 0 unless it is resumed inside
            of the epoch; called again for an epoch after a kill, it has to do the same again.
    """

    def __init__(
        self,
        task: nn.Module,
        groups: list[dict[str, Any]],
        batches: PairBatches,
        schedule: Schedule,
        place: Place,
        run: Run,
        machine: Machine,
        state_path: Path,
        *,
        seed: int,
        on_epoch: Callable[[int, dict[str, float], float], None],
        before_epoch: Callable[[int, int], None] | None = None,
        log_every: int = 10,
        save_minutes: float = 10.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        average: float = 0.0,
    ) -> None:
        self.task, self.batches, self.schedule, self.place = task, batches, schedule, place
        self.run, self.machine, self.state_path, self.seed = run, machine, state_path, seed
        self.on_epoch, self.before_epoch = on_epoch, before_epoch
        self.log_every, self.save_seconds = log_every, save_minutes * 60
        for group in groups:  # a group's rate stays in proportion to the schedule's
            group["scale"] = group["lr"] / schedule.init_lr
        self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True)
        self.average = WeightAverage(task, average) if average else None
        # Sums over the epoch of this process's share, on the device: reading them would stall it.
        self.losses: dict[str, Tensor] = {}
        self.counted = 0
        self.has_state = False  # whether the state file is of this training
        self.saved_at = time.monotonic()
        self.forward = self._distributed()

    def _distributed(self) -> Callable[[Batch], dict[str, Tensor]]:
        task: nn.Module = self.task
        if self.machine.world.size > 1:
            ids = [self.machine.device.index] if self.machine.device.type == "cuda" else None
            task = nn.parallel.DistributedDataParallel(
                task,
                device_ids=ids,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                # A warm-up leaves the heads alone.
                find_unused_parameters=getattr(self.task, "warming", False),
            )
        return _compiled(task) if self.machine.compile else task

    def fit(self) -> None:
        """Train until ``schedule.max_epoch``.

        Raises:
            Interrupted: a stop signal came; the state is saved.
            DivergedError: the loss became NaN or infinite; the last good state stays.
        """
        epoch, step = self._resume()
        while epoch < self.schedule.max_epoch:
            started = time.monotonic()
            if self.before_epoch is not None:
                self.before_epoch(epoch, step)
            self._train_epoch(epoch, step)
            means = self._means()
            if step < self.batches.steps:
                self._save(epoch, self.batches.steps)  # an evaluation that is stopped must not cost the epoch
            self.losses, self.counted = {}, 0
            with self.average.in_place() if self.average else nullcontext():
                self.on_epoch(epoch, means, time.monotonic() - started)
            epoch, step = epoch + 1, 0
            self._save(epoch, 0)

    def _train_epoch(self, epoch: int, start_step: int) -> None:
        self.task.train()
        bar = tqdm(
            self.batches.epoch(epoch, start_step),
            desc=f"{self.place.phase} epoch {epoch + 1}/{self.schedule.max_epoch}",
            total=self.batches.steps,
            initial=start_step,
            leave=False,
            disable=None if distributed.is_main() else True,
        )
        for step, batch in enumerate(bar, start_step):
            self._step(batch, epoch, step)
            if (step + 1) % self.log_every == 0:
                self._log(epoch, step, bar)
            self._maybe_stop(epoch, step + 1)

    def _step(self, batch: Any, epoch: int, step: int) -> None:
        """One optimiser step; nothing in it waits for the device."""
        steps = self.batches.steps
        rate = self.schedule.rate(epoch, epoch * steps + step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        rank = self.machine.world.rank
        torch.manual_seed(seed_of(self.seed, self.place.phase, "dropout", epoch, step, rank))
        with self.machine.autocast():
            losses = self.forward(batch)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0) + loss.detach().float()
        self.counted += 1

    def _log(self, epoch: int, step: int, bar: tqdm) -> None:
        means = {name: round(mean, 5) for name, mean in self._means().items()}
        bar.set_postfix(means)
        self.run.record(
            "step",
            phase=self.place.phase,
            round=self.place.round,
            epoch=epoch,
            step=step,
            total_step=self.place.steps_before + epoch * self.batches.steps + step,
            losses=means,
            lr=self.optimizer.param_groups[0]["lr"],
        )

    def _sums(self) -> dict[str, float]:
        """The epoch's sums of the GLOBAL batch's losses; every process must ask at the same step.

        Raises:
            DivergedError: one is no number, on all processes at once: nobody is left waiting for those that ended.
        """
        names = list(self.losses)
        own = torch.stack([self.losses[name] for name in names])
        totals = distributed.sum_over_ranks(own) / self.machine.world.size
        sums = dict(zip(names, totals.tolist(), strict=True))
        for name, total in sums.items():
            if not math.isfinite(total):
                raise self._diverged(f"The loss '{name}'")
        return sums

    def _diverged(self, what: str) -> DivergedError:
        kept = f"the last good state is {self.state_path}" if self.has_state else "nothing was saved yet"
        return DivergedError(
            f"{what} is no longer a finite number ({self.place.phase}); {kept}. "
            "Lower the learning rate (init_lr) or use --set runtime.precision=fp32."
        )

    def _means(self) -> dict[str, float]:
        """The mean losses of the epoch so far, of the global batch; raises as ``_sums`` does."""
        return {name: total / self.counted for name, total in self._sums().items()}

    def _maybe_stop(self, epoch: int, step: int) -> None:
        if self.machine.world.size > 1 and step % self.log_every:
            return  # agreeing on a stop costs a round of messages
        wanted = distributed.any_rank(bool(self.run.stop), self.machine.device)
        due = distributed.any_rank(time.monotonic() - self.saved_at > self.save_seconds, self.machine.device)
        if wanted or due:
            self._save(epoch, step)
        if wanted:
            raise Interrupted(f"Stopped in {self.place.phase}, epoch {epoch + 1}, step {step}.")

    def _save(self, epoch: int, step: int) -> None:
        """Write the state, unless a loss or a weight is no number; every process must call it at the same step."""
        self.saved_at = time.monotonic()
        sums = self._sums() if self.losses else {}
        # The last step's loss may be a number and what it did to the weights none.
        for name, weight in self.task.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise self._diverged(f"The weight '{name}'")
        self.has_state = True
        if not distributed.is_main():
            return
        checkpoints.save(
            self.state_path,
            {
                "phase": self.place.phase,
                "epoch": epoch,
                "step": step,
                "model": self.task.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state() if self.average else {},
                "losses": sums,
                "counted": self.counted,
                "metrics_position": self.run.metrics_position(),
            },
        )

    def _resume(self) -> tuple[int, int]:
        state = checkpoints.load(self.state_path) if self.state_path.exists() else None
        if state is None or state["phase"] != self.place.phase:
            self.run.forget_metrics(phase=self.place.phase)  # of an attempt that was killed before it saved
            return 0, 0
        self.has_state = True
        self.task.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state.get("average"))
        self.counted = state["counted"]
        self.losses = {
            name: torch.tensor(total, device=self.machine.device) for name, total in state["losses"].items()
        }
        self.run.rewind_metrics(state["metrics_position"])
        if (state["epoch"], state["step"]) != (0, 0):
            LOGGER.info(
                "Going on with %s at epoch %d, step %d.", self.place.phase, state["epoch"] + 1, state["step"]
            )
        return state["epoch"], state["step"]
