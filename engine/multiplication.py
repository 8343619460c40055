"""How a run multiplies on this CPU: by which library, and whether bf16 is the faster way for a model that is only used.

Measured on products of BERT's size, once for each processor and version of torch, and remembered in the user's cache folder.
The library changes rounding, so all processes take the first one's choice, and a run that is resumed the one it began with.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import UserError
from engine import processor
from models.backbones import linear
from retrieval.division import Processes
from retrieval.results import write_atomically

# Tokens, from and to widths: of a text stack, and of captions being written.
SHAPES = ((128, 768, 768), (32, 768, 3072))
REPETITIONS = 5
# What the other way must need of torch's own time, or of fp32's: a measurement errs by a few percent, and bf16 has to be
# converted to and from.
ONEDNN_BELOW, BF16_BELOW = 0.95, 0.8
KEPT = ".multiplication.json"  # in a run's folder


@dataclass(frozen=True)
class Multiplication:
    """`linear` is who computes large fp32 products ("onednn", "torch"); `bf16` whether bf16 is faster than that.

    `measured` are both ways' times as shares: oneDNN's of torch's, bf16's of the chosen one's; empty where nothing was.
    """

    linear: str
    bf16: bool
    measured: dict[str, float]

    def describe(self) -> str:
        """For people."""
        who = {"onednn": "oneDNN", "torch": "torch's own library"}[self.linear]
        shares = {"onednn": "oneDNN needs {:.2f} of torch's time", "bf16": "bf16 {:.2f} of fp32's"}
        said = [text.format(self.measured[name]) for name, text in shares.items() if name in self.measured]
        return f"large products by {who}" + (f" (measured: {', '.join(said)})" if said else "")


def choose(wanted: str, processes: Processes) -> Multiplication:
    """The way that `runtime.linear` asks for, the fastest for "auto"; used by this process from now on.

    Raises:
        UserError: oneDNN is asked for and can't be.
    """
    able = (linear.has_onednn(), processor.multiplies_bf16())
    answers = processes.gather((able, _remembered_or_measured(able) if processes.rank == 0 else None))
    found, everywhere = (
        answers[0][1],
        [all(there) for there in zip(*(one for one, _ in answers), strict=True)],
    )
    if wanted == "onednn" and not everywhere[0]:
        raise UserError(
            f"torch {torch.__version__} can't be asked for products by oneDNN here: use auto or torch (runtime.linear)."
        )
    chosen = found.linear if everywhere[0] else "torch"
    chosen = chosen if wanted == "auto" else wanted
    linear.use(chosen)
    return Multiplication(chosen, found.bf16 and everywhere[1], found.measured)


def keep(
    chosen: Multiplication, wanted: str, directory: Path, anew: bool, processes: Processes
) -> Multiplication:
    """The way that the run in `directory` began with, if it did and none is asked for by name; else this one, written there.

    Every process calls it; the first one's answer counts.
    """
    if processes.rank == 0:
        before = None if anew or wanted != "auto" else _read(directory / KEPT)
        if before is None or (before.linear == "onednn" and not linear.has_onednn()):
            directory.mkdir(parents=True, exist_ok=True)
            written = replace(chosen, measured={})  # times differ from run to run
            write_atomically(directory / KEPT, json.dumps(asdict(written)) + "\n")
        else:
            chosen = before
    chosen = processes.gather(chosen)[0]
    linear.use(chosen.linear)
    return chosen


def _read(path: Path) -> Multiplication | None:
    try:
        return _parsed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _parsed(known: Any) -> Multiplication:
    """Raises ValueError for anything but what `asdict` of one gives."""
    try:
        shares = {str(name): float(share) for name, share in known["measured"].items()}
        found = Multiplication(known["linear"], known["bf16"], shares)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    if found.linear not in linear.LIBRARIES or not isinstance(found.bf16, bool):
        raise ValueError(f"{known!r:.80} is no way to multiply")
    return found


def cache_path() -> Path:
    """Where this user's machines remember what was measured."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pspd" / "multiplication.json"


def _remembered_or_measured(able: tuple[bool, bool]) -> Multiplication:
    key = " | ".join([processor.name(), " ".join(processor.features()), torch.__version__, str(able)])
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # the last where there is no home
        content = json.loads(cache_path().read_text(encoding="utf-8"))
        known = content if isinstance(content, dict) else {}
    if key in known:
        with contextlib.suppress(ValueError):
            return _parsed(known[key])
    found = measure(*able)
    with contextlib.suppress(OSError, RuntimeError):  # measured again next time
        write_atomically(cache_path(), json.dumps(known | {key: asdict(found)}, indent=1) + "\n")
    return found


def measure(onednn: bool, bf16: bool) -> Multiplication:
    """The fastest way on this processor; `onednn` and `bf16` say what it could do.

    On one thread and by its own CPU time: what else the machine does has no part in the ratio.
    """
    before, threads = linear.library(), torch.get_num_threads()
    shares: dict[str, float] = {}
    torch.set_num_threads(1)
    try:
        chosen = "torch"
        if onednn:
            shares["onednn"] = _share(_training, "onednn", "torch")
            chosen = "onednn" if shares["onednn"] < ONEDNN_BELOW else "torch"
        if bf16:
            shares["bf16"] = _share(_reading, "bf16", chosen)
    finally:
        torch.set_num_threads(threads)
        linear.use(before)
    return Multiplication(chosen, shares.get("bf16", 1.0) < BF16_BELOW, shares)


def _share(work: Callable[[str], list[Callable[[], Any]]], one: str, other: str) -> float:
    """The time that `work` takes in one way, as a share of its time in the other; the fastest of turns for each shape."""
    seconds = {one: 0.0, other: 0.0}
    for pair in zip(work(one), work(other), strict=True):
        fastest = dict.fromkeys(seconds, float("inf"))
        for turn in range(REPETITIONS + 1):
            for name, action in zip(seconds, pair, strict=True):
                started = time.thread_time()
                action()
                if turn:  # the first one makes ready
                    fastest[name] = min(fastest[name], time.thread_time() - started)
        seconds = {name: seconds[name] + fastest[name] for name in seconds}
    return round(seconds[one] / seconds[other], 3)


def _operands() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, given, wanted in SHAPES:
        yield (
            torch.randn(tokens, given, generator=generator),
            torch.randn(wanted, given, generator=generator),
            torch.randn(wanted, generator=generator),
        )


def _training(way: str) -> list[Callable[[], Any]]:
    """Forward and backward of a layer of each shape, by a library."""

    def action(parts: list[Tensor]) -> None:
        linear.use(way)
        with torch.enable_grad():
            result = linear.linear(*parts)
            torch.autograd.grad(result, parts, torch.ones_like(result))

    shapes = [[part.requires_grad_() for part in parts] for parts in _operands()]
    return [lambda parts=parts: action(parts) for parts in shapes]


def _reading(way: str) -> list[Callable[[], Any]]:
    """A layer of each shape forward: in bf16, with its values converted to it, or in fp32 by a library."""

    def action(parts: list[Tensor]) -> None:
        if way != "bf16":
            linear.use(way)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way == "bf16"):
            linear.linear(*parts)

    shapes = [list(parts) for parts in _operands()]
    if way == "bf16":
        shapes = [[values, weight.bfloat16(), bias.bfloat16()] for values, weight, bias in shapes]
    return [lambda parts=parts: action(parts) for parts in shapes]
