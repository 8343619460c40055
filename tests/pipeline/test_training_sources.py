"""Where training images come from: the data set, a synthetic set, one after the other, or both at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine import checkpoints
from models import METHODS
from tests.pipeline.mini import STAGES, Pipeline
from tests.synthetic_set import write_synthetic_set

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_synthetic_set(tmp_path_factory.mktemp("synthetic") / "people")


@pytest.fixture
def choice(people):
    """choice(data, ...) -> the settings of a run whose training data are `data`, with more settings."""
    return lambda data, *more: ("--set", f"gen_images.root={people}", f"train.data={data}", *more)


def phases_of(pipeline: Pipeline) -> list[str]:
    """The trainings of a run in order, each once."""
    lines = (pipeline.config.run_directory / "metrics.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return list(dict.fromkeys(event["phase"] for event in events if event["event"] == "epoch"))


def trained(pipeline: Pipeline, file: str = "best.pth") -> dict:
    return checkpoints.load(pipeline.config.run_directory / file)


def equal(first: dict, second: dict) -> bool:
    return all(torch.equal(first["model"][name], value) for name, value in second["model"].items())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_synthetic_images_alone(pipeline, choice, method):
    size = "[96,24]" if METHODS[method].backbone == "resnet_lstm" else "[32,16]"
    more = (f"model.method={method}", f"model.image_size={size}", "run=mini-pspd")
    assert pipeline("train", *choice("synthetic", *more)) == 0, pipeline.messages
    assert phases_of(pipeline)[-1] == "synthetic"
    meta = trained(pipeline)["meta"]
    assert (meta["trained_on"], meta["selected_on"]) == ("people (synthetic)", "val")
    assert not pipeline.config.caption_directory.exists()


@pytest.mark.parametrize("method", ["pspd", "tsn"])
def test_stages_that_caption_real_images_have_nothing_to_do(pipeline, choice, method):
    for stage in STAGES[:3]:
        assert pipeline(stage, *choice("synthetic", f"model.method={method}")) == 0, pipeline.messages
        assert pipeline.said("not needed, training learns from synthetic images")
    assert not pipeline.config.caption_directory.exists()
    assert not pipeline.config.captioner_directory.exists()


def test_rounds_start_from_the_synthetic_training(pipeline, choice):
    """Every round and the first labels: what a run makes that is given that model as pre-trained weights."""
    settings = choice("synthetic_then_real", "train.rounds=2", "train.synthetic.max_epoch=2")
    for stage in STAGES:
        assert pipeline(stage, *settings) == 0, (stage, pipeline.messages)
    assert phases_of(pipeline) == ["warm-up", "warm-up-matching", "synthetic", "round-0", "round-1"]
    assert trained(pipeline, "synthetic.pth")["meta"]["trained_on"] == "people (synthetic)"
    folder = pipeline.config.run_directory
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["trained_on"] == "people (synthetic), then mini"

    start = folder / "synthetic.pth"
    weights = (
        "--set",
        f"model.pretrained={start}",
        f"model.tokenizer={start}",
        "train.rounds=2",
        "run=given",
    )
    assert pipeline("train", *weights) == 0, pipeline.messages
    given = folder.with_name("given")
    for number in range(2):
        made = (given / "labels" / f"round-{number}.npz").read_bytes()
        assert made == (folder / "labels" / f"round-{number}.npz").read_bytes()
    assert equal(checkpoints.load(given / "best.pth"), trained(pipeline))


def test_a_supervised_training_starts_from_the_synthetic_one(pipeline, choice):
    more = ("train.supervision=labels", "train.synthetic={max_epoch: 2, init_lr: 1.0e-3}")
    assert pipeline("train", *choice("synthetic_then_real", *more)) == 0, pipeline.messages
    assert phases_of(pipeline) == ["warm-up", "warm-up-matching", "synthetic", "supervised"]
    lines = (pipeline.config.run_directory / "metrics.jsonl").read_text("utf-8").splitlines()
    epochs = [event for event in map(json.loads, lines) if event["event"] == "epoch"]
    assert [(event["phase"], event["epoch"]) for event in epochs[2:]] == [
        ("synthetic", 0),
        ("synthetic", 1),
        ("supervised", 0),
    ]
    steps = [event["total_step"] for event in epochs[2:]]
    assert steps[2] > steps[1] == 2 * steps[0]

    start = pipeline.config.run_directory / "synthetic.pth"
    first = trained(pipeline)
    weights = (f"model.pretrained={start}", f"model.tokenizer={start}", "train.supervision=labels")
    assert pipeline("train", "--set", *weights, "run=given") == 0, pipeline.messages
    assert equal(checkpoints.load(pipeline.config.run_directory.with_name("given") / "best.pth"), first)


@pytest.mark.parametrize("supervision", ["labels", "pairs", "pseudo"])
def test_both_at_once(pipeline, choice, supervision):
    settings = choice("mixed", f"train.supervision={supervision}")
    for stage in STAGES[:4] if supervision == "pseudo" else STAGES[3:4]:
        assert pipeline(stage, *settings) == 0, pipeline.messages
    assert phases_of(pipeline)[-1] == ("supervised" if supervision == "labels" else "round-0")
    assert trained(pipeline)["meta"]["trained_on"] == "mini + people (synthetic)"


def test_done_again_on_synthetic_images_it_knows_no_word_of_the_real_ones(pipeline, choice):
    """A vocabulary that stayed in the run's folder would be one of real captions."""
    words = []
    for force, run in (((), "first"), (("--force",), "mini-pspd")):
        if force:
            assert pipeline("train", "--set", "train.supervision=labels") == 0, pipeline.messages
            real = trained(pipeline)["vocabulary"]
        assert pipeline("train", *force, *choice("synthetic", f"run={run}")) == 0, pipeline.messages
        words.append(
            checkpoints.load(pipeline.config.run_directory.with_name(run) / "best.pth")["vocabulary"]
        )
    assert words[0] == words[1] != real
