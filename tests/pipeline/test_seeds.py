"""bash train.bash --seeds and bash eval.bash --seeds on a few drawn people."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.pipeline.mini import ROOT, make_pipeline

pytestmark = pytest.mark.slow


def test_several_seeds_by_one_command(tmp_path, messages):
    path = make_pipeline(tmp_path, messages).path

    def bash(script: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(ROOT / script), str(path), *arguments],
            env={**os.environ, "NPROC": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    one_folder = bash("train.bash", "--seeds", "0", "1")
    assert one_folder.returncode == 1
    assert "put {seed} into the setting 'run'" in one_folder.stderr
    for script, arguments, words in (
        ("train.bash", ("--seeds",), "--seeds needs numbers"),
        ("eval.bash", ("--seeds", "0", "--checkpoint", "x.pth"), "leave out --seeds"),
    ):
        wrong = bash(script, *arguments)
        assert wrong.returncode == 2
        assert words in wrong.stderr

    choice = ("--set", "run=mini-seed{seed}", "test.rank_lists=0")
    done = bash("train.bash", "--seeds", "0", "1", *choice)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "output" / "mini-seeds.json").read_text("utf-8"))
    runs = [tmp_path / "output" / f"mini-seed{seed}" / "results.json" for seed in (0, 1)]
    values = [json.loads(run.read_text("utf-8"))["itm"]["mAP"] for run in runs]
    assert summary["itm"]["mAP"]["values"] == values
    assert summary["itm"]["mAP"]["mean"] == pytest.approx(sum(values) / 2, abs=1e-4)
    assert summary["selected_on"] == "val"
    assert "standard deviation" in done.stdout
    before = [run.stat().st_mtime_ns for run in runs]

    again = bash("train.bash", "--seeds", "0", "1", *choice)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is finished") == 2
    assert [run.stat().st_mtime_ns for run in runs] == before
    assert again.stdout == done.stdout[done.stdout.index("mini, pspd, 2 seeds") :]

    other = bash("eval.bash", "--seeds", "0", "1", *choice, "test.k_test=2")
    assert other.returncode == 0, other.stderr
    assert [run.stat().st_mtime_ns for run in runs] != before
