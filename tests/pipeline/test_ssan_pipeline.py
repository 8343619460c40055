"""SSAN through all stages, on real captions and identities and on generated captions and pseudo labels."""

from __future__ import annotations

import json

import pytest

from tests.pipeline.mini import STAGES

pytestmark = pytest.mark.integration
RANKING = {"ranking_global", "ranking_local", "ranking_relation"}
IDENTITY = {"identity_global", "identity_local", "identity_relation"}


@pytest.mark.parametrize("supervision", ["labels", "pseudo"])
def test_ssan_trains_and_is_evaluated(supervision, pipeline):
    choice = (
        "--set",
        "model.method=ssan",
        f"train.supervision={supervision}",
        "run=ssan",
        "model.image_size=[96,48]",
    )
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, (stage, pipeline.messages[-1:])
    folder = pipeline.config.run_directory.parent / "ssan"
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["itm"] is None
    assert 0 < results["itc"]["mINP"] <= 100
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [set(event["losses"]) for event in events if event["event"] == "epoch"] == [
        RANKING,
        RANKING | IDENTITY,
    ]
    assert any(event["event"] == "clusters" for event in events) == (supervision == "pseudo")
    # Stage B's captioner learnt from a warm-up on its own backbone, not from SSAN's.
    captioner = pipeline.config.captioner_directory
    assert (captioner / "warm_up.pth").exists() == (supervision == "pseudo")
    assert (captioner / "warm_up-resnet_lstm.pth").exists() == (supervision == "pseudo")


def test_what_only_blip_has_is_refused_before_anything_starts(pipeline):
    assert pipeline("gen_pre_train_text", "--set", "model.method=ssan", "model.vit_grad_ckpt=true") == 1
    assert pipeline.said("no option vit_grad_ckpt")
    assert not pipeline.config.caption_directory.exists()
