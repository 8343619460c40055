"""Killed before any change of a file, gen_images.py goes on to the same set, and no finished image is made again."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from captioning.store import CaptionStore
from tests.trust.tiny_runs import TinyRun

pytestmark = pytest.mark.integration
DEFAULT_KILLS, MANY_KILLS = 5, 40
MADE = {"generated": 4, "edited": 8, "captions": 12}


def outcome(folder: Path) -> dict[str, bytes]:
    """All that is under its own name: a killed process leaves temporary files, whose names begin with a dot."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".jsonl", ".txt") and path.name[0] != "."
    }


@pytest.fixture
def run(server, tmp_path):
    section = f"{{root: {tmp_path / 'work' / 'set'}, prompts: 2, per_prompt: 2, edits: {{background: 1, weather: 1}}, batch_size: 1}}"
    return TinyRun(tmp_path, server, f"gen_images={section}")


def kill_often(run: TinyRun, kills: int) -> None:
    folder, record = run.work / "set", run.root / "operations"
    process = run.start("gen_images", watch=str(run.work), operations=str(record))
    assert process.wait() == 0, process.said()[-2000:]
    expected, operations = outcome(folder), record.read_text("utf-8").splitlines()
    rng = np.random.default_rng(0)
    for number in sorted(rng.choice(len(operations), kills, replace=False).tolist()):
        run.go_back("nothing")
        assert run.run("gen_images", watch=str(run.work), kill_before=number) == -signal.SIGKILL, operations[
            number
        ]
        process = run.start("gen_images")
        assert process.wait() == 0, (operations[number], process.said()[-2000:])
        assert outcome(folder) == expected, operations[number]
        assert (folder / ".gen_images.done").is_file()
        for step, count in MADE.items():
            with CaptionStore(folder / "manifests" / f"{step}.jsonl") as store:
                assert (len(store), store.duplicates) == (count, 0), operations[number]


def test_killed_at_some_moments_a_set_ends_as_if_undisturbed(run) -> None:
    kill_often(run, DEFAULT_KILLS)


@pytest.mark.slow
def test_killed_at_many_moments_a_set_ends_as_if_undisturbed(run) -> None:
    kill_often(run, MANY_KILLS)
