"""Runs of the five stages on a handful of drawn people, as real processes, and all that comes of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.pipeline.mini import MINI, ROOT, STAGES

SIZES = "{train: 10, val: 2, test: 3, images: 2, seed: 0}"
# Several epochs, rounds and saves, so that there is something between which to be killed.
LIVELY = (
    "model.image_size=[32,16]",
    "gen_pre_train_text.samples=12",
    "pre_train.max_epoch=2",
    "gen_text.batch_size=4",
    "train.rounds=2",
    "train.max_epoch=2",
    "train.warm_up.max_epoch=2",
    "train.log_every=1",
    "train.save_minutes=0.0002",
    "runtime.threads=1",
    "runtime.workers=1",
)
# TSN on captions of stage C; a larger share of the distances than its own, for so few images.
TSN = ("train.captions=[base]", "correction.enabled=false", "cluster.ratio=0.05")
# scikit-learn imports pyarrow where it is installed, whose allocator would start a thread in the process that is forked.
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **NO_THREAD}


class Server:
    """A running ``stage_server.py``."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stage_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()  # no fork of it is running any more
        self.process.wait()
        self.process.stdout.close()


class Stage:
    """A stage that has been started."""

    def __init__(self, server: Server, pid: int, log: Path) -> None:
        self.server, self.pid, self.log = server, pid, log

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, to a process that may have ended but has not been waited for."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 120) -> int | None:
        """Its exit code, minus the signal that ended it, or None when it took longer."""
        return self.server.ask(wait=self.pid, seconds=seconds)["code"]

    def said(self) -> str:
        """All that it wrote to standard output and error."""
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""


class TinyRun:
    """A configuration in a folder of its own, and its stages.

    Args:
        root: its folder; everything that stages write lies below ``root / "work"``.
        options: KEY=VALUE settings of every stage.
        data: the folder of the data set; drawn below ``work`` if not given.
    """

    def __init__(
        self, root: Path, server: Server, *options: str, data: Path | None = None, name: str = "cuhk_pedes"
    ) -> None:
        self.root, self.server, self.work = root, server, root / "work"
        self.options = (*LIVELY, *options)
        self.config = root / "tiny.yaml"
        root.mkdir(parents=True, exist_ok=True)
        synthesis = SIZES if data is None else "null"
        content = MINI.format(
            root=self.work, name=name, data=data or self.work / "datasets", synthesis=synthesis
        )
        self.config.write_text(content, "utf-8")

    def arguments(self, *more: str) -> list[str]:
        """The command line's; what is added comes last and therefore wins."""
        return ["--config", str(self.config), "--set", *self.options, *more]

    def start(self, stage: str, *arguments: str, **how: Any) -> Stage:
        """A stage as a process; ``how`` as in ``stage_server``."""
        log = self.root / f"{stage}.said"
        log.unlink(missing_ok=True)
        request = {"stage": stage, "arguments": self.arguments(*arguments), "log": str(log), **how}
        return Stage(self.server, self.server.ask(start=request)["pid"], log)

    def run(self, stage: str, *arguments: str, **how: Any) -> int | None:
        """A stage to its end: its exit code."""
        return self.start(stage, *arguments, **how).wait()

    def finish(self, *stages: str, options: Sequence[str] = ()) -> TinyRun:
        """Stages to their end, all five by default, with more settings; a failure is the test's."""
        for stage in stages or STAGES:
            process = self.start(stage, *(["--set", *options] if options else ()))
            assert process.wait() == 0, (stage, process.said()[-2000:])
        return self

    def keep(self, name: str) -> None:
        """Remember the state of all files under a name."""
        shutil.rmtree(self.root / name, ignore_errors=True)
        if self.work.exists():
            shutil.copytree(self.work, self.root / name, symlinks=True)

    def go_back(self, name: str) -> None:
        """Make all files what they were when ``keep`` was called."""
        shutil.rmtree(self.work, ignore_errors=True)
        if (self.root / name).exists():
            shutil.copytree(self.root / name, self.work, symlinks=True)

    def outcome(self) -> dict[str, Any]:
        """Everything that the stages have made so far, by file name, without times of day and durations."""
        return {
            str(path.relative_to(self.work)): content(path)
            for path in sorted(self.work.rglob("*"))
            if path.is_file() and kind(path)
        }


def kind(path: Path) -> str:
    """How a file is compared; empty for what belongs to no outcome: logs, locks, caches, leftovers, pictures."""
    if path.name.startswith("."):
        return "mark" if path.name.endswith(".done") else ""
    if "image_cache" in path.parts or "datasets" in path.parts or path.name == "log.txt":
        return ""
    return path.suffix if path.suffix in {".json", ".jsonl", ".pth", ".npz", ".txt", ".yaml"} else ""


def content(path: Path) -> Any:
    """A file as plain values and tensors."""
    if path.suffix == ".pth":
        return torch.load(path, weights_only=True)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: torch.from_numpy(np.atleast_1d(arrays[name])) for name in arrays.files}
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        lines = [timeless(json.loads(line)) for line in text.splitlines()]
        # A caption store is a set of answers: an interrupted run may have asked in another order.
        return sorted(lines, key=lambda line: line["key"]) if lines and "key" in lines[0] else lines
    return timeless(json.loads(text)) if path.suffix == ".json" else text


def timeless(record: Any) -> Any:
    return {k: v for k, v in record.items() if k != "seconds"} if isinstance(record, dict) else record


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two outcomes differ; tensors have to be equal bit by bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        names = [*first, *(name for name in second if name not in first)]
        return [
            line
            for name in names
            for line in (
                differences(first[name], second[name], f"{place} {name}".strip())
                if name in first and name in second
                else [f"{place} {name}: only in one"]
            )
        ]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            line
            for index, pair in enumerate(zip(first, second, strict=True))
            for line in differences(*pair, f"{place}[{index}]")
        ]
    else:
        same = first == second
    return [] if same else [f"{place}: {first!r:.100} != {second!r:.100}"]
