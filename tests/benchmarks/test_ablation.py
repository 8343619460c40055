"""The ablation's runs, its scheduling and its table; the whole of it on a few drawn people."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import ablation, scheduler, study, study_rows
from data.errors import UserError
from engine.marks import Mark
from tests.pipeline.mini import ROOT, make_pipeline

DEMO = ROOT / "configs" / "demo.yaml"


def runs_of(names, seeds=(0,), settings=(), threads=1) -> dict[str, study.Run]:
    runs = study.planned_runs(DEMO, list(names), list(seeds), list(settings), threads, ablation.VARIANTS)
    return {run.label: run for run in runs}


def test_every_variant_is_a_configuration_of_its_own():
    runs = runs_of(ablation.VARIANTS, (0, 2))
    assert len(runs) == 2 * (len(ablation.VARIANTS) + 1)
    trained = [run.config for run in runs.values() if run.name != study.CAPTIONS]
    assert len({str(config.run_directory) for config in trained}) == len(trained)
    assert {config.runtime.threads for config in trained} == {1}
    plain = runs["pspd-seed0"].config
    assert not runs["no-correction-seed0"].config.correction.enabled
    assert runs["no-local-seed0"].config.model.options == {"local_weight": 0}
    assert runs["base-captions-seed0"].config.train.captions == ["base", "base"]
    assert runs["warm-up-seed0"].config.train.rounds == 0
    epochs = plain.train.rounds * plain.train.max_epoch
    labels = runs["labels-seed0"].config
    assert (labels.train.supervision, labels.train.max_epoch) == ("labels", epochs)
    assert runs["tsn-seed0"].config.model.method == "tsn"
    assert runs["cada-seed0"].config.model.method == "cada"


def test_variants_of_a_seed_share_its_captions_and_wait_for_them():
    runs = runs_of(["pspd", "tsn", "cada"], (0, 1))
    for seed in (0, 1):
        captions = runs[f"captions-seed{seed}"]
        assert captions.config.caption_directory == runs[f"pspd-seed{seed}"].config.caption_directory
        assert captions.config.captioner_directory == runs[f"tsn-seed{seed}"].config.captioner_directory
        assert runs[f"pspd-seed{seed}"].needs == runs[f"tsn-seed{seed}"].needs == (captions.label,)
        assert runs[f"cada-seed{seed}"].needs == ()
    assert list(runs_of(["cada", "labels"])) == ["cada-seed0", "labels-seed0"]


def test_every_run_records_what_choosing_on_test_would_report_and_may_be_told_not_to():
    assert all(run.config.test.also_select_on_test for run in runs_of(ablation.VARIANTS).values())
    runs = runs_of(["pspd"], settings=["test.also_select_on_test=false"])
    assert not runs["pspd-seed0"].config.test.also_select_on_test


def test_a_row_has_what_choosing_on_test_would_report_under_a_name_of_its_own(tmp_path):
    run = runs_of(["pspd"], settings=[f"output={tmp_path}"])["pspd-seed0"]
    run.directory.mkdir()
    usage = {"seconds": 60, "cpu_seconds": 30, "peak_mib": 9.0}
    (run.directory / scheduler.USAGE).write_text(json.dumps(usage), "utf-8")
    scores = dict.fromkeys(("r1", "r5", "r10", "mAP", "mINP"), 20.0)
    told = {"method": "pspd", "split": "test", "protocol": "plain", "selected_on": "val"}
    content = {**told, "itc": scores, "itm": scores}
    best = {"phase": "round-1", "epoch": 1, "itc": scores, "itm": {**scores, "r1": 21.5}}
    for extra, expected in (({}, None), ({"if_selected_on_test": best}, 21.5)):
        results = {**content, **extra}
        (run.config.run_directory / "results.json").write_text(json.dumps(results), "utf-8")
        (row,) = study_rows.rows_of(run)
        assert row["itm_r1"] == 20.0
        assert row.get("if_selected_on_test_itm_r1") == expected
        assert set(row) <= set(study_rows.COLUMNS)


def test_rows_of_runs_that_are_not_here_stay(tmp_path):
    """Of another machine, say: by variant and seed, in the study's order, whichever of a run's protocols were there."""
    old = [row("tsn", 1, 1.0), row("pspd", 0, 1.0), row("pspd", 0, 1.0, "msm"), row("pspd", 1, 2.0)]
    path = tmp_path / "ablation-demo-cpu-2.15.0.csv"
    assert study_rows.read_csv(path) == []
    study_rows.write_csv(path, old)
    rows = study_rows.merged(
        study_rows.read_csv(path), [row("pspd", 0, 9.0), row("tsn", 0, 8.0)], ["pspd", "tsn"]
    )
    assert [(r["variant"], r["seed"], r["itc_r1"]) for r in rows] == [
        ("pspd", 0, 9.0),
        ("tsn", 0, 8.0),
        ("pspd", 1, 2.0),
        ("tsn", 1, 1.0),
    ]


def test_released_settings_are_read_after_the_demos_as_train_bash_does(tmp_path):
    variants = {"released-tsn": study.Variant("TSN", method="tsn", released=True)}
    runs = study.planned_runs(DEMO, list(variants), [3], [], 1, variants)
    captions, run = runs
    names = [path.relative_to(ROOT / "configs").as_posix() for path in run.files]
    assert names == [
        "methods/tsn.yaml",
        "demo.yaml",
        "demo/tsn.yaml",
        "released/tsn.yaml",
        "demo/released.yaml",
    ]
    assert run.needs == (captions.label,)
    assert captions.makes_captions
    assert captions.config.gen_text.top_k == 50
    assert captions.config.caption_directory == run.config.caption_directory
    plain = runs_of(["tsn"], (3,))["tsn-seed3"].config
    assert plain.caption_directory != run.config.caption_directory


def test_a_run_that_reads_another_ones_model_is_planned_with_it():
    variants = {
        "first": study.Variant("first", captions=False),
        "second": study.Variant("second", captions=False, after="first"),
    }
    runs = study.planned_runs(DEMO, ["second"], [0, 1], [], 1, variants)
    assert [run.label for run in runs] == ["first-seed0", "second-seed0", "first-seed1", "second-seed1"]
    assert [run.needs for run in runs] == [(), ("first-seed0",), (), ("first-seed1",)]


def test_a_run_finished_with_other_settings_is_refused(tmp_path):
    run = runs_of(["pspd"], settings=[f"output={tmp_path}"])["pspd-seed0"]
    assert not run.finished()
    other = run.config.model_copy(deep=True)
    other.train.rounds = 9
    Mark.of("train", other).set()
    with pytest.raises(UserError, match=r"train.rounds 9 -> \d.*--force"):
        run.finished()


def test_captions_without_their_warm_up_are_refused(tmp_path):
    places = [f"output={tmp_path}/output", f"pre_gen_data={tmp_path}/captions"]
    run = runs_of(["pspd"], settings=places)["captions-seed0"]
    assert not run.finished()
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "captions.json").write_text("[]", "utf-8")
    with pytest.raises(UserError, match=r"its warm-up .* is not"):
        run.finished()


def row(variant, seed, r1, protocol="plain"):
    return {
        "variant": variant,
        "seed": seed,
        "protocol": protocol,
        "itc_r1": r1,
        "itm_r1": r1 + 1,
        "itm_mAP": 20.0,
        "minutes": 3.0 + seed,
        "peak_mib": 900.4 + seed,
    }


def test_the_table_has_mean_and_spread_and_keeps_protocols_apart():
    rows = [row("tsn", 0, 10.0), row("tsn", 1, 14.0), row("tsn", 0, 50.0, "msm")]
    rows.append({"variant": "captions", "seed": 0, "minutes": 1.0, "peak_mib": 800.0})
    lines = study_rows.table(rows, ablation.VARIANTS).splitlines()[2:]
    assert len(lines) == 3
    assert "| 12.00 ± 2.83 (10.00 to 14.00) | 13.00 ± 2.83 (11.00 to 15.00) | 20.00 ± 0.00" in lines[0]
    assert lines[0].endswith("| 3.5 | 901 |")
    assert "| msm | 0 | 50.00 | 51.00 |" in lines[1]
    assert "captions" in lines[2]


class Script:
    """Stands in for an entry script's folder: stages that write what they did, and one that fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        body = (
            "import sys, time, pathlib\n"
            "name = pathlib.Path(sys.argv[0]).stem\n"
            "run = next(a for a in sys.argv if a.startswith('run='))[4:]\n"
            "log = pathlib.Path(__file__).with_name('log')\n"
            "log.open('a').write(f'start {run} {name}\\n'); time.sleep(0.2)\n"
            # Two that belong side by side wait for each other, however busy the machine is.
            "pair = ['start first one', 'start third one'] if name == 'one' and run in ('first', 'third') else []\n"
            "end = time.monotonic() + 120\n"
            "while time.monotonic() < end and not all(line in log.read_text() for line in pair): time.sleep(0.02)\n"
            "log.open('a').write(f'end {run} {name}\\n'); sys.exit('bad' in run)\n"
        )
        for name in ("one", "two"):
            (folder / f"{name}.py").write_text(body, "utf-8")

    def run(self, name: str, stages: list[str], *needs: str) -> study.Run:
        settings = [f"output={self.folder}/output", f"run={name}"]
        return study.Run(name, 0, [DEMO], settings, stages, needs)

    def log(self) -> list[str]:
        return (self.folder / "log").read_text("utf-8").splitlines()


