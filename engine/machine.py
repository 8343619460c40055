"""Where a run computes and in which precision: decided here, once, and said to every model that is put on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from data.errors import UserError
from engine import distributed
from engine.config import RuntimeConfig
from models.world import World
from retrieval.division import ALONE, Processes

Placed = TypeVar("Placed", bound=nn.Module)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """What a run computes on. `precision` is that of the networks' bodies; heads, scores and losses are fp32 in any case."""

    device: torch.device
    world: World
    precision: torch.dtype
    compile: bool = False
    processes: Processes = ALONE  # that share encoding, matching and evaluation

    @property
    def text_multiple(self) -> int:
        """What the widths of training texts are rounded up to: every width is a graph to compile and, on a GPU, memory in
        pieces of its own and products of sizes that suit it badly. A CPU leaves padding out."""
        return 16 if self.compile or self.device.type == "cuda" else 1

    def place(self, model: Placed) -> Placed:
        """The model on the device; it carries `precision` and `world` from here on, for whoever computes with it."""
        model.world = self.world
        model.precision = self.precision
        return model.to(self.device)

    def autocast(self) -> torch.autocast:
        """Mixed precision where it was asked for, nothing otherwise."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)


def make_machine(runtime: RuntimeConfig) -> Machine:
    """The device, the processes and the precision that the settings ask for; joins the process group, if there is one.

    Raises:
        UserError: a device that is not there, or that this process can't have for itself.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = choose_device(runtime.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    world = distributed.start(device)
    precision = choose_precision(runtime.precision, device)
    return Machine(device, world, precision, runtime.compile, distributed.processes())


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one. A GPU without a number is this process's own.

    Raises:
        UserError: a device that is not there, or a numbered GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"The device {name!r} is none: use auto, cpu or cuda (runtime.device).") from None
    return _own_gpu(device) if device.type == "cuda" else device


def _own_gpu(device: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        raise UserError(
            "The device cuda (runtime.device) asks for a GPU, but torch sees none: use auto or cpu."
        )
    processes, cards = distributed.process_count(), torch.cuda.device_count()
    if device.index is None:
        own = distributed.local_rank()
        if own >= cards:
            raise UserError(
                f"Process {own} of this machine has no GPU of its own, there are {cards}: start one process per GPU (NPROC)."
            )
        return torch.device("cuda", own)
    if processes > 1:
        raise UserError(
            f"The device {device} (runtime.device) is one GPU, and this run has {processes} processes with one each: "
            "use cuda, or a single process (NPROC=1)."
        )
    if device.index >= cards:
        raise UserError(
            f"The device {device} (runtime.device) is not there: the last of {cards} GPUs is cuda:{cards - 1}."
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision called `name`; "auto" is bf16 on GPUs that compute in it, fp32 on older ones and on the CPU.

    Cards before Ampere only imitate bf16, more slowly than they compute in fp32.
    """
    if name != "auto":
        return PRECISIONS[name]
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if has_bf16 else torch.float32
