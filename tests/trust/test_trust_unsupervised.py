"""Unsupervised training reads neither an identity nor a human caption, and no image of the test split; training on synthetic
images opens no real one, and reads no caption or identity of one. Shown bit by bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthesis.demo import make_demo
from tests.pipeline.mini import STAGES
from tests.synthetic_set import write_synthetic_set
from tests.trust.tiny_runs import TSN, TinyRun, differences

pytestmark = pytest.mark.integration
SHORT = ("train.max_epoch=1", "train.warm_up.max_epoch=1", "pre_train.max_epoch=1")
METHODS = {"pspd": (), "tsn": TSN}


def settings(method: str) -> tuple[str, ...]:
    return ("--set", f"model.method={method}", *METHODS[method])


def trained(run: TinyRun) -> dict[str, Any]:
    """Captions, pseudo labels and checkpoints of both methods, from nothing but the data set."""
    shutil.rmtree(run.work, ignore_errors=True)
    run.finish(*STAGES[:3])
    for method in METHODS:
        process = run.start("train", *settings(method))
        assert process.wait() == 0, process.said()[-2000:]
    # metrics.jsonl reports how well the labels agree with identities, where there are any.
    return {name: made for name, made in run.outcome().items() if not name.endswith("metrics.jsonl")}


def shuffle(annotation: Path) -> None:
    """Give every training record the identity and the captions of another, and say these otherwise."""
    records = json.loads(annotation.read_text("utf-8"))
    train = [record for record in records if record["split"] == "train"]
    order = np.random.default_rng(0).permutation(len(train))
    other = [(train[i]["id"], train[i]["captions"]) for i in order]
    for record, (identity, captions) in zip(train, other, strict=True):
        record["id"], record["captions"] = identity, [f"{caption} indeed" for caption in captions]
        record.pop("processed_tokens", None)
    annotation.write_text(json.dumps(records), "utf-8")


@pytest.fixture(scope="module")
def before_and_after(server, tmp_path_factory):
    """The run, what it makes, and what it makes of a shuffled annotation when the test split's images are gone."""
    root = tmp_path_factory.mktemp("unsupervised")
    folder = make_demo(root / "datasets", train=10, val=2, test=3, images=2, seed=0)
    run = TinyRun(root, server, *SHORT, data=root / "datasets")
    before = trained(run)
    annotation = folder / "reid_raw.json"
    for record in json.loads(annotation.read_text("utf-8")):
        if record["split"] == "test":
            (folder / "imgs" / record["file_path"]).unlink()
    shuffle(annotation)
    return run, before, trained(run)


def test_everything_that_matters_was_compared(before_and_after):
    names = " ".join(before_and_after[1])
    for made in (
        "captions/pre_captions.json",
        "captions/captions.json",
        "captioner.pth",
        "warm_up.pth",
        *(f"mini-{method}/best.pth" for method in METHODS),
        *(f"mini-{method}/labels/round-{number}.npz" for method in METHODS for number in range(2)),
    ):
        assert made in names


def test_shuffled_labels_and_absent_test_images_change_no_bit(before_and_after):
    _, before, after = before_and_after
    assert not differences(before, after)


def test_evaluation_misses_the_images_that_training_never_opened(before_and_after):
    """The control: the images were really gone."""
    process = before_and_after[0].start("test", *settings("pspd"))
    assert process.wait() == 1
    assert "6 of 6 images cannot be read" in process.said()


SYNTHETIC = {"pspd": (), "tsn": TSN, "cada": (), "pairs": ("model.method=irra", "train.supervision=pairs")}


def trained_on_synthetic(run: TinyRun, people: Path) -> dict[str, Any]:
    """Checkpoints of several methods from synthetic images alone, after the stages that would caption real ones."""
    shutil.rmtree(run.work, ignore_errors=True)
    source = (f"gen_images.root={people}", "train.data=synthetic")
    run.finish(*STAGES[:3], options=source)
    for name, own in SYNTHETIC.items():
        choice = () if name == "pairs" else (f"model.method={name}",)
        run.finish("train", options=(*source, *choice, *own, f"run={name}"))
    # The configuration and the mark name the data set's folder, which is the same.
    return run.outcome()


@pytest.fixture(scope="module")
def with_and_without_real_images(server, tmp_path_factory):
    """What trainings make of a synthetic set beside a real one, and beside one that has no trace of its train split."""
    root = tmp_path_factory.mktemp("synthetic only")
    people = write_synthetic_set(root / "people")
    folder = make_demo(root / "datasets", train=10, val=2, test=3, images=2, seed=0)
    run = TinyRun(root, server, *SHORT, data=root / "datasets")
    before = trained_on_synthetic(run, people)
    annotation = folder / "reid_raw.json"
    records = json.loads(annotation.read_text("utf-8"))
    for record in records:
        if record["split"] != "val":
            (folder / "imgs" / record["file_path"]).unlink()
    annotation.write_text(json.dumps([record for record in records if record["split"] != "train"]), "utf-8")
    return run, before, trained_on_synthetic(run, people)


def test_synthetic_training_needs_no_real_training_image_caption_or_identity(with_and_without_real_images):
    _, before, after = with_and_without_real_images
    assert {f"output/{name}/best.pth" for name in SYNTHETIC} < before.keys()
    assert not any(name.startswith("captions/") for name in before), "no stage captioned real images"
    assert not differences(before, after)


def test_every_other_training_misses_them(with_and_without_real_images):
    """The control: they were really gone."""
    run = with_and_without_real_images[0]
    for data in ("real", "mixed", "synthetic_then_real"):
        choice = (f"gen_images.root={run.root}/people", f"train.data={data}", "model.method=cada")
        process = run.start("train", "--set", *choice, f"run={data}")
        assert process.wait() == 1, data
        assert "supervised and needs captions and identities" in process.said()
