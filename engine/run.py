"""A run's folder: the log file, ``metrics.jsonl``, TensorBoard events, and the wish to stop."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from engine import distributed
from engine.log import LOGGER, LogFile
from retrieval.results import write_atomically


class StopSignal:
    """SIGTERM and ctrl-C ask for a stop at the next safe point; a second ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def install(self) -> StopSignal:
        """Catch the signals from now on (main thread only)."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        LOGGER.warning("Stopping: saving first (ctrl-C again stops at once).")

    def __bool__(self) -> bool:
        return self.received is not None


class Run:
    """Where a stage writes. Only the main process writes; the others' calls do nothing."""

    def __init__(self, directory: Path, log_name: str = "log.txt", stop: StopSignal | None = None) -> None:
        self.directory = directory
        self.stop = StopSignal() if stop is None else stop  # an unset signal is false
        self.metrics_path = directory / "metrics.jsonl"
        self._tensorboard: Any = None
        if distributed.is_main():
            directory.mkdir(parents=True, exist_ok=True)
            _add_log_file(directory / log_name)

    def stop_if_asked(self, _done: int = 0, _total: int = 0) -> None:
        """A progress callback for divided work that is done again from its start: a stop need not wait for its end.

        Raises:
            Interrupted: a stop signal came to this process or to another one.
        """
        distributed.stop_all_if(bool(self.stop))

    def metrics_position(self) -> int:
        """Bytes of ``metrics.jsonl`` so far: stored in checkpoints, so that a resumed run continues there."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def rewind_metrics(self, position: int) -> None:
        """Forget what was written after a checkpoint: it is about to be done again."""
        if distributed.is_main() and self.metrics_path.exists():
            with self.metrics_path.open("r+b") as stream:
                stream.truncate(min(position, self.metrics_position()))

    def forget_metrics(self, **values: Any) -> None:
        """Take out the lines that have all of these values (and torn ones): what they tell is about to be done again."""
        if not distributed.is_main() or not self.metrics_path.exists():
            return
        lines = self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if (known := _parsed(line)) and not values.items() <= known.items()]
        if kept != lines:
            write_atomically(self.metrics_path, "".join(f"{line}\n" for line in kept))

    def record(self, event: str, **values: Any) -> None:
        """Append one line to ``metrics.jsonl`` and its numbers to TensorBoard."""
        if not distributed.is_main():
            return
        with self.metrics_path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": event, **values}) + "\n")
        self._to_tensorboard(event, values)

    def _to_tensorboard(self, event: str, values: dict[str, Any]) -> None:
        if self._tensorboard is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # an option, not a requirement
                self._tensorboard = False
            else:
                self._tensorboard = SummaryWriter(str(self.directory / "tensorboard"))
        if self._tensorboard:
            step = values.get("total_step", values.get("round", 0))
            for name, number in _numbers(values, event):
                self._tensorboard.add_scalar(name, number, step)
            self._tensorboard.flush()


def _parsed(line: str) -> dict[str, Any]:
    """A line's values that can be compared; nothing where it is no whole line."""
    try:
        return {
            name: value for name, value in json.loads(line).items() if not isinstance(value, (dict, list))
        }
    except (ValueError, AttributeError):
        return {}


def _numbers(values: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        name = f"{prefix}/{key}"
        if isinstance(value, dict):
            found.extend(_numbers(value, name))
        elif isinstance(value, (int, float)) and key not in {"round", "epoch", "step", "total_step"}:
            found.append((name, float(value)))
    return found


def _add_log_file(path: Path) -> None:
    known = {getattr(handler, "baseFilename", None) for handler in LOGGER.handlers}
    if str(path.resolve()) in known:
        return
    handler = LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
