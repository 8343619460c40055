"""All five stages and the search with bf16 on a CPU: what a GPU does by default, without a GPU."""

from __future__ import annotations

import json
import math

import pytest
import torch

from engine import checkpoints
from tests.pipeline.mini import STAGES
from tests.serving.commands import run

pytestmark = pytest.mark.integration


def losses_of(folder) -> list[float]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [value for one in records if one["event"] == "step" for value in one["losses"].values()]


def test_every_stage_and_the_search_work_in_bf16_on_a_cpu(pipeline, tmp_path):
    for precision in ("bf16", "fp32"):
        choice = (f"runtime.precision={precision}", f"run={precision}", "train.log_every=1")
        for stage in STAGES if precision == "bf16" else ("train", "test"):
            assert pipeline(stage, "--set", *choice) == 0, pipeline.messages
        folder = tmp_path / "output" / precision
        results = json.loads((folder / "results.json").read_text("utf-8"))
        for scores in (results["itc"], results["itm"]):
            assert all(0 < score <= 100 for score in scores.values())
        weights = checkpoints.load(folder / "best.pth")["model"]
        assert {one.dtype for one in weights.values() if one.is_floating_point()} == {torch.float32}
    narrow, wide = (losses_of(tmp_path / "output" / precision) for precision in ("bf16", "fp32"))
    assert narrow != wide
    assert all(math.isfinite(loss) for loss in narrow)
    assert narrow == pytest.approx(wide, rel=0.1)

    model = ("--checkpoint", tmp_path / "output" / "bf16" / "best.pth", "--precision", "bf16")
    index = tmp_path / "index"
    assert run("index", "--images", tmp_path / "datasets", *model, "--out", index).code == 0
    asked = ("a man in a red shirt", "--index", index, "--rerank", 4, "--top", 4, "--json")
    found = run("query", *asked, "--precision", "bf16")
    hits, exact = found.json()["hits"], run("query", *asked, "--precision", "fp32").json()["hits"]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert scores == pytest.approx([hit["score"] for hit in exact], abs=0.05)
    assert scores != [hit["score"] for hit in exact]