@pytest.fixture
def script(tmp_path, monkeypatch) -> Script:
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(scheduler, "ROOT", tmp_path)
    return Script(tmp_path)


def test_stages_run_in_order_some_runs_at_a_time_and_wait_for_what_they_need(script):
    runs = [
        script.run("first", ["one", "two"]),
        script.run("second", ["two"], "first-seed0"),
        script.run("third", ["one"]),
    ]
    assert scheduler.Scheduler(runs, 2, 1, force=False).work() == set()
    log = script.log()
    assert log.index("end first one") < log.index("start first two")
    assert log.index("end first two") < log.index("start second two")
    assert max(log.index("start first one"), log.index("start third one")) < min(
        log.index("end first one"), log.index("end third one")
    )  # side by side
    usage = [
        json.loads(line) for line in (runs[0].directory / scheduler.USAGE).read_text("utf-8").splitlines()
    ]
    assert [record["stage"] for record in usage] == ["one", "two"]
    assert all(record["seconds"] >= 0.2 and record["peak_mib"] > 3 for record in usage)


def test_a_failure_ends_its_run_and_those_that_need_it_only(script, capsys):
    runs = [
        script.run("bad", ["one", "two"]),
        script.run("needy", ["one"], "bad-seed0"),
        script.run("good", ["one"]),
    ]
    assert scheduler.Scheduler(runs, 1, 1, force=False).work() == {"bad-seed0", "needy-seed0"}
    assert script.log() == ["start bad one", "end bad one", "start good one", "end good one"]
    assert "one ended with 1" in capsys.readouterr().err


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


@pytest.mark.slow
def test_the_whole_ablation_in_miniature(tmp_path):
    path = make_pipeline(tmp_path, []).path
    command = [sys.executable, "-m", "benchmarks.ablation", "--config", str(path), "--results", str(tmp_path)]
    command += ["--seeds", "0", "--jobs", "2", "--variants", "pspd", "warm-up", "labels"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    interrupted = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: list((tmp_path / "output").glob("ablation-*/*")), 60)  # a run has begun
    interrupted.send_signal(signal.SIGTERM)
    assert interrupted.wait(timeout=60) == 130

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    table = next(tmp_path.glob("ablation-mini-*.csv"))
    with table.open(encoding="utf-8") as stream:
        rows = {row["variant"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"captions", "pspd", "warm-up", "labels"}
    results = json.loads(
        (tmp_path / "output" / "ablation-mini-pspd-seed0" / "results.json").read_text("utf-8")
    )
    assert float(rows["pspd"]["itm_mAP"]) == results["itm"]["mAP"]
    assert all(float(row["peak_mib"]) > 100 and float(row["minutes"]) > 0 for row in rows.values())
    assert "PSPD (`pspd`)" in done.stdout

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "4 runs are finished, 0 to do." in again.stdout
