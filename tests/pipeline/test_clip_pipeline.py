"""A dual encoder without matching through all stages, on real and on generated captions."""

from __future__ import annotations

import json

import pytest
import torch

from engine import checkpoints
from tests.pipeline.mini import STAGES

pytestmark = pytest.mark.integration


LOSSES = {  # of the warm-up and of the training
    "irra": [{"itc"}, {"sdm", "identity", "mlm"}],
    "rde": [{"itc"}, {"tal_global", "tal_selected"}],
}
WEIGHTS = {"irra": "none", "rde": "consensus"}


@pytest.mark.parametrize("supervision", ["labels", "pseudo"])
@pytest.mark.parametrize("method", LOSSES)
def test_a_method_trains_and_is_evaluated(method, supervision, pipeline):
    choice = ["--set", f"model.method={method}", f"train.pair_weights={WEIGHTS[method]}"]
    choice += [f"train.supervision={supervision}", f"run={method}-{supervision}"]
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, (stage, pipeline.messages[-1:])
    folder = pipeline.config.run_directory.parent / f"{method}-{supervision}"
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["itm"] is None
    assert 0 <= results["itc"]["r1"] <= 100
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    epochs = [event["losses"] for event in events if event["event"] == "epoch"]
    assert [set(losses) for losses in epochs] == LOSSES[method]
    assert any(event["event"] == "pair_weights" for event in events) == (method == "rde")
    assert any(event["event"] == "clusters" for event in events) == (supervision == "pseudo")
    model, _ = checkpoints.load_retrieval_model(folder / "best.pth")
    again, _ = checkpoints.load_retrieval_model(folder / "best.pth")
    captions = ["a man in a red shirt", "a woman in a blue dress"]
    with torch.no_grad():
        assert model.encode_texts(captions)[1].equal(again.encode_texts(captions)[1])


SOFT = {"syntbpr": {"n_itc", "r_itc"}, "tbps_clip": {"n_itc", "r_itc", "c_itc", "ss_i"}}


def test_methods_with_soft_targets_train_on_generated_captions_that_are_weighed(pipeline):
    """By the pool's augmentation and step by step, in PSPD's round; both on the same captions and warm-up."""
    settings = (
        "train.supervision=pseudo",
        "train.pair_weights=mixture",
        "train.augmentation=pool",
        "train.schedule=step",
        "train.lr_warmup_epochs=0.5",
        "train.lr_warmup_start=0.1",
        "train.min_lr=1e-6",
    )
    for method, losses in SOFT.items():
        choice = ("--set", f"model.method={method}", *settings)
        for stage in STAGES:  # those that are finished are skipped
            assert pipeline(stage, *choice) == 0, (method, stage, pipeline.messages[-1:])
        folder = pipeline.config.run_directory.parent / f"mini-{method}"
        results = json.loads((folder / "results.json").read_text("utf-8"))
        assert results["itm"] is None
        assert 0 <= results["itc"]["r1"] <= 100
        events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        rounds = [event for event in events if event.get("phase") == "round-0"]
        assert [set(event["losses"]) for event in rounds if event["event"] == "epoch"] == [losses]
        (weights,) = (event for event in rounds if event["event"] == "pair_weights")
        assert 0 < weights["mean"] <= 1
        model, _ = checkpoints.load_retrieval_model(folder / "best.pth")
        assert model.logit_scale().item() != pytest.approx(1 / 0.07, rel=1e-6)
