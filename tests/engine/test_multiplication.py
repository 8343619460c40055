"""By which library a run multiplies: measured once, remembered, the same in all processes, kept by a run that is resumed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from data.errors import UserError
from engine import multiplication, processor
from engine.multiplication import KEPT, Multiplication, cache_path, choose, keep, measure
from models.backbones import linear
from retrieval.division import ALONE
from tests.in_threads import together

MEASURED = Multiplication("onednn", True, {"onednn": 0.5, "bf16": 0.5})


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """A cache folder of the test's own; the process multiplies as before afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(linear, "_library", linear.library())


@pytest.fixture
def measurements(monkeypatch):
    """Stands in for the clock: each measurement finds what is in the list's last place."""
    found, asked = [MEASURED], []
    monkeypatch.setattr(multiplication, "measure", lambda *able: asked.append(able) or found[-1])
    monkeypatch.setattr(linear, "has_onednn", lambda: True)
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: True)
    return found, asked


def test_it_measures_both_ways_and_takes_the_faster(monkeypatch):
    slow = {"onednn": 0.0, "torch": 0.0, "bf16": 0.0}

    def work(way):
        def action():
            for _ in range(int(slow[way])):
                torch.randn(100_000)

        return [action]

    monkeypatch.setattr(multiplication, "_training", work)
    monkeypatch.setattr(multiplication, "_reading", work)
    threads = torch.get_num_threads()
    for slower, faster in (("torch", "onednn"), ("onednn", "torch")):
        slow.update({slower: 20, faster: 2, "bf16": 1})
        found = measure(True, True)
        assert (found.linear, found.bf16) == (faster, True)
        assert found.measured["onednn"] < 0.5 or slower == "onednn"
    slow.update({"onednn": 5, "torch": 5, "bf16": 10})
    assert not measure(True, True).bf16
    assert measure(False, False) == Multiplication("torch", False, {})
    assert torch.get_num_threads() == threads


def test_real_products_are_measured_in_some_milliseconds_and_nothing_stays_changed():
    before, random = linear.library(), torch.get_rng_state()
    found = measure(linear.has_onednn(), processor.multiplies_bf16())
    assert all(0.02 < share < 50 for share in found.measured.values())
    assert linear.library() == before
    assert torch.get_rng_state().equal(random)


def test_what_was_measured_is_remembered_for_this_processor_and_this_torch(measurements, monkeypatch):
    found, asked = measurements
    assert choose("auto", ALONE) == MEASURED
    found.append(replace(MEASURED, linear="torch"))
    assert choose("auto", ALONE) == MEASURED
    assert linear.library() == "onednn"
    assert len(asked) == 1
    monkeypatch.setattr(processor, "name", lambda: "another one")
    assert choose("auto", ALONE).linear == linear.library() == "torch"
    monkeypatch.setattr(torch, "__version__", "3.0")
    choose("auto", ALONE)
    assert len(asked) == 3
    assert len(json.loads(cache_path().read_text("utf-8"))) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', "null"])
def test_a_damaged_memory_is_measured_anew(measurements, content):
    cache_path().parent.mkdir(parents=True)
    cache_path().write_text(content, "utf-8")
    assert choose("auto", ALONE) == MEASURED
    assert choose("auto", ALONE) == MEASURED
    assert len(measurements[1]) == 1


@pytest.mark.parametrize(
    "entry", [1, {}, {"linear": "abacus", "bf16": True, "measured": {}}, {"linear": "torch"}]
)
def test_an_entry_that_says_nothing_is_measured_anew(measurements, entry):
    choose("auto", ALONE)
    (key,) = json.loads(cache_path().read_text("utf-8"))
    cache_path().write_text(json.dumps({key: entry}), "utf-8")
    assert choose("auto", ALONE) == MEASURED


def test_nowhere_to_remember_is_no_hindrance(measurements, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x", "utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose("auto", ALONE) == choose("auto", ALONE) == MEASURED
    assert len(measurements[1]) == 2


def test_a_library_that_is_named_is_used(measurements, monkeypatch):
    for name in ("torch", "onednn"):
        assert choose(name, ALONE).linear == linear.library() == name
    monkeypatch.setattr(linear, "has_onednn", lambda: False)
    assert choose("auto", ALONE).linear == "torch"
    with pytest.raises(UserError, match=r"oneDNN here: use auto or torch \(runtime\.linear\)"):
        choose("onednn", ALONE)


def test_all_processes_take_the_first_ones_choice(measurements, monkeypatch, tmp_path):
    """Of machines of two kinds, too; and none is asked for what it does not have."""
    monkeypatch.setattr(
        multiplication,
        "_remembered_or_measured",
        lambda able: MEASURED,
    )
    assert together(3, lambda member: choose("auto", member)) == [MEASURED] * 3
    kept = together(3, lambda member: keep(MEASURED, "auto", tmp_path / "run", False, member))
    assert {one.linear for one in kept} == {"onednn"}
    torchs = replace(MEASURED, linear="torch")
    again = together(3, lambda member: keep(torchs, "auto", tmp_path / "run", False, member))
    assert {one.linear for one in again} == {"onednn"}


def test_a_resumed_run_multiplies_as_it_began_to(measurements, tmp_path):
    torchs = replace(MEASURED, linear="torch", bf16=False)
    assert keep(MEASURED, "auto", tmp_path, False, ALONE).linear == "onednn"
    resumed = keep(torchs, "auto", tmp_path, False, ALONE)
    assert (resumed.linear, resumed.bf16) == ("onednn", True)
    assert linear.library() == "onednn"
    # Begun anew, or asked for by name, it is another run.
    assert keep(torchs, "auto", tmp_path, True, ALONE).linear == linear.library() == "torch"
    assert keep(MEASURED, "onednn", tmp_path, False, ALONE).linear == "onednn"
    assert keep(torchs, "auto", tmp_path, False, ALONE).linear == "onednn"
    (tmp_path / KEPT).write_text("{", "utf-8")
    assert keep(torchs, "auto", tmp_path, False, ALONE).linear == "torch"


def test_a_run_that_began_with_onednn_goes_on_where_it_is_not_there(measurements, monkeypatch, tmp_path):
    keep(MEASURED, "auto", tmp_path, False, ALONE)
    monkeypatch.setattr(linear, "has_onednn", lambda: False)
    assert keep(replace(MEASURED, linear="torch"), "auto", tmp_path, False, ALONE).linear == "torch"


def test_it_says_what_it_found():
    assert MEASURED.describe() == (
        "large products by oneDNN (measured: oneDNN needs 0.50 of torch's time, bf16 0.50 of fp32's)"
    )
    assert Multiplication("torch", False, {}).describe() == "large products by torch's own library"
