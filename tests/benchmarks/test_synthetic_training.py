"""The comparison of training sources: what its runs read, and the whole of it on a few drawn people."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

from benchmarks import study, synthetic_training
from data import load_dataset
from data.errors import UserError
from engine.config import load_config
from tests.pipeline.mini import ROOT, make_pipeline
from tests.synthetic_set import write_synthetic_set

DEMO = ROOT / "configs" / "demo.yaml"


def runs_of(names, settings=()) -> dict[str, study.Run]:
    variants = synthetic_training.VARIANTS
    runs = study.planned_runs(DEMO, list(names), [0, 2], list(settings), 1, variants)
    return {run.label: run for run in runs}


def test_runs_read_what_their_titles_say():
    runs = runs_of(synthetic_training.VARIANTS, ["output=out"])
    trained = {label: run.config for label, run in runs.items() if run.name != study.CAPTIONS}
    assert len({str(config.run_directory) for config in trained.values()}) == len(trained)
    plain = runs["pspd-seed0"].config
    assert plain.gen_images is None
    assert runs["syntbpr-seed0"].config.train.data == "real"
    weighted = {name for name, config in trained.items() if config.train.pair_weights == "mixture"}
    assert weighted == {f"{name}-seed{seed}" for name in ("weighted", "swapped-20-weighted", "swapped-50-weighted") for seed in (0, 2)}  # fmt: skip
    swapped = runs["swapped-20-weighted-seed2"].config
    assert swapped.gen_images.root == "out/synthetic-sets/swapped-20-seed2"
    assert (swapped.model.method, swapped.train.data) == ("syntbpr", "synthetic")
    started = runs["pspd-from-synthetic-seed2"]
    assert started.needs == ("captions-seed2",)
    assert started.config.train.data == "synthetic_then_real"
    assert started.config.train.synthetic.max_epoch == plain.train.rounds * plain.train.max_epoch
    assert started.config.train.max_epoch == plain.train.max_epoch
    assert started.config.caption_directory == runs["pspd-seed2"].config.caption_directory
    assert runs["pspd-on-synthetic-seed0"].needs == ()


def test_the_sets_are_written_before_anything_runs(tmp_path):
    root = write_synthetic_set(tmp_path / "people")
    config = load_config(DEMO, [f"output={tmp_path}/out", f"gen_images.root={root}"])
    synthetic_training.prepare(config, [0, 2])
    names = {run.config.gen_images.root for run in runs_of(synthetic_training.VARIANTS, [f"output={tmp_path}/out"]).values() if run.config.gen_images}  # fmt: skip
    sizes = {name: len(load_dataset("synthetic", name).train) for name in names}
    assert set(sizes.values()) == {12}
    assert len(sizes) == 2 + 2 * 2
    config.gen_images = {"root": f"{tmp_path}/absent"}
    with pytest.raises(UserError, match=r"gen_images\.py"):
        synthetic_training.prepare(config, [0])


@pytest.mark.slow
def test_the_comparison_in_miniature(tmp_path):
    path = make_pipeline(tmp_path, []).path
    people = write_synthetic_set(tmp_path / "people")
    command = [sys.executable, "-m", "benchmarks.synthetic_training", "--config", str(path)]
    command += ["--results", str(tmp_path), "--seeds", "0", "--set", f"gen_images.root={people}"]
    names = ["synthetic", "swapped-50"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "train.max_epoch=1", "--variants", *names],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "SynTBPR, synthetic images alone (`synthetic`)" in done.stdout
    with next(tmp_path.glob("synthetic_training-mini-*.csv")).open(encoding="utf-8") as stream:
        rows = {row["variant"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {*names}
    assert rows["synthetic"]["itc_r1"] != rows["swapped-50"]["itc_r1"] or rows["synthetic"]["itc_mAP"] != rows["swapped-50"]["itc_mAP"]  # fmt: skip
