"""What the five stages share: the command line, the finished-marks, and how they end.

A stage that is finished says so and does nothing; one that was interrupted goes on; ``--force`` starts it over.
"""

from __future__ import annotations

import argparse
import errno
import json
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import UserError
from engine import distributed
from engine.building import check_model
from engine.config import Config, load_config
from engine.distributed import Interrupted
from engine.machine import Machine, make_machine
from engine.run import LOGGER, StopSignal, start_logging
from retrieval.results import write_atomically

ROOT = Path(__file__).resolve().parents[1]
ROOM, RIGHTS = "make room on that disk", "check the permissions of that folder"
REMEDIES = {  # what the system refuses and its user can change
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: ROOM,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
}


@dataclass
class Context:
    """What a stage gets: its configuration, the machine, and whether to start over."""

    config: Config
    machine: Machine
    stop: StopSignal
    force: bool = False
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)

    def check_stop(self) -> None:
        """Raise ``Interrupted`` when a stop was asked for: call where everything done so far is on disk."""
        if distributed.any_rank(bool(self.stop), self.machine.device):
            raise Interrupted("Stopped; what is done is kept.")


class Mark:
    """A small file that says a stage is finished and with which settings."""

    def __init__(self, path: Path, config: Config, sections: tuple[str, ...]) -> None:
        self.path = path
        content = config.model_dump(mode="json")
        self.settings = {name: content[name] for name in sections}

    def changes(self) -> list[str] | None:
        """Which settings have changed since the stage was finished; None where it is not finished.

        A setting that there was none of at that time had what is its default now.
        """
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        defaults = Config().model_dump(mode="json", include=set(self.settings))
        return differences(_completed(known, defaults), self.settings)

    def is_set(self, stage: str) -> bool:
        """True when the stage is finished; says so, and names settings that have changed since."""
        changed = self.changes()
        if changed is None:
            return False
        LOGGER.info("%s: already finished (%s); --force does it again.", stage, self.path.parent)
        if changed:
            LOGGER.warning(
                "%s was finished with other settings: %s. They are used as they are; --force does the stage again.",
                stage,
                "; ".join(changed[:5]),
            )
        return True

    def set(self) -> None:
        """Write the mark, atomically; everything the stage made must be on disk by now."""
        if distributed.is_main():
            write_atomically(self.path, json.dumps(self.settings, indent=1))

    def clear(self) -> None:
        """Forget that the stage was finished."""
        if distributed.is_main():
            self.path.unlink(missing_ok=True)


def _completed(known: Any, defaults: Any) -> Any:
    """Settings, and the defaults of those that they lack in sections that they have."""
    if not (isinstance(known, dict) and isinstance(defaults, dict)):
        return known
    return defaults | {name: _completed(value, defaults.get(name)) for name, value in known.items()}


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The values that differ between two nested settings, as "section.key old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in differences(old.get(name), new.get(name), f"{prefix}.{name}".strip("."))
        ]
    return [] if old == new else [f"{prefix} {old!r} -> {new!r}"]


def set_aside(path: Path) -> None:
    """Rename a file that cost money or time to make, instead of deleting it."""
    if not path.exists() or not distributed.is_main():
        return
    number = 1
    while (backup := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    path.rename(backup)
    LOGGER.info("%s is kept as %s.", path, backup.name)


def main(
    work: Callable[[Context], None],
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Parse the command line, run one stage, and end with an exit code and at most one sentence."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", nargs="+", required=True, metavar="FILE", help="YAML files, later ones win"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides"
    )
    parser.add_argument("--force", action="store_true", help="do a finished stage again")
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    sys.exit(exit_code(lambda: _run(work, arguments)))


def exit_code(action: Callable[[], int]) -> int:
    """Runs an action that returns an exit code; what goes wrong is told in one sentence instead of a traceback."""
    start_logging()
    try:
        return action()
    except UserError as error:
        LOGGER.error("%s", error)
    except ValueError as error:
        place = _raised_at(error)
        if place is None:
            raise
        LOGGER.error("%s (%s)", error, place)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        place = f" ({error.filename})" if error.filename else ""
        LOGGER.error(
            "%s%s: %s, then give the same command; what was saved is kept.",
            error.strerror,
            place,
            REMEDIES[error.errno],
        )
    except RuntimeError as error:
        if not distributed.lost_another(error):
            raise
        LOGGER.error("Another process of this run has ended, so this one ends, too: see what that one said.")
    except KeyboardInterrupt:
        LOGGER.error("Stopped at once; the same command goes on from the last save.")
        return 130
    finally:
        distributed.stop()
    return 1


def _raised_at(error: ValueError) -> str | None:
    """File and line in this project that raised an error, None for one from a library.

    Rooms that do not know ``UserError`` say what is wrong in a ValueError's sentence, so its traceback is of no use.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(frame.filename).resolve()
    if not path.is_relative_to(ROOT) or "site-packages" in path.parts:
        return None
    return f"{path.relative_to(ROOT)}:{frame.lineno}"


def _run(work: Callable[[Context], None], arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.overrides)
    check_model(config)
    machine = make_machine(config.runtime)
    start_logging()
    _warn_of_days(config, machine)
    stop = StopSignal().install()
    try:
        work(Context(config, machine, stop, arguments.force, arguments))
    except Interrupted as reason:
        LOGGER.warning("%s The same command goes on from here.", reason)
        # Not 0: train.bash would start the next stage on half of what it needs.
        return 128 + (stop.received or signal.SIGTERM)
    return 0


def _warn_of_days(config: Config, machine: Machine) -> None:
    """Say before anything begins what a CPU is not made for."""
    if distributed.is_main() and machine.device.type == "cpu" and config.model.size != "tiny":
        LOGGER.warning(
            "No GPU: a %s model trains very slowly on a CPU (days); see docs/hardware.md.",
            config.model.size,
        )
