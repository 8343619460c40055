"""``search.py`` in this process."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.machine import Machine
from models.world import World

ROOT = Path(__file__).resolve().parents[2]
CPU = Machine(torch.device("cpu"), World(), torch.float32)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    output: str

    def json(self) -> Any:
        return json.loads(self.output)


def run(*arguments: object) -> Ended:
    before, printed = sys.argv, io.StringIO()
    sys.argv = ["search.py", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(ROOT / "search.py"), run_name="__main__")
    except SystemExit as end:
        return Ended(end.code, printed.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("a script ends with an exit code")
