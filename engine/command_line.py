"""The command line of the five stages, and how a command ends: what comes before torch is loaded.

The entry scripts read their command line first and import their stage afterwards: so a typing mistake is told at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.errors import UserError
from engine.config import Config, load_config
from engine.log import LOGGER, start_logging

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


@dataclass(frozen=True)
class Command:
    """What a stage was asked for: its configuration, and the words that are no settings."""

    config: Config
    arguments: argparse.Namespace


def stage_parser(description: str) -> argparse.ArgumentParser:
    """The options that all stages take; a script adds its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_configuration(parser)
    parser.add_argument("--force", action="store_true", help="do a finished stage again")
    return parser


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``, which `load_config` takes."""
    parser.add_argument(
        "--config", nargs="+", required=True, metavar="FILE", help="YAML files, later ones win"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides"
    )


def read_command(parser: argparse.ArgumentParser) -> Command:
    """The command line with its configuration; a mistake in either ends the process with one sentence."""
    arguments = parser.parse_args()
    with told_in_a_sentence():
        return Command(load_config(arguments.config, arguments.overrides), arguments)


@contextlib.contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """What goes wrong inside ends the process with an exit code and one sentence instead of a traceback.

    Raises:
        SystemExit: 1 after what a user can mend, 130 after ctrl-C; mistakes of the program keep their traceback.
    """
    start_logging()
    try:
        yield
        return
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
    except KeyboardInterrupt:
        LOGGER.error("Stopped at once; the same command goes on from the last save.")
        raise SystemExit(130) from None
    raise SystemExit(1)


def _raised_at(error: ValueError) -> str | None:
    """File and line in this project that raised an error, None for one from a library.

    Rooms that do not know ``UserError`` say what is wrong in a ValueError's sentence, so its traceback is of no use.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(frame.filename).resolve()
    if not path.is_relative_to(ROOT) or "site-packages" in path.parts:
        return None
    return f"{path.relative_to(ROOT)}:{frame.lineno}"
