"""Bad input gets one clear sentence: every case of the design's list, through the scripts that a user starts."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from engine import checkpoints
from retrieval.metrics import check_hits
from tests.pipeline.mini import STAGES
from tests.trust.tiny_runs import TinyRun

pytestmark = pytest.mark.integration
SHORT = ("train.max_epoch=1", "train.rounds=1", "train.warm_up.max_epoch=1", "pre_train.max_epoch=1")
DATA, RUN = "datasets/CUHK-PEDES", "output/mini-pspd"


def records(work: Path) -> list[dict[str, Any]]:
    return json.loads((work / DATA / "reid_raw.json").read_text("utf-8"))


def rewrite(change: Callable[[dict[str, Any]], None], split: str) -> Callable[[Path], None]:
    """Damage that changes every record of a split."""

    def damage(work: Path) -> None:
        every = records(work)
        for record in every:
            if record["split"] == split:
                change(record)
        (work / DATA / "reid_raw.json").write_text(json.dumps(every), "utf-8")

    return damage


def images_of(work: Path, split: str) -> list[Path]:
    return [
        work / DATA / "imgs" / record["file_path"] for record in records(work) if record["split"] == split
    ]


def lose_images(work: Path) -> None:
    for path in images_of(work, "train")[:2]:
        path.unlink()


def spoil_images(work: Path) -> None:
    for path in images_of(work, "train")[3:6]:
        path.write_bytes(b"no picture")


def lose_folder(work: Path) -> None:
    (work / DATA).rename(work / "datasets" / "elsewhere")


def lose_annotation(work: Path) -> None:
    (work / DATA / "reid_raw.json").rename(work / DATA / "notes.txt")


def escape(record: dict[str, Any]) -> None:
    record["file_path"] = "../../../secret.jpg"


def silence(record: dict[str, Any]) -> None:
    record["captions"] = ["", "  "]


def lose_a_weight(work: Path) -> None:
    content = checkpoints.load(work / RUN / "best.pth")
    del content["model"]["vision_proj.weight"]
    checkpoints.save(work / RUN / "best.pth", content)


class Payload:
    """Pickled, this makes a folder when it is read by a reader that trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def plant(work: Path) -> None:
    (work / RUN / "best.pth").write_bytes(pickle.dumps(Payload(work / "trace"), protocol=2))


def forget_root(work: Path) -> None:
    """As configs/folder.yaml: a bare folder, and no word of which one."""
    path = work.with_name("tiny.yaml")
    lines = path.read_text("utf-8").replace("name: cuhk_pedes", "name: folder").splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("  root:")), "utf-8")


def nothing(_work: Path) -> None:
    """The settings are what is wrong."""


class Case(NamedTuple):
    """A stage, what is done to its files before, its settings, and words that the sentence has to have."""

    stage: str
    damage: Callable[[Path], None]
    settings: tuple[str, ...]
    words: tuple[str, ...]


