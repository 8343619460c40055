"""Killed, stopped or out of disk at any moment, the same command goes on to what an undisturbed run makes, bit for bit."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import checkpoints
from tests.pipeline.mini import ROOT, STAGES
from tests.synthetic_set import write_synthetic_set
from tests.trust.tiny_runs import ENVIRONMENT, TinyRun, differences

pytestmark = pytest.mark.integration
DEFAULT_KILLS, MANY_KILLS = 2, 12
# What each stage says once it has begun to work.
WORKING = {
    "gen_pre_train_text": "Stage A: captioning",
    "pre_train": "warming up",
    "gen_text": "Stage C: captioning",
    "train": "Round 0: labelling",
    "test": "Evaluating",
}


class Undisturbed:
    """A run to its end, with what there was before and after each stage."""

    def __init__(self, run: TinyRun) -> None:
        self.run = run
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, list[str]] = {}
        self.outcomes: dict[str, dict] = {}
        for stage in STAGES:
            run.keep(f"before {stage}")
            started, record = time.monotonic(), run.root / "operations"
            process = run.start(stage, watch=str(run.work), operations=str(record))
            assert process.wait() == 0, process.said()[-2000:]
            self.seconds[stage] = time.monotonic() - started
            self.operations[stage] = record.read_text("utf-8").splitlines()
            self.outcomes[stage] = run.outcome()

    def goes_on(self, stage: str) -> None:
        """The same command again must end as if nothing had happened."""
        process = self.run.start(stage)
        assert process.wait() == 0, process.said()[-2000:]
        assert not differences(self.outcomes[stage], self.run.outcome())


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory) -> Undisturbed:
    return Undisturbed(TinyRun(tmp_path_factory.mktemp("crashes"), server))


def killed_once(known: Undisturbed, stage: str, rng: np.random.Generator) -> tuple[str, bool]:
    """Start a stage and SIGKILL it: by the clock, or just before it changes a file; says when, and whether it hit."""
    if rng.random() < 0.5:
        delay = float(rng.uniform(0, known.seconds[stage]))
        process = known.run.start(stage)
        time.sleep(delay)
        process.kill()
        moment, code = f"after {delay:.3f} s", process.wait()
    else:
        number = int(rng.integers(len(known.operations[stage])))
        moment = f"before change {number}"
        code = known.run.run(stage, watch=str(known.run.work), kill_before=number)
    assert code in (-signal.SIGKILL, 0), (moment, code)
    return moment, code == -signal.SIGKILL


def kill_and_compare(known: Undisturbed, stage: str, wanted: int) -> None:
    """Trials of up to two kills one after the other until `wanted` have hit, each trial carried on to the end."""
    seed = STAGES.index(stage)
    rng, hits = np.random.default_rng(seed), 0
    while hits < wanted:
        known.run.go_back(f"before {stage}")
        moments = []
        for _ in range(2):
            moment, hit = killed_once(known, stage, rng)
            moments.append(moment)
            hits += hit
            if not hit:
                break
        try:
            known.goes_on(stage)
        except AssertionError as error:
            raise AssertionError(
                f"{stage} killed {', then '.join(moments)} (seed {seed}): {error}"
            ) from error


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments_a_stage_ends_as_if_undisturbed(undisturbed, stage):
    kill_and_compare(undisturbed, stage, DEFAULT_KILLS)


def test_killed_at_random_moments_ssan_trains_as_if_undisturbed(server, tmp_path):
    """With running statistics, companions and negatives that are drawn anew every epoch."""
    known = Undisturbed(TinyRun(tmp_path, server, "model.method=ssan", "model.image_size=[96,32]"))
    kill_and_compare(known, "train", DEFAULT_KILLS)


def test_killed_between_two_sources_training_ends_as_if_undisturbed(server, tmp_path):
    """A training on a synthetic set, then the rounds that start from it: at random, and where one goes over to the other."""
    source = (f"gen_images.root={write_synthetic_set(tmp_path / 'people')}", "train.data=synthetic_then_real")
    known = Undisturbed(TinyRun(tmp_path, server, *source))
    kill_and_compare(known, "train", DEFAULT_KILLS)
    operations = known.operations["train"]
    done = [i for i, line in enumerate(operations) if "synthetic.done" in line]
    for moment in (done[0], done[-1] + 1):
        known.run.go_back("before train")
        work = str(known.run.work)
        assert known.run.run("train", watch=work, kill_before=moment) == -signal.SIGKILL, operations[moment]
        known.goes_on("train")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_many_moments_a_stage_ends_as_if_undisturbed(undisturbed, stage):
    kill_and_compare(undisturbed, stage, MANY_KILLS)


def test_nothing_is_written_under_its_own_name_but_what_is_appended_to(undisturbed):
    """A reader can't meet half a file: everything else is written under a temporary name and renamed."""
    appended = r"\.jsonl|log\.txt|\.lock|labels/round-\d+\.png"  # the last is a picture that no program reads
    for stage in STAGES:
        for line in undisturbed.operations[stage]:
            event, _, name = line.partition(" ")
            path = Path(name).relative_to(undisturbed.run.work)
            temporary = path.name.startswith(".") or ".partial" in name or path.suffix == ".tmp"
            assert event != "open" or temporary or re.search(f"({appended})$", name), line


