"""Where training images come from: the data set, a synthetic set, one after the other, or both at once."""

from __future__ import annotations

import json

import pytest
import torch

from engine import checkpoints
from models import METHODS
from tests.pipeline.mini import STAGES, Pipeline
from tests.synthetic_set import write_synthetic_set

pytestmark = pytest.mark.integration


@pytest.fixture
def choice(tmp_path):
    """choice(data, ...) -> the settings of a run whose training data are `data`, with more settings."""
    folder = write_synthetic_set(tmp_path / "people")
    return lambda data, *more: ("--set", f"gen_images.root={folder}", f"train.data={data}", *more)


def phases_of(pipeline: Pipeline) -> list[str]:
    """The trainings of a run in order, each once."""
    lines = (pipeline.config.run_directory / "metrics.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return list(dict.fromkeys(event["phase"] for event in events if event["event"] == "epoch"))


def trained(pipeline: Pipeline, file: str = "best.pth") -> dict:
    return checkpoints.load(pipeline.config.run_directory / file)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_synthetic_images_alone(pipeline, choice, method):
    height = 96 if METHODS[method].backbone == "resnet_lstm" else 48
    settings = choice("synthetic", f"model.method={method}", f"model.image_size=[{height},24]", "run=mini-pspd")
    for stage in STAGES[:4]:
        assert pipeline(stage, *settings) == 0, pipeline.messages
        assert pipeline.said("synthetic images") == (stage in STAGES[:3])
    assert phases_of(pipeline)[-1] == "synthetic"
    content = trained(pipeline)
    assert content["meta"]["trained_on"] == "people (synthetic)"
    assert content["meta"]["selected_on"] == "val"
    assert not pipeline.config.caption_directory.exists()