CASES = {
    "missing folder": Case(
        "gen_pre_train_text", lose_folder, (), ("There is no folder CUHK-PEDES", "elsewhere")
    ),
    "missing annotation": Case(
        "gen_pre_train_text", lose_annotation, (), ("tried reid_raw.json", "ask for the data at")
    ),
    "missing images": Case("train", lose_images, (), ("2 of 20 images cannot be read", ".jpg")),
    "unreadable images": Case("train", spoil_images, (), ("3 of 20 images cannot be read", ".jpg")),
    "empty captions to train with": Case(
        "train", rewrite(silence, "train"), ("model.method=cada",), ("needs captions and identities",)
    ),
    "empty captions to query with": Case(
        "test", rewrite(silence, "test"), (), ("test split", "no caption to query with")
    ),
    "paths that leave the root": Case(
        "gen_pre_train_text", rewrite(escape, "train"), (), ("image path with '..'", "leave the dataset root")
    ),
    "a typo": Case(
        "train", nothing, ("train.max_epch=3",), ("'train.max_epch'", "did you mean 'train.max_epoch'")
    ),
    "a wrong value": Case(
        "train", nothing, ("train.max_epoch=many",), ("'train.max_epoch'", "'many'", "valid integer")
    ),
    "a checkpoint of another model": Case("test", lose_a_weight, (), ("best.pth", "vision_proj.weight")),
    "a checkpoint that holds code": Case("test", plant, (), ("best.pth", "is never run")),
    "no GPU": Case("train", nothing, ("runtime.device=cuda",), ("torch sees none",)),
    "no such device": Case("train", nothing, ("runtime.device=abacus",), ("abacus", "auto, cpu or cuda")),
    "too few samples": Case(
        "train", nothing, ("cluster.min_samples=50",), ("too few to cluster", "cluster.min_samples")
    ),
    "all noise": Case(
        "train", nothing, ("cluster.eps=1e-9", "cluster.min_samples=19"), ("eps", "teach nothing")
    ),
    "one cluster": Case("train", nothing, ("cluster.eps=50",), ("eps", "teach nothing")),
    "a loss that is no number": Case(
        "train",
        nothing,
        ("train.init_lr=1e39", "train.max_epoch=4"),
        ("no longer a finite number", "init_lr"),
    ),
    "a folder that nobody named": Case(
        "train", forget_root, (), ("dataset.root is not set", "--set dataset.root=DIR")
    ),
}


@pytest.fixture(scope="module")
def ready(server, tmp_path_factory) -> TinyRun:
    """A run that is finished but for its marks, so that every stage would have something to do."""
    run = TinyRun(tmp_path_factory.mktemp("bad_input"), server, *SHORT).finish(*STAGES[:4])
    for mark in run.work.rglob("*.done"):
        mark.unlink()
    for path in (*run.work.glob("output/mini-pspd/labels/*"), *run.work.glob("output/image_cache/*")):
        path.unlink()
    run.config.write_text(
        run.config.read_text("utf-8").replace("synthesis: {train: 10", "synthesis: null # {train: 10"),
        "utf-8",
    )
    (run.root / "ready.yaml").write_text(run.config.read_text("utf-8"), "utf-8")
    run.keep("ready")
    return run


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence(ready, name):
    case = CASES[name]
    ready.go_back("ready")
    ready.config.write_text((ready.root / "ready.yaml").read_text("utf-8"), "utf-8")
    case.damage(ready.work)
    settings = ("--set", *case.settings) if case.settings else ()
    process = ready.start(case.stage, *settings)
    assert process.wait() == 1, process.said()
    said = process.said()
    assert "Traceback" not in said, said
    sentence = said.splitlines()[-1]
    assert [word for word in case.words if word not in sentence] == [], sentence
    assert len(sentence) < 700
    assert not (ready.work / "trace").exists()
    assert not (ready.work / RUN / ".train.done").exists()


def test_a_diverged_run_keeps_its_last_good_state_and_names_none_that_is_not_there(ready):
    ready.go_back("ready")
    ready.config.write_text((ready.root / "ready.yaml").read_text("utf-8"), "utf-8")
    state = ready.work / RUN / "train" / "last.pth"
    # The first loss is still a number; its step leaves weights that are none.
    process = ready.start(
        "train", "--set", "train.init_lr=1e39", "train.max_epoch=4", "train.save_minutes=10"
    )
    assert process.wait() == 1
    sentence = process.said().splitlines()[-1]
    assert "no longer a finite number" in sentence
    assert state.exists() == (str(state) in sentence) == ("nothing was saved yet" not in sentence)
    if state.exists():
        weights = checkpoints.load(state)["model"]
        assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


def test_identities_without_images_are_told_before_anything_is_encoded():
    with pytest.raises(ValueError, match="no image") as caught:
        check_hits(np.array([1, 2, 7]), np.array([1, 2]))
    assert "\n" not in str(caught.value)
