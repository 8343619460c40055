"""Finished marks, files set aside, and how a stage ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest
import torch

from clustering.inputs import ClusteringError
from data.errors import UserError
from engine import stage
from engine.command_line import read_command, stage_parser
from engine.config import Config
from engine.distributed import Interrupted
from engine.marks import Mark
from engine.outstanding import outstanding
from engine.run import Run, StopSignal
from engine.stage import Context, set_aside
from models.registry import ModelError


def test_a_mark_is_set_read_and_cleared(config, tmp_path, messages):
    mark = Mark(tmp_path / "deep" / ".done", config, ("seed", "train"))
    assert not mark.is_set("train")
    mark.set()
    assert Mark(mark.path, config, ("seed", "train")).is_set("train")
    assert [line for line in messages if "already finished" in line and "--force" in line]
    assert os.listdir(mark.path.parent) == [".done"]
    mark.clear()
    mark.clear()
    assert not mark.is_set("train")


def test_a_mark_names_the_settings_that_have_changed(config, tmp_path, messages):
    Mark(tmp_path / ".done", config, ("seed", "train")).set()
    other = config.model_copy(deep=True)
    other.train.warm_up.max_epoch = 99
    other.seed = 7
    other.cluster.min_samples = 9  # not a setting of this stage
    assert Mark(tmp_path / ".done", other, ("seed", "train")).is_set("train")
    told = messages[-1]
    assert "seed 0 -> 7" in told
    assert f"train.warm_up.max_epoch {config.train.warm_up.max_epoch} -> 99" in told
    assert "min_samples" not in told


def test_a_setting_that_is_younger_than_the_mark_is_a_change_only_where_it_is_set(config, tmp_path, messages):
    """Else a new version would call every finished run changed, and train several seeds again."""
    mark = Mark(tmp_path / ".done", config, ("seed", "train", "dataset"))
    mark.set()
    known = json.loads(mark.path.read_text("utf-8"))
    del known["train"]["min_lr"], known["train"]["warm_up"]["lr_warmup_steps"], known["dataset"]["root"]
    mark.path.write_text(json.dumps(known), "utf-8")
    assert config.train.min_lr == Config().train.min_lr
    assert sorted(mark.changes()) == [
        f"dataset.root 'datasets' -> {config.dataset.root!r}",
        f"train.warm_up.lr_warmup_steps 0 -> {config.train.warm_up.lr_warmup_steps}",
    ]


def test_which_synthetic_set_there_is_concerns_trainings_that_read_it(config):
    Mark.of("train", config).set()
    config.gen_images = {"root": "people"}
    assert Mark.of("train", config).changes() == []
    config.train.data = "mixed"
    changed = {line.partition(" ")[0] for line in Mark.of("train", config).changes()}
    assert changed == {"train.data", "gen_images"}
    Mark.of("train", config).set()
    assert Mark.of("train", config).changes() == []
    config.gen_images.root = "others"
    assert Mark.of("train", config).changes() == ["gen_images.root 'people' -> 'others'"]
    config.train.data = "synthetic"
    assert outstanding(config)[0] == ("test", False), "no stage captions real images"
    assert Mark.of("gen_text", config).changes() is None


def test_a_damaged_mark_counts_as_none(config, tmp_path):
    (tmp_path / ".done").write_text("{", encoding="utf-8")
    assert not Mark(tmp_path / ".done", config, ("seed",)).is_set("train")


def test_files_set_aside_never_replace_each_other(tmp_path, messages):
    path = tmp_path / "captions.jsonl"
    set_aside(path)
    assert not messages
    for content in ("first", "second"):
        path.write_text(content, encoding="utf-8")
        set_aside(path)
    assert not path.exists()
    assert (tmp_path / "captions.jsonl.old1").read_text(encoding="utf-8") == "first"
    assert (tmp_path / "captions.jsonl.old2").read_text(encoding="utf-8") == "second"
    assert "captions.jsonl.old2" in messages[-1]


def test_a_signal_that_has_not_come_is_kept_by_the_run(tmp_path, messages):
    """It is false until it comes: taking that for "none given" made runs deaf to SIGTERM."""
    stop = StopSignal()
    assert not stop
    run = Run(tmp_path, stop=stop)
    assert run.stop is stop
    stop.received = signal.SIGTERM
    assert run.stop
    assert not Run(tmp_path).stop


def test_a_second_interrupt_stops_at_once(messages):
    stop = StopSignal().install()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def run_stage(config, tmp_path, monkeypatch, messages):
    """run_stage(work, *arguments) -> the exit code of a stage that does ``work``."""
    path = tmp_path / "mini.yaml"
    path.write_text(f"output: {tmp_path}/output\nruntime: {{device: cpu}}\nmodel: {{size: tiny}}\n", "utf-8")

    def call(work, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["stage.py", "--config", str(path), *arguments])
        with pytest.raises(SystemExit) as caught:
            stage.run_stage(work, read_command(stage_parser("A stage.")))
        return caught.value.code

    return call


def raising(error: BaseException):
    def work(_context: Context) -> None:
        raise error

    return work


def test_a_finished_stage_ends_with_0_and_sees_its_arguments(run_stage):
    seen = []
    assert run_stage(seen.append, "--force", "--set", "seed=3", "train.rounds=1") == 0
    (context,) = seen
    assert context.force
    assert (context.config.seed, context.config.train.rounds) == (3, 1)
    assert context.machine.device == torch.device("cpu")
    assert not context.stop


@pytest.mark.parametrize("kind", [UserError, ModelError, ClusteringError, ValueError])
def test_a_mistake_of_the_user_ends_with_1_and_one_sentence(run_stage, messages, kind):
    """Rooms that do not know UserError raise ValueErrors: then the place is told with the sentence."""
    assert run_stage(raising(kind("Give another file."))) == 1
    place = "" if kind is UserError else r" \(tests/engine/test_stage\.py:\d+\)"
    assert re.fullmatch(r"Give another file\." + place, messages[-1])


def test_a_mistake_in_the_configuration_ends_with_1_and_one_sentence(run_stage, messages):
    assert run_stage(raising(AssertionError), "--set", "sed=3") == 1
    assert "did you mean 'seed'" in messages[-1]


def test_a_mistake_of_the_program_keeps_its_traceback(run_stage):
    with pytest.raises(ZeroDivisionError):
        run_stage(raising(ZeroDivisionError()))
    with pytest.raises(ValueError, match="Expecting value"):
        run_stage(lambda _context: json.loads(""))


def test_ctrl_c_twice_ends_with_130(run_stage):
    assert run_stage(raising(KeyboardInterrupt())) == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_stage_at_the_next_safe_point(run_stage, messages, number, code):
    done = []

    def work(context: Context) -> None:
        os.kill(os.getpid(), number)
        done.append("what was begun")
        context.check_stop()
        done.append("what comes after")

    assert run_stage(work) == code
    assert done == ["what was begun"]
    assert "goes on from here" in messages[-1]


def test_without_a_signal_nothing_stops(config, machine):
    Context(config, machine, StopSignal()).check_stop()
    stop = StopSignal()
    stop.received = signal.SIGTERM
    with pytest.raises(Interrupted):
        Context(config, machine, stop).check_stop()


def test_metrics_can_be_rewound_to_a_checkpoint(tmp_path, messages):
    run = Run(tmp_path)
    assert run.metrics_position() == 0
    run.record("step", total_step=0, losses={"a": 1.0})
    position = run.metrics_position()
    run.record("step", total_step=1, losses={"a": 2.0})
    run.rewind_metrics(position)
    run.rewind_metrics(10**9)
    lines = run.metrics_path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["total_step"] for line in lines] == [0]
