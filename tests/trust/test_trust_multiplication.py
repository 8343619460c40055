"""What can be relied on holds by whichever library products are computed, and in bf16; and a resumed run keeps to its library."""

from __future__ import annotations

import json
import signal

import pytest

from engine import processor
from models.backbones.linear import has_onednn
from tests.pipeline.mini import STAGES
from tests.trust.tiny_runs import TinyRun, differences

pytestmark = pytest.mark.integration
WAYS = {"torch": "runtime.linear=torch", "onednn": "runtime.linear=onednn", "bf16": "runtime.precision=bf16"}
needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this torch can't be asked for oneDNN")


def killed_in_the_middle(run: TinyRun, stage: str, *arguments: str, **how) -> None:
    """From its start, a stage that is killed before its middle change of a file."""
    record = run.root / "operations"
    run.go_back(f"before {stage}")
    assert run.run(stage, *arguments, watch=str(run.work), operations=str(record), **how) == 0
    middle = len(record.read_text("utf-8").splitlines()) // 2
    run.go_back(f"before {stage}")
    assert run.run(stage, *arguments, watch=str(run.work), kill_before=middle, **how) == -signal.SIGKILL


@needs_onednn
@pytest.mark.parametrize("way", ["torch", pytest.param("onednn", marks=pytest.mark.slow), "bf16"])
def test_a_killed_run_ends_as_an_undisturbed_one(server, tmp_path, way):
    run = TinyRun(tmp_path, server, WAYS[way])
    for stage in STAGES:
        run.keep(f"before {stage}")
        run.finish(stage)
    wanted = run.outcome()
    computed = json.loads((run.work / "output/mini-pspd/results.json").read_text("utf-8"))["computed"]
    assert computed["precision"] == ("bf16" if way == "bf16" else "fp32")
    assert way == "bf16" or computed["linear"] == way
    killed_in_the_middle(run, "train")
    run.finish("train", "test")
    assert not differences(wanted, run.outcome())


@needs_onednn
def test_a_resumed_run_keeps_the_library_that_it_began_with(server, tmp_path):
    """Although by now the other one is found to be the faster."""
    homes = {}
    for name in ("torch", "onednn"):
        homes[name] = {"XDG_CACHE_HOME": str(tmp_path / f"{name} is faster")}
    run = TinyRun(tmp_path / "run", server).finish(*STAGES[:3])
    run.keep("before train")
    # Found out by measuring on this machine; then changed in the other's favour.
    assert run.run("train", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")}) == 0
    measured = json.loads((tmp_path / "cache/pspd/multiplication.json").read_text("utf-8"))
    (key,) = measured
    assert processor.name() in key
    for name, home in homes.items():
        folder = tmp_path / f"{name} is faster" / "pspd"
        folder.mkdir(parents=True)
        content = {key: {"linear": name, "bf16": False, "measured": {}}}
        (folder / "multiplication.json").write_text(json.dumps(content), "utf-8")
        run.go_back("before train")
        assert run.run("train", environment=home) == 0
        run.keep(f"trained by {name}")
    run.go_back("trained by torch")
    wanted = run.outcome()
    run.go_back("trained by onednn")
    assert differences(wanted, run.outcome()), "both libraries give the same bits, so this test shows nothing"
    killed_in_the_middle(run, "train", environment=homes["torch"])
    assert run.run("train", environment=homes["onednn"]) == 0
    assert not differences(wanted, run.outcome())
