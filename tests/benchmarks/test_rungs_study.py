"""The comparison of the rungs: what each run may read, its budget in steps, and two of them on a few drawn people."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from benchmarks import adaptation, study
from benchmarks.rungs import METHODS, RUNGS, STUDY, VARIANTS
from engine import warm_up
from engine.building import check_model, supervision
from tests.pipeline.mini import ROOT, make_pipeline


def runs_of(names=tuple(VARIANTS), settings=()) -> dict[str, study.Run]:
    runs = study.planned_runs(STUDY.target, list(names), [2], list(settings), 1, VARIANTS)
    return {run.name: run for run in runs}


def test_every_method_has_every_rung_once():
    named = [name for names in METHODS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) == set(VARIANTS) - {"irra-source"}
    assert all(len(names) == len(RUNGS) for names in METHODS.values())
    kinds = {"PSPD's losses": "pspd", "IRRA": "irra"}
    assert all(VARIANTS[name].method == kinds[method] for method in METHODS for name in METHODS[method])


def test_a_rung_is_what_its_runs_read():
    runs = runs_of()
    for method, names in METHODS.items():
        for rung, name in zip(RUNGS, names, strict=True):
            config = runs[name].config
            check_model(config)
            assert supervision(config) == rung.partition(",")[0]
            source = [runs["irra-source"].label] * (method == "IRRA")
            assert list(runs[name].needs) == [*["captions-seed2"] * (rung == "pseudo"), *source]
            if rung.startswith("pairs"):
                assert config.cluster.enabled == (rung == "pairs")
            assert config.train.frozen == (
                ["text"] if rung in ("zero-shot", "pseudo") and name != "irra-start" else []
            )


def test_all_rungs_of_a_method_have_the_same_start_and_the_same_budget_in_steps():
    runs = runs_of()
    for names in METHODS.values():
        configs = {rung: runs[name].config for rung, name in zip(RUNGS, names, strict=True)}
        assert len({config.model.pretrained for config in configs.values()}) == 1
        assert len({config.model.tokenizer for config in configs.values()}) == 1
        assert not any(warm_up.is_wanted(config) for config in configs.values())
        del configs["zero-shot"]
        epochs = {
            config.train.max_epoch * (config.train.rounds if rung in ("pseudo", "pairs") else 1)
            for rung, config in configs.items()
        }
        assert len(epochs) == 1


def test_runs_that_are_those_of_the_study_of_the_rounds_have_their_names():
    for name in ("start", "pspd", "pairs", "labels"):
        (run,) = [run for run in runs_of([name]).values() if run.name == name]
        planned = study.planned_runs(adaptation.TARGET, [name], [2], [], 1, adaptation.VARIANTS)
        (known,) = [other for other in planned if other.name == name]
        assert (run.label, run.config) == (known.label, known.config)


def test_the_zero_shot_of_irra_is_its_model_of_the_source_world():
    runs = runs_of(["irra-start"], ["output=out", "dataset.root=here"])
    source, run = runs["irra-source"], runs["irra-start"]
    assert run.needs == (source.label,)
    assert run.config.model.pretrained == str(source.config.run_directory / "best.pth")
    assert source.config.dataset.synthesis.world == "source"
    assert source.config.dataset.root != run.config.dataset.root == "here"
    assert source.config.dataset.label != run.config.dataset.label


@pytest.mark.slow
def test_the_rungs_in_miniature(tmp_path):
    path = make_pipeline(tmp_path, []).path
    command = [sys.executable, "-m", "benchmarks.rungs", "--config", str(path), "--results", str(tmp_path)]
    command += ["--seeds", "0", "--variants", "irra-start", "pairs-own-classes"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with next(tmp_path.glob("rungs-mini-*.csv")).open(encoding="utf-8") as stream:
        rows = {row["variant"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"irra-source", "irra-start", "pairs-own-classes"}
    assert rows["irra-source"]["if_selected_on_test_itc_r1"] != ""
    results = tmp_path / "output" / "ablation-mini-irra-start-seed0" / "results.json"
    assert json.loads(results.read_text("utf-8"))["trained_on"] == "nothing here"
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert "3 runs are finished, 0 to do." in again.stdout, again.stderr
