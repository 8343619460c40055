"""What the project says: one logger, plainly on standard error, and a file that costs no run."""

from __future__ import annotations

import contextlib
import logging
import sys

LOGGER = logging.getLogger("pspd")


def start_logging(main: bool = True) -> None:
    """Messages go to standard error, plainly; only the main process speaks below warnings."""
    if not LOGGER.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO if main else logging.WARNING)
    LOGGER.propagate = False


class LogFile(logging.FileHandler):
    """A log that can't be written costs its lines and nothing else: a full disk is told by what fails to be saved."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing, where logging would print a traceback for every line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, if the file can be opened at all: its folder may be gone by now."""
        with contextlib.suppress(OSError):
            super().emit(record)
