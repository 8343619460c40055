"""A dual encoder without matching through all stages, on real and on generated captions."""

from __future__ import annotations

import json

import pytest
import torch

from engine import checkpoints
from tests.pipeline.mini import STAGES

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("supervision", ["labels", "pseudo"])
def test_irra_trains_and_is_evaluated(supervision, pipeline):
    choice = ("--set", "model.method=irra", f"train.supervision={supervision}", f"run=irra-{supervision}")
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, (stage, pipeline.messages[-1:])
    folder = pipeline.config.run_directory.parent / f"irra-{supervision}"
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["itm"] is None
    assert 0 <= results["itc"]["r1"] <= 100
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    epochs = [event["losses"] for event in events if event["event"] == "epoch"]
    assert [set(losses) for losses in epochs] == [{"sdm", "mlm"}, {"sdm", "identity", "mlm"}]
    assert any(event["event"] == "clusters" for event in events) == (supervision == "pseudo")
    model, _ = checkpoints.load_retrieval_model(folder / "best.pth")
    again, _ = checkpoints.load_retrieval_model(folder / "best.pth")
    captions = ["a man in a red shirt", "a woman in a blue dress"]
    with torch.no_grad():
        assert model.encode_texts(captions)[1].equal(again.encode_texts(captions)[1])
