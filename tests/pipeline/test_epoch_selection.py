"""Which epoch a run keeps: val's or a held-out part of train's best, and what choosing on test would have reported."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from data.errors import UserError
from data.holding_out import hold_out_identities
from data.records import PedesDataset, Record
from engine import checkpoints
from engine.building import check_model
from engine.config import load_config
from tests.pipeline.mini import Pipeline

LABELS = ("--set", "train.supervision=labels", "train.max_epoch=2", "train.warm_up.max_epoch=0")


def results_of(pipeline: Pipeline, run: str) -> dict:
    return json.loads((pipeline.config.run_directory.with_name(run) / "results.json").read_text("utf-8"))


def trained(pipeline: Pipeline, run: str, *settings: str) -> dict[str, torch.Tensor]:
    for stage in ("train", "test"):
        assert pipeline(stage, *LABELS, f"run={run}", *settings) == 0, pipeline.messages
    return checkpoints.load(pipeline.config.run_directory.with_name(run) / "best.pth")["model"]


@pytest.mark.integration
def test_choosing_on_test_is_told_beside_the_result_and_changes_nothing(pipeline, capsys):
    plain = trained(pipeline, "plain")
    honest = results_of(pipeline, "plain")
    assert "chosen on test" not in capsys.readouterr().out
    also = trained(pipeline, "also", "test.also_select_on_test=true")
    told = results_of(pipeline, "also")
    assert "chosen on test: with ITM re-ranking" in capsys.readouterr().out
    assert plain.keys() == also.keys()
    assert all(torch.equal(plain[name], also[name]) for name in plain)
    assert (told["itc"], told["itm"], told["selected_on"]) == (honest["itc"], honest["itm"], "val")
    best, k_test = told["if_selected_on_test"], pipeline.config.test.k_test
    assert best["epoch"] in (0, 1)
    assert best["itm"]["r1"] + best["itm"]["mAP"] >= honest["itm"]["r1"] + honest["itm"]["mAP"]
    assert k_test == 4
    assert pipeline("test", *LABELS, "run=plain", "test.also_select_on_test=true") == 0
    assert pipeline.said("was not set while this run was trained")


@pytest.mark.integration
def test_identities_of_train_are_held_out_where_there_is_no_val(pipeline_of):
    pipeline = pipeline_of(name="icfg_pedes")
    trained(pipeline, "held", "train.val_identities=3")
    assert results_of(pipeline, "held")["selected_on"] == "3 identities of train"
    folder = pipeline.config.run_directory.with_name("held")
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(event["val"] for event in events if event["event"] == "epoch")


def people(*identities: int) -> PedesDataset:
    train = [Record(f"{i}/{n}.png", i, ("a man",)) for i in identities for n in range(2)]
    return PedesDataset("icfg_pedes", None, train, [], [])


def test_held_out_identities_follow_from_the_seed_and_themselves():
    whole = people(*range(20))
    split = hold_out_identities(whole, 6, seed=3)
    held = {record.identity for record in split.val}
    assert len(held) == 6
    assert not held & {record.identity for record in split.train}
    assert sorted(split.train + split.val) == sorted(whole.train)
    assert hold_out_identities(whole, 6, seed=3) == split
    assert {r.identity for r in hold_out_identities(whole, 6, seed=4).val} != held
    fewer = people(*(i for i in range(20) if i in held or i % 2))
    assert {r.identity for r in hold_out_identities(fewer, 6, seed=3).val} == held


def test_what_can_not_be_held_out():
    with pytest.raises(UserError, match="less than half"):
        hold_out_identities(people(1, 2, 3), 2, seed=0)
    with pytest.raises(UserError, match="has a val split"):
        hold_out_identities(replace(people(1, 2, 3), val=people(4).train), 1, seed=0)
    config = load_config(["configs/methods/pspd.yaml"], ["train.val_identities=5"])
    with pytest.raises(UserError, match=r"only train\.supervision=labels may read"):
        check_model(config)
