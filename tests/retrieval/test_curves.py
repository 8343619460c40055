from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from retrieval.curves import History, training_curves

METRICS = {"r1": 30.0, "r5": 50.0, "r10": 60.0, "mAP": 20.0, "mINP": 10.0}


def step(epoch, number, **values):
    return {
        "event": "step",
        "round": 0,
        "epoch": epoch,
        "step": number,
        "losses": {"ndf": 2.0, "itm": 0.5},
        **values,
    }


def epoch(number, **values):
    return {
        "event": "epoch",
        "round": 0,
        "epoch": number,
        "losses": {"ndf": 2.0, "itm": 0.5},
        "val": None,
        **values,
    }


def write(path, events, tail=""):
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + tail)
    return path


def test_steps_and_epochs_share_an_axis_in_epochs(tmp_path):
    events = [
        step(0, 10),
        step(0, 20),
        epoch(0),
        step(0, 5, round=1),
        epoch(0, round=1),
        step(1, 2, round=1),
        step(1, 4, round=1),
    ]
    history = History.read(write(tmp_path / "m.jsonl", events, tail='{"event": "ste'))
    assert [event["x"] for event in history.steps] == [0.5, 1.0, 2.0, 2.5, 3.0]
    assert [event["x"] for event in history.epochs] == [1.0, 2.0]
    assert history.phases == [(0.0, "round 0"), (1.0, "round 1")]


def test_phases_are_named_by_the_run(tmp_path):
    events = [epoch(0, phase="warm-up"), epoch(1, phase="warm-up"), epoch(0, phase="round 1")]
    history = History.read(write(tmp_path / "m.jsonl", events))
    assert history.phases == [(0.0, "warm-up"), (2.0, "round 1")]


LABELS = {"event": "clusters", "round": 0, "clusters": 90, "noise": 0.2}
AGREEMENT = {
    "before": {"nmi": 0.7, "ari": 0.4, "clusters": 99},
    "after": {"nmi": 0.8, "ari": 0.5, "clusters": 90},
}
RUNS = {
    "everything": [LABELS | AGREEMENT, step(0, 1), epoch(0, val={"itc": METRICS, "itm": METRICS}), epoch(1)],
    "without identities": [LABELS, {**LABELS, "round": 1}, step(0, 1), epoch(0)],
    "without reranking": [epoch(0, val={"itc": METRICS, "itm": None})],
    "interrupted in the first epoch": [step(0, 1), step(0, 2)],
    "clusters only": [LABELS | AGREEMENT],
    "a loss that comes later": [epoch(0), epoch(1, losses={"ndf": 1.0, "itm": 0.3, "local": 0.2})],
}


@pytest.mark.parametrize("name", RUNS)
def test_draws_what_there_is(name, tmp_path):
    training_curves(write(tmp_path / "m.jsonl", RUNS[name]), tmp_path / "out" / "curves.png")
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        training_curves(write(tmp_path / "m.jsonl", [{"event": "start"}]), tmp_path / "curves.png")
