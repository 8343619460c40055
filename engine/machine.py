"""Where a run computes and in which precision: decided here, once, and said to every model that is put on the device."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from data.errors import UserError
from data.images import decoders
from engine import distributed, multiplication, processor
from engine.config import RuntimeConfig
from engine.multiplication import Multiplication
from models.backbones import linear
from models.world import World
from retrieval.division import ALONE, Processes

Placed = TypeVar("Placed", bound=nn.Module)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Whether "auto" trains and evaluates in bf16 on a CPU, too, where that is faster. It captions and searches in it in any case.
# Metrics stay within a point (docs/benchmarks.md), but what a run reports should not depend on its processor's units.
AUTO_TRAINS_IN_BF16 = False
# Libraries that results.json names, with those that decode.
MULTIPLYING = ("torch", "torchvision", "timm", "numpy", "numba")
# How many kernels are kept, one per shape of a product, by oneDNN and by what torch has between itself and oneDNN: unpadded
# texts bring new shapes with every step, and gigabytes of kernels that nobody asks for again (docs/benchmarks.md).
KERNELS = 16
KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


@dataclass(frozen=True)
class Machine:
    """What a run computes on. `precision` is that of the networks' bodies; heads, scores and losses are fp32 in any case.

    `multiplication` is how a CPU multiplies (None on a GPU), `automatic` whether nobody asked for a precision by name, `rounded`
    whether models that are placed keep their weights in bf16.
    """

    device: torch.device
    world: World
    precision: torch.dtype
    compile: bool = False
    processes: Processes = ALONE  # that share encoding, matching and evaluation
    multiplication: Multiplication | None = None
    automatic: bool = False
    rounded: bool = False

    @property
    def text_multiple(self) -> int:
        """What the widths of training texts are rounded up to: every width is a graph to compile and, on a GPU, memory in
        pieces of its own and products of sizes that suit it badly. A CPU leaves padding out."""
        return 16 if self.compile or self.device.type == "cuda" else 1

    def place(self, model: Placed) -> Placed:
        """The model on the device; it carries `precision` and `world` from here on, for whoever computes with it."""
        model.world = self.world
        model.precision = self.precision
        if self.rounded:
            linear.narrow(model)
        return model.to(self.device)

    def for_use(self, model: nn.Module) -> Machine:
        """This machine for a model that is neither trained nor measured: captioning and the search.

        A CPU computes in bf16 then, where that is faster and nobody asked for another precision.
        """
        faster = self.automatic and self.multiplication is not None and self.multiplication.bf16
        bf16 = self.precision is torch.bfloat16 or (faster and linear.is_wide(model))
        precision = torch.bfloat16 if bf16 else self.precision
        return replace(self, precision=precision, rounded=bf16 and self.device.type == "cpu")

    def keep(self, directory: Path, runtime: RuntimeConfig, anew: bool) -> Machine:
        """This machine, multiplying as the run in `directory` began to, unless it is to begin anew; every process calls it."""
        if self.multiplication is None:
            return self
        kept = multiplication.keep(self.multiplication, runtime.linear, directory, anew, self.processes)
        return replace(self, multiplication=kept)

    def describe(self) -> dict[str, Any]:
        """What a result depends on besides code, settings and data: for results.json."""
        on_gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "processor": processor.name(),
            "features": list(processor.features()),
            "precision": next(name for name, kind in PRECISIONS.items() if kind is self.precision),
            "linear": "torch" if on_gpu else linear.library(),
            "libraries": {name: _version(name) for name in MULTIPLYING} | decoders(),
        }

    def autocast(self) -> torch.autocast:
        """Mixed precision where it was asked for, nothing otherwise."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)


def make_machine(runtime: RuntimeConfig) -> Machine:
    """The device, the processes and the precision that the settings ask for; joins the process group, if there is one.

    Raises:
        UserError: a device that is not there, or that this process can't have for itself; oneDNN where it is not there.
    """
    for name in KEPT:  # both are read at the first product, so before anything else here multiplies
        os.environ.setdefault(name, str(KERNELS))
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = choose_device(runtime.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    world = distributed.start(device)
    processes = distributed.processes()
    chosen = multiplication.choose(runtime.linear, processes) if device.type == "cpu" else None
    precision = choose_precision(runtime.precision, device, chosen)
    automatic = runtime.precision == "auto"
    return Machine(device, world, precision, runtime.compile, processes, chosen, automatic)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def lone_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The machine of a process that joins no others, whatever the environment says: for use inside programs of others.

    Raises:
        UserError: a device or a precision that is not there.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UserError(f"There is no precision {precision!r}: use auto, {' or '.join(PRECISIONS)}.")
    place = choose_device(device)
    chosen = multiplication.choose(RuntimeConfig().linear, ALONE) if place.type == "cpu" else None
    body = choose_precision(precision, place, chosen)
    return Machine(place, World(), body, multiplication=chosen, automatic=precision == "auto")


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


def choose_precision(name: str, device: torch.device, chosen: Multiplication | None) -> torch.dtype:
    """The precision called `name`; "auto" is bf16 on GPUs that compute in it, fp32 on older ones and on the CPU
    (`AUTO_TRAINS_IN_BF16`).

    Cards before Ampere only imitate bf16, more slowly than they compute in fp32.
    """
    if name != "auto":
        return PRECISIONS[name]
    if chosen is not None:
        return torch.bfloat16 if AUTO_TRAINS_IN_BF16 and chosen.bf16 else torch.float32
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if has_bf16 else torch.float32