@pytest.mark.parametrize("stage", STAGES)
def test_sigterm_saves_and_ends_within_seconds(undisturbed, stage):
    known, rng = undisturbed, np.random.default_rng(7)
    known.run.go_back(f"before {stage}")
    process = known.run.start(stage)
    deadline = time.monotonic() + 60
    while WORKING[stage] not in process.said() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0, known.seconds[stage] / 4)))
    process.kill(signal.SIGTERM)
    asked = time.monotonic()
    code = process.wait(30)
    assert code in (128 + signal.SIGTERM, 0), process.said()[-2000:]
    assert time.monotonic() - asked < 10
    assert "Traceback" not in process.said()
    known.goes_on(stage)


@pytest.fixture(scope="module")
def nearly_trained(undisturbed) -> str:
    """The state of a training that was killed after its last epoch: every kind of file is there."""
    run = undisturbed.run
    run.go_back("before train")
    marks = [i for i, line in enumerate(undisturbed.operations["train"]) if ".train.done" in line]
    assert run.run("train", watch=str(run.work), kill_before=marks[0]) == -signal.SIGKILL
    run.keep("nearly trained")
    return "nearly trained"


KINDS = {
    "captions": "captions/captions.json",
    "starting weights": "output/captioner-captions/warm_up.pth",
    "state": "output/mini-pspd/train/last.pth",
    "labels": "output/mini-pspd/labels/round-1.npz",
    "round's mark": "output/mini-pspd/train/round-1.done",
    "image cache": "output/image_cache/images-*.npy",
    "metrics": "output/mini-pspd/metrics.jsonl",
    "annotation": "datasets/CUHK-PEDES/reid_raw.json",
}


def truncated_is_told_or_redone(known: Undisturbed, state: str, kind: str, share: float) -> None:
    """Cut one file: the stage must name it in one sentence, or come to the undisturbed outcome."""
    run = known.run
    run.go_back(state)
    found = sorted(run.work.glob(KINDS[kind]))
    assert found, kind
    for path in found:
        os.truncate(path, int(path.stat().st_size * share))
    process = run.start("train")
    code, said = process.wait(), process.said()
    assert "Traceback" not in said, said[-2000:]
    if code == 0:
        wanted = dict(known.outcomes["train"])
        if kind == "metrics":  # a log is not made again
            found[0].unlink()
            del wanted[KINDS[kind]]
        assert not differences(wanted, run.outcome())
    else:
        assert code == 1
        assert any(path.name in said.splitlines()[-1] for path in found), said


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_told_or_made_again(undisturbed, nearly_trained, kind):
    truncated_is_told_or_redone(undisturbed, nearly_trained, kind, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 0.999])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_told_or_made_again(undisturbed, nearly_trained, kind, share):
    truncated_is_told_or_redone(undisturbed, nearly_trained, kind, share)


def test_a_model_cut_short_is_not_evaluated(undisturbed):
    run = undisturbed.run
    run.go_back("before test")
    os.truncate(run.work / "output/mini-pspd/best.pth", 100_000)
    process = run.start("test")
    assert process.wait() == 1
    assert "best.pth can't be loaded as weights" in process.said().splitlines()[-1]
    assert not (run.work / "output/mini-pspd/results.json").exists()


def last_good_state(known: Undisturbed) -> tuple[Path, bytes]:
    """Stop a training in its first round: its state file and what that holds."""
    run = known.run
    run.go_back("before train")
    saves = [i for i, line in enumerate(known.operations["train"]) if "open" in line and ".last.pth" in line]
    assert run.run("train", watch=str(run.work), kill_before=saves[1]) == -signal.SIGKILL
    path = run.work / KINDS["state"]
    assert checkpoints.load(path)["phase"] == "round-0"
    return path, path.read_bytes()


