"""The three demo sets: what is trained and evaluated where, when an evaluation is done again, and the whole in miniature."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from benchmarks import adaptation, pages, study
from benchmarks.cross_sets import STUDY, VARIANTS, crossings
from data import DATASETS
from tests.pipeline.mini import ROOT, make_pipeline


def trained(settings=(), seeds=(0,)) -> list[study.Run]:
    return study.planned_runs(STUDY.target, list(VARIANTS), list(seeds), list(settings), 1, VARIANTS)


def test_three_sets_in_three_formats_from_three_seeds_of_the_renderer():
    sets = [run.config.dataset for run in trained()]
    assert [one.name for one in sets] == ["cuhk_pedes", "icfg_pedes", "rstpreid"]
    assert [one.synthesis.seed for one in sets] == [0, 1, 2]
    assert len({one.root for one in sets}) == len({one.label for one in sets}) == 3
    assert len({one.synthesis.model_copy(update={"seed": 0}).model_dump_json() for one in sets}) == 1
    assert set(DATASETS) >= {one.name for one in sets}


def test_the_first_one_is_the_run_of_the_study_of_the_rounds():
    run, *_ = trained()
    (known,) = study.planned_runs(STUDY.target, ["labels"], [0], [], 1, adaptation.VARIANTS)
    assert (run.label, run.config) == (known.label, known.config)


def test_every_model_is_evaluated_on_every_other_set_of_its_seed():
    runs = trained(["output=out"], (0, 1))
    by_label = {run.label: run for run in runs}
    found = crossings(runs)
    assert len(found) == 2 * 6
    assert len({str(run.config.run_directory) for run in [*runs, *found]}) == 6 + 12
    for run in found:
        source, target = (by_label[label] for label in run.needs)
        assert source.seed == target.seed == run.seed
        assert run.config.dataset == target.config.dataset
        assert run.config.model.method == source.config.model.method
        assert run.checkpoint == source.config.run_directory / "best.pth"
        command = run.command("test")
        assert command[-2:] == ["--checkpoint", str(run.checkpoint)]
        assert command[1].endswith("test.py")


def test_a_model_that_was_trained_again_is_evaluated_again(tmp_path):
    run = crossings(trained([f"output={tmp_path}"]))[0]
    assert not run.finished()
    results = run.config.run_directory / "results.json"
    for path in (results, run.checkpoint):
        path.parent.mkdir()
        path.write_text("{}", "utf-8")
    os.utime(run.checkpoint, (1000, 1000))
    assert run.finished()
    os.utime(results, (900, 900))
    assert not run.finished()
    run.checkpoint.unlink()
    assert not run.finished()


def test_the_page_has_the_matrix_of_the_table(tmp_path):
    lines = ["method,trained_on,dataset,ranking,r1,mAP,mINP,selected_on,queries,gallery"]
    for dataset, r1 in (("target", 40.0), ("target-icfg", 30.0)):
        lines += [f"pspd,target,{dataset},features alone,{r1},20.0,10.0,val,8,4"]
        lines += [f"pspd,target,{dataset},with ITM re-ranking,{r1 + 1},21.0,11.0,val,8,4"]
    assert pages.matrix_table(tmp_path) == "To be measured."
    (tmp_path / "cross_sets-target-cpu-2.15.0.csv").write_text("\n".join(lines) + "\n", "utf-8")
    features, reranked = pages.matrix_table(tmp_path).split("With ITM re-ranking")
    assert "| pspd, target | 40.00 / 20.00 / 10.00 | 30.00 / 20.00 / 10.00 |" in features
    assert "| pspd, target | 41.00 / 21.00 / 11.00 | 31.00 / 21.00 / 11.00 |" in reranked


@pytest.mark.slow
def test_the_matrix_in_miniature(tmp_path):
    path = make_pipeline(tmp_path, []).path
    command = [sys.executable, "-m", f"benchmarks.{STUDY.name}", "--config", str(path)]
    command += ["--results", str(tmp_path), "--picture", str(tmp_path / "there.png")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    with next(tmp_path.glob("cross_sets-mini-*.csv")).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = {"mini", "mini-icfg", "mini-rstp"}
    features = {
        (row["trained_on"], row["dataset"]): row for row in rows if row["ranking"] == "features alone"
    }
    assert features.keys() == {(source, target) for source in names for target in names}
    assert len(rows) == 18
    assert {row["selected_on"] for (source, _), row in features.items() if source == "mini-icfg"} == {"last"}
    one = tmp_path / "output" / "ablation-mini-labels-icfg-on-labels-rstp-seed0" / "results.json"
    assert json.loads(one.read_text("utf-8"))["itc"]["r1"] == float(features["mini-icfg", "mini-rstp"]["r1"])
    assert {path.name for path in (tmp_path / "output" / "matrix-mini").iterdir()} >= {
        "matrix.md",
        "matrix.png",
    }
    assert (tmp_path / "there.png").stat().st_size > 1000
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert "9 runs are finished, 0 to do." in again.stdout, again.stderr
