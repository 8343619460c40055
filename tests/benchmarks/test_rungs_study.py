"""The comparison of the rungs: what each run may read, its budget in steps, and two of them on a few drawn people."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from benchmarks import ablation
from benchmarks.rungs import METHODS, RUNGS, VARIANTS
from engine.building import check_model, supervision
from tests.pipeline.mini import ROOT, make_pipeline

DEMO = ROOT / "configs" / "demo.yaml"


def runs_of(names=tuple(VARIANTS), settings=()) -> dict[str, ablation.Run]:
    runs = ablation.planned_runs(DEMO, list(names), [2], list(settings), 1, VARIANTS)
    return {run.name: run for run in runs}


def test_every_method_has_every_rung_once():
    named = [name for names in METHODS.values() for name in names if name]
    assert len(named) == len(set(named))
    assert set(named) == set(VARIANTS) - {"irra-source"}
    assert all(len(names) == len(RUNGS) for names in METHODS.values())
    kinds = {"PSPD's losses": "pspd", "IRRA": "irra", "SSAN": "ssan"}
    assert all(
        VARIANTS[name].method == kinds[method] for method in METHODS for name in METHODS[method] if name
    )


def test_a_rung_is_what_its_runs_read():
    runs = runs_of()
    for names in METHODS.values():
        for rung, name in zip(RUNGS, names, strict=True):
            if not name:
                continue
            config = runs[name].config
            check_model(config)
            assert supervision(config) == rung.removesuffix("-clusters")
            assert bool(runs[name].needs) == (rung == "pseudo" or name == "irra-zero-shot")
            if rung.startswith("pairs"):
                assert config.cluster.enabled == rung.endswith("-clusters")


def test_all_rungs_of_a_method_have_the_same_budget_in_steps():
    runs = runs_of()

    def epochs(name: str) -> int:
        settings = runs[name].config.train
        warm_up = settings.warm_up.max_epoch
        if warm_up and VARIANTS[name].method == "pspd":
            warm_up += settings.warm_up.matching_epochs
        rounds = (
            settings.rounds if name in ("pspd", "irra-pseudo", "ssan-pseudo") or "clusters" in name else 1
        )
        return warm_up + rounds * settings.max_epoch

    for names in METHODS.values():
        assert len({epochs(name) for name in names[1:]}) == 1


def test_the_zero_shot_of_irra_is_its_model_of_the_source_world():
    runs = runs_of(["irra-zero-shot"], ["output=out", "dataset.root=here"])
    source, run = runs["irra-source"], runs["irra-zero-shot"]
    assert run.needs == (source.label,)
    assert run.config.model.pretrained == str(source.config.run_directory / "best.pth")
    assert source.config.dataset.synthesis.world == "source"
    assert source.config.dataset.root != run.config.dataset.root == "here"
    assert source.config.dataset.label != run.config.dataset.label


@pytest.mark.slow
def test_the_rungs_in_miniature(tmp_path):
    path = make_pipeline(tmp_path, []).path
    command = [sys.executable, "-m", "benchmarks.rungs", "--config", str(path), "--results", str(tmp_path)]
    command += ["--seeds", "0", "--variants", "irra-zero-shot", "pairs"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with next(tmp_path.glob("rungs-mini-*.csv")).open(encoding="utf-8") as stream:
        rows = {row["variant"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"irra-source", "irra-zero-shot", "pairs"}
    assert rows["irra-source"]["if_selected_on_test_itc_r1"] != ""
    results = tmp_path / "output" / "ablation-mini-irra-zero-shot-seed0" / "results.json"
    assert json.loads(results.read_text("utf-8"))["trained_on"] == "nothing here"
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert "3 runs are finished, 0 to do." in again.stdout, again.stderr
