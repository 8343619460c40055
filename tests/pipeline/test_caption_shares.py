"""Stages B and C divided over two processes: the weights of one up to rounding, and the captions of one exactly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from captioning.store import CaptionStore
from engine import checkpoints
from tests.pipeline.mini import ROOT, STAGES, free_port

pytestmark = pytest.mark.integration


def on_two_processes(pipeline, stage: str, *arguments: str) -> None:
    """The script on ranks 0 and 1, as torchrun would start it."""
    command = [sys.executable, str(ROOT / f"{stage}.py"), "--config", str(pipeline.path), *arguments]
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
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


def test_two_processes_train_the_captioner_of_one(pipeline):
    plain = ("--set", "model.dropout=0")
    assert pipeline("gen_pre_train_text") == 0
    assert pipeline("pre_train", *plain) == 0
    path = pipeline.config.captioner_directory / "captioner.pth"
    alone = checkpoints.load(path)["model"]
    assert not (path.parent / "last.pth").exists()
    on_two_processes(pipeline, "pre_train", "--force", *plain)
    shared = checkpoints.load(path)["model"]
    difference = torch.cat([(shared[name] - alone[name]).abs().flatten() for name in alone])
    # Adam moves a weight whose gradient is rounding alone (a key's bias) by a whole step in any direction.
    assert (difference < 1e-5).float().mean() > 0.98
    assert difference.max() < 5e-3
