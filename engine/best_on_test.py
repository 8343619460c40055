"""What a run would have reported had its epoch been chosen on the test split, as much released code does by default.

Recorded beside the honest result and never in its place: the epochs are evaluated as they come, and neither weights nor
selection see what comes out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine import distributed
from engine.config import Config
from engine.evaluation import Split, evaluate_split
from engine.log import LOGGER
from engine.loop import Place
from engine.machine import Machine
from engine.run import Run
from models.methods.base import Method
from retrieval.results import rounded, write_atomically

FILE = "best_on_test.json"


class BestOnTest:
    """The best of the epochs so far by Rank-1 + mAP on the test split, in the run's folder."""

    def __init__(self, split: Split, config: Config, machine: Machine, run: Run) -> None:
        self.split, self.config, self.machine, self.run = split, config, machine, run
        self.path = config.run_directory / FILE

    def look(self, model: Method, place: Place, epoch: int) -> None:
        """Evaluate an epoch's model, on every process, and keep what it reaches if it is the best; the same epoch again changes nothing."""
        k_test = self.config.test.k_test
        found = evaluate_split(model, self.split, self.config, self.machine, k_test, self.run.stop_if_asked)
        if not distributed.is_main():
            return
        record = {
            "phase": place.phase,
            "epoch": epoch,
            "itc": rounded(found.itc),
            "itm": None if found.itm is None else rounded(found.itm),
        }
        before = read(self.path)
        if before is None or _score(record) > _score(before):
            write_atomically(self.path, json.dumps(record, indent=2) + "\n")
            LOGGER.info("Test split, not used for selection: the best epoch so far.")


def read(path: Path) -> dict[str, Any] | None:
    """What was recorded; None where nothing was or the file is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _score(record)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def _score(record: dict[str, Any]) -> float:
    ranked = record["itm"] or record["itc"]
    return ranked["r1"] + ranked["mAP"]
