"""What the five stages share: what they get, and how they run and end.

A stage that is finished says so and does nothing; one that was interrupted goes on; ``--force`` starts it over.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from data.errors import UserError
from engine import distributed, processor
from engine.building import check_model
from engine.command_line import Command, told_in_a_sentence
from engine.config import Config
from engine.distributed import Interrupted
from engine.log import LOGGER, start_logging
from engine.machine import Machine, make_machine
from engine.run import StopSignal


@dataclass
class Context:
    """What a stage gets: its configuration, the machine, and whether to start over."""

    config: Config
    machine: Machine
    stop: StopSignal
    force: bool = False
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)

    def compute_in(self, directory: Path) -> None:
        """Called where a stage begins to compute what it keeps in a folder: a run that is resumed multiplies as it began to."""
        self.machine = self.machine.keep(directory, self.config.runtime, self.force)
        self.say_machine()

    def say_machine(self) -> None:
        """Say by which library a CPU multiplies, as results depend on it by rounding."""
        if self.machine.multiplication is not None:
            LOGGER.info("On %s: %s.", processor.name(), self.machine.multiplication.describe())

    def check_stop(self) -> None:
        """Raise ``Interrupted`` when a stop was asked for: call where everything done so far is on disk."""
        if distributed.any_rank(bool(self.stop), self.machine.device):
            raise Interrupted("Stopped; what is done is kept.")


def set_aside(path: Path) -> None:
    """Rename a file that cost money or time to make, instead of deleting it."""
    if not path.exists() or not distributed.is_main():
        return
    number = 1
    while (backup := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    path.rename(backup)
    LOGGER.info("%s is kept as %s.", path, backup.name)


def run_stage(work: Callable[[Context], None], command: Command) -> NoReturn:
    """Do the work of one stage, and end with an exit code and at most one sentence."""
    try:
        with told_in_a_sentence():
            sys.exit(_run(work, command))
    finally:
        distributed.stop()


def _run(work: Callable[[Context], None], command: Command) -> int:
    config = command.config
    check_model(config)
    machine = make_machine(config.runtime)
    start_logging(distributed.is_main())
    _warn_of_days(config, machine)
    stop = StopSignal().install()
    try:
        work(Context(config, machine, stop, command.arguments.force, command.arguments))
    except Interrupted as reason:
        LOGGER.warning("%s The same command goes on from here.", reason)
        # Not 0: train.bash would start the next stage on half of what it needs.
        return 128 + (stop.received or signal.SIGTERM)
    except RuntimeError as error:
        if not distributed.lost_another(error):
            raise
        raise UserError(
            "Another process of this run has ended, so this one ends, too: see what that one said."
        ) from None
    return 0


def _warn_of_days(config: Config, machine: Machine) -> None:
    """Say before anything begins what a CPU is not made for."""
    if distributed.is_main() and machine.device.type == "cpu" and config.model.size != "tiny":
        LOGGER.warning(
            "No GPU: a %s model trains very slowly on a CPU (days); see docs/hardware.md.",
            config.model.size,
        )
