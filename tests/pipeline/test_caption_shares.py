"""Stage C divided over two processes writes the captions of one, and one interrupted in two goes on in one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from captioning.store import CaptionStore
from tests.pipeline.mini import ROOT, STAGES

pytestmark = pytest.mark.integration


def on_two_processes(pipeline, stage: str) -> None:
    """The script on ranks 0 and 1, as torchrun would start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / f"{stage}.py"), "--config", str(pipeline.path)]
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors


def test_two_processes_write_the_captions_of_one(pipeline, tmp_path):
    folder = tmp_path / "captions"
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
    expected = (folder / "captions.json").read_text("utf-8")
    lines = (folder / "captions.jsonl").read_bytes().splitlines(keepends=True)
    for name in ("captions.json", ".gen_text.done"):
        (folder / name).unlink()
    (folder / "captions.jsonl").write_bytes(b"".join(lines[:5]))  # an interrupted run's
    on_two_processes(pipeline, "gen_text")
    assert (folder / "captions.json").read_text("utf-8") == expected
    with CaptionStore(folder / "captions.jsonl") as store:
        assert (len(store), store.duplicates, store.torn) == (24, 0, 0)
    assert len((folder / "captions.jsonl").read_bytes().splitlines()) == 24
    assert (folder / ".gen_text.done").exists()
