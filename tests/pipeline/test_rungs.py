"""The rungs of supervision, by one setting: zero-shot, generated captions, captions without identities, and labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine import checkpoints
from engine.sources import open_dataset
from models import build_model
from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.tokenizer import BlipTokenizer
from tests.pipeline.mini import STAGES, Pipeline

pytestmark = pytest.mark.integration


def weights_of(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    return checkpoints.load(pipeline.config.run_directory / "best.pth")["model"]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def move_identities(pipeline: Pipeline) -> None:
    """Give every training image the identity of another; captions stay."""
    path = Path(pipeline.config.dataset.root) / "CUHK-PEDES" / "reid_raw.json"
    entries = json.loads(path.read_text("utf-8"))
    train = [entry for entry in entries if entry["split"] == "train"]
    identities = [entry["id"] for entry in train]
    for entry, identity in zip(train, identities[3:] + identities[:3], strict=True):
        entry["id"] = identity
    path.write_text(json.dumps(entries), "utf-8")


@pytest.mark.parametrize("clusters", ["true", "false"])
def test_captions_without_identities(pipeline, tmp_path, clusters):
    choice = ("--set", "train.supervision=pairs", f"cluster.enabled={clusters}", "train.warm_up.max_epoch=0")
    for stage in STAGES[:4]:
        assert pipeline(stage, *choice) == 0, pipeline.messages
        assert pipeline.said("not needed") == (stage in STAGES[:3])
    assert not (tmp_path / "captions").exists()
    labels = pipeline.config.run_directory / "labels"
    assert labels.exists() == (clusters == "true")
    first = weights_of(pipeline)
    move_identities(pipeline)
    assert pipeline("train", *choice, "--force") == 0, pipeline.messages
    assert equal(first, weights_of(pipeline)), "an identity of the training split was read"
    assert pipeline("train", *choice, "train.supervision=labels", "--force") == 0, pipeline.messages
    assert not equal(first, weights_of(pipeline)), "the control: labels do read identities"
    assert pipeline("test", *choice) == 0, pipeline.messages


def test_every_image_its_own_class_on_generated_captions(pipeline):
    for stage in STAGES[:4]:
        assert pipeline(stage, "--set", "cluster.enabled=false") == 0, pipeline.messages
    assert not (pipeline.config.run_directory / "labels").exists()
    lines = (pipeline.config.run_directory / "metrics.jsonl").read_text("utf-8").splitlines()
    assert "own-classes" in {json.loads(line).get("phase") for line in lines}


def test_zero_shot_is_the_released_weights(pipeline, tmp_path):
    captions = ["a man in a red coat and blue jeans", "a woman with a black bag"] * 2
    tokenizer = BlipTokenizer.train(captions, tmp_path / "vocabulary", vocab_size=120)
    torch.manual_seed(7)
    model = BlipRetrieval("tiny", (48, 24), tokenizer=tokenizer)
    torch.save({"model": model.state_dict()}, tmp_path / "released.pth")
    choice = (
        "--set",
        "train.supervision=zero-shot",
        f"model.pretrained={tmp_path / 'released.pth'}",
        f"model.tokenizer={tmp_path / 'vocabulary'}",
    )
    open_dataset(pipeline.config)
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, pipeline.messages
        assert pipeline.said("nothing is trained") == (stage in STAGES[:3])
    assert not (tmp_path / "captions").exists()
    kept = weights_of(pipeline)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    results = json.loads((pipeline.config.run_directory / "results.json").read_text("utf-8"))
    assert results["itm"] is not None
    assert results["trained_on"] == "nothing here"


def test_zero_shot_from_a_checkpoint_with_its_vocabulary(pipeline, tmp_path):
    tokenizer = BlipTokenizer.train(
        ["a man in a red coat", "a woman with a black bag"] * 2, tmp_path / "words", 120
    )
    torch.manual_seed(7)
    model = build_model("pspd", size="tiny", image_size=(48, 24), tokenizer=tokenizer)
    start = tmp_path / "pretrained.pth"
    checkpoints.save(start, checkpoints.describe(model, "pspd", "tiny"))
    named = (f"model.pretrained={start}", f"model.tokenizer={start}")
    open_dataset(pipeline.config)
    for stage in ("train", "test"):
        assert pipeline(stage, "--set", "train.supervision=zero-shot", *named) == 0, pipeline.messages
    kept = weights_of(pipeline)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_zero_shot_without_weights_is_refused(pipeline):
    assert pipeline("train", "--set", "train.supervision=zero-shot") == 1
    assert pipeline.said("name both, in model.pretrained and model.tokenizer")