def test_a_file_that_may_not_grow_ends_in_a_sentence_and_keeps_the_last_state(undisturbed):
    """What a quota does: files beyond a size can't be written."""
    path, before = last_good_state(undisturbed)
    process = undisturbed.run.start("train", largest_file=len(before) // 2)
    assert process.wait() == 1
    said = process.said()
    assert "Traceback" not in said
    assert "could not be written" in said.splitlines()[-1]
    assert "free some space" in said.splitlines()[-1]
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.tmp"))
    undisturbed.goes_on("train")


@pytest.fixture
def small_disk(undisturbed):
    """small_disk(spare): the run's folder on a disk of its own with so many bytes to spare."""
    work = undisturbed.run.work
    mounted: list[Path] = []

    def mount(spare: int) -> None:
        aside = work.with_name("aside")
        shutil.copytree(work, aside, symlinks=True)
        used = sum(-(-path.lstat().st_size // 4096) * 4096 + 4096 for path in aside.rglob("*"))
        shutil.rmtree(work)
        work.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={used + spare}", "tmpfs", str(work)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(aside)
            pytest.skip(
                f"mounting a small tmpfs is not allowed here: {getattr(error, 'stderr', error)}".strip()
            )
        mounted.append(work)
        shutil.copytree(aside, work, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(aside)

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)
        shutil.rmtree(path, ignore_errors=True)


def filler(work: Path) -> Path:
    """A file that takes all that is left of a disk."""
    path = work / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_a_disk_that_is_full_ends_in_a_sentence_and_keeps_the_last_state(undisturbed, small_disk):
    path, before = last_good_state(undisturbed)
    small_disk(32 << 20)
    for room in (0, len(before) // 2):
        filled = filler(undisturbed.run.work)
        os.truncate(filled, max(0, filled.stat().st_size - room))
        process = undisturbed.run.start("train")
        assert process.wait() == 1
        said = process.said()
        assert "Traceback" not in said, said
        assert re.search(r"could not be written|No space left|can't be written", said.splitlines()[-1]), said
        assert path.read_bytes() == before
        filled.unlink()
    undisturbed.goes_on("train")


@pytest.mark.parametrize("stage", ["gen_pre_train_text", "gen_text", "test"])
def test_every_stage_says_that_the_disk_is_full(undisturbed, small_disk, stage):
    undisturbed.run.go_back(f"before {stage}")
    undisturbed.run.work.mkdir(exist_ok=True)
    small_disk(8 << 20)
    filled = filler(undisturbed.run.work)
    process = undisturbed.run.start(stage)
    assert process.wait() == 1
    said = process.said()
    assert "Traceback" not in said, said
    assert re.search(r"[Nn]o space left|disk is full|make room|free some space", said.splitlines()[-1]), said
    filled.unlink()
    undisturbed.goes_on(stage)


def test_a_killed_save_leaves_nothing_behind_for_long(tmp_path):
    """The next save of the same file removes what a killed one left; a state may take gigabytes."""
    left = tmp_path / ".last.pth.4711.tmp"
    left.write_bytes(b"half")
    checkpoints.save(tmp_path / "last.pth", {"model": {"weight": torch.ones(2)}})
    assert os.listdir(tmp_path) == ["last.pth"]


def test_the_whole_command_ends_with_0_when_it_is_asked_to_stop(tmp_path, server):
    """bash train.bash under SIGTERM, which is what SLURM sends: saved, no further stage is started, exit code 0."""
    run = TinyRun(tmp_path, server, "gen_pre_train_text.samples=200")
    run.config.write_text(run.config.read_text("utf-8").replace("train: 12", "train: 10"), "utf-8")
    command = ["bash", str(ROOT / "train.bash"), str(run.config), "--set", *run.options]
    command += ["dataset.synthesis.train=100"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **ENVIRONMENT, "NPROC": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if "Stage A: captioning" in line:
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            break
    said.append(process.stderr.read())
    assert process.wait(60) == 0, said
    assert time.monotonic() - asked < 10
    assert "Stopped; the same command goes on from here." in "".join(said)
    assert not (run.work / "captions" / ".gen_pre_train_text.done").exists()
    assert not (run.work / "output" / "captioner-captions").exists()
