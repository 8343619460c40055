"""docs/fidelity.md: every switch that it names is there, every test exists, and configs/released/ is what it calls released."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import fidelity, pages
from engine.building import check_model
from engine.config import load_config
from engine.marks import differences
from models import METHODS
from tests.pipeline.mini import ROOT

PAGE = ROOT / "docs" / "fidelity.md"
RELEASED = sorted((ROOT / "configs" / "released").glob("*.yaml"))
COLUMNS = ["methods", "what", "paper", "released", "here", "switch", "default", "effect", "test"]
PLACES = {"run", "pre_gen_data"}  # where a released run writes, so that it meets no other
BESIDE = {"test.also_select_on_test"}  # records, and keeps no other epoch


class Row(NamedTuple):
    methods: str
    what: str
    paper: str
    released: str
    here: str
    switch: str
    default: str
    effect: str
    test: str

    def settings(self) -> list[str]:
        """The settings in the column of switches, as --set takes them."""
        return [code for code in re.findall(r"`([^`]+)`", self.switch) if "=" in code]


@cache
def rows() -> list[Row]:
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Row(*line) for line in cells if len(line) == len(COLUMNS)][1:]


def methods_of(row: Row) -> list[str]:
    return row.methods.split(", ")


def changes(method: str, files=(), settings=()) -> set[str]:
    """Which settings files and --set change in a method's configuration, by name."""
    path = ROOT / "configs" / "methods" / f"{method}.yaml"
    before, after = (
        json.loads(config.model_dump_json())
        for config in (load_config(path), load_config([path, *files], settings))
    )
    return {line.split(" ")[0] for line in differences(before, after)}


def name_of(setting: str) -> str:
    return setting.partition("=")[0]


def test_every_method_has_its_rows():
    assert {method for row in rows() for method in methods_of(row)} == set(METHODS)
    assert len(rows()) > 40


@pytest.mark.parametrize("row", [row for row in rows() if row.settings()], ids=lambda row: row.what)
def test_a_switch_is_in_the_configuration_and_is_no_default(row):
    """The method takes it, the rest of its configuration stays, and a test is named."""
    assert row.test
    for method in methods_of(row):
        for setting in row.settings():
            changed = changes(method, settings=[setting])
            (name,) = changed  # the setting's, or that of its section, where there is none by default
            assert f"{name_of(setting)}.".startswith(f"{name}."), (method, setting)
            check_model(load_config(ROOT / "configs" / "methods" / f"{method}.yaml", [setting]))


def test_a_row_without_a_switch_says_so():
    assert {row.what for row in rows() if not row.settings()} == {
        row.what for row in rows() if row.switch == "none"
    }


def test_every_switch_has_a_run_on_the_demo_or_a_reason_to_have_none():
    listed = {setting: row for row in rows() for setting in row.settings()}
    measured = {switch.setting: switch for switch in fidelity.SWITCHES.values()}
    assert measured.keys() | fidelity.NOT_HERE.keys() == listed.keys()
    assert not measured.keys() & fidelity.NOT_HERE.keys()
    assert all(switch.method in methods_of(listed[setting]) for setting, switch in measured.items())


def test_the_page_says_what_was_measured():
    texts = {path: path.read_text("utf-8") for path in pages.PAGES}
    assert pages.made_pages(texts) == texts, "run python -m benchmarks.pages"


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_every_test_that_a_row_names_exists(row):
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.test)
    assert named
    assert len(named) == row.test.count("`") // 2
    assert not [f"{path}::{test}" for path, test in named if test not in functions_of(path)]


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_a_released_configuration_is_what_the_table_calls_released(path):
    """No more and no less, each with the value that stands in the table."""
    method = path.stem
    listed = [
        setting
        for row in rows()
        if method in methods_of(row) and row.switch.startswith("released: ")
        for setting in row.settings()
    ]
    assert changes(method, [path]) - PLACES == {name_of(setting) for setting in listed}
    config = load_config([ROOT / "configs" / "methods" / f"{method}.yaml", path])
    check_model(config)
    assert load_config([ROOT / "configs" / "methods" / f"{method}.yaml", path], listed) == config
    assert not BESIDE & changes(method, [path])
    assert not config.test.also_select_on_test


def test_methods_whose_released_code_has_switches_have_a_file():
    with_switches = {
        method for row in rows() if row.switch.startswith("released: ") for method in methods_of(row)
    }
    assert with_switches == {path.stem for path in RELEASED} == {"pspd", "tsn", "cada", "ssan"}


def configurations(*words: str) -> subprocess.CompletedProcess:
    script = 'source scripts/launch.bash; read_target "$@"; echo "${CONFIGS[@]}"'
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script, "train.bash", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
@pytest.mark.parametrize("target", ["demo", "cuhk"])
def test_train_bash_takes_released_by_name(path, target):
    """The method's and the data set's files first; the run has a folder of its own, and the demo a source that is drawn."""
    done = configurations(target, f"released/{path.stem}")
    files = done.stdout.split()
    assert files[:2] == [f"configs/methods/{path.stem}.yaml", f"configs/{target}.yaml"], done.stderr
    assert f"configs/released/{path.stem}.yaml" in files
    plain = load_config([Path(ROOT, file) for file in configurations(target, path.stem).stdout.split()])
    config = load_config([Path(ROOT, file) for file in files])
    assert config.run_directory.name == f"{target}-{path.stem}-released-seed0"
    changed = {
        line.split(" ")[0]
        for line in differences(*(json.loads(c.model_dump_json()) for c in (plain, config)))
    }
    assert changed <= changes(path.stem, [path]) | {"cluster.source", "pre_gen_data"}
    if target == "demo" and path.stem in ("pspd", "tsn"):
        assert config.cluster.source.synthesis.world == "source"
        assert config.cluster.source.root != config.dataset.root


def test_a_released_configuration_that_there_is_not_is_named():
    done = configurations("demo", "released/irra")
    assert done.returncode == 2
    assert "There is no configs/released/irra.yaml: give one of released/cada released/pspd" in done.stderr
