"""The source x target matrix: what was trained where and evaluated where, means over seeds, and what is refused."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from retrieval.matrix import main


@pytest.fixture
def run_of(tmp_path):
    """run_of(trained_on, dataset, r1, **changes) -> the folder of an evaluated run."""
    made = []

    def write(trained_on: str, dataset: str, r1: float, **changes) -> str:
        folder = tmp_path / f"run-{len(made)}"
        made.append(folder)
        folder.mkdir()
        scores = {"r1": r1, "r5": 90.0, "r10": 95.0, "mAP": r1 - 10, "mINP": r1 - 20}
        better = {name: value + 1 for name, value in scores.items()}
        record = {
            "dataset": dataset,
            "trained_on": trained_on,
            "method": "pspd",
            "split": "test",
            "protocol": "plain",
        }
        record |= {"selected_on": "val", "itc": scores, "itm": better, "queries": 8, "gallery": 4} | changes
        (folder / "results.json").write_text(json.dumps(record), "utf-8")
        return str(folder)

    return write


def test_cells_are_means_over_seeds_and_missing_ones_stay_empty(run_of, tmp_path, capsys):
    runs = [run_of("cuhk", "cuhk", 60.0), run_of("cuhk", "cuhk", 64.0), run_of("cuhk", "icfg", 30.5)]
    runs.append(run_of("icfg", "icfg", 50.0, itm=None, method="irra"))
    assert main([*runs, "--to", str(tmp_path / "matrix")]) == 0
    text = (tmp_path / "matrix/matrix.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    features, reranked = text.split("With ITM re-ranking")
    assert "| trained on \\ evaluated on | cuhk | icfg |" in features
    assert "| pspd, cuhk | 62.00 ± 2.83 / 52.00 ± 2.83 / 42.00 ± 2.83 | 30.50 / 20.50 / 10.50 |" in features
    assert "| irra, icfg |  | 50.00 / 40.00 / 30.00 |" in features
    assert "| pspd, cuhk | 63.00 ± 2.83 / 53.00 ± 2.83 / 43.00 ± 2.83 | 31.50 / 21.50 / 11.50 |" in reranked
    assert "irra" not in reranked
    rows = list(csv.DictReader((tmp_path / "matrix/matrix.csv").open()))
    assert len(rows) == 7
    assert {row["r1"] for row in rows if row["dataset"] == "icfg"} == {"30.5", "31.5", "50.0"}
    with Image.open(tmp_path / "matrix/matrix.png") as picture:
        assert picture.width > picture.height > 100


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"trained_on": ""}, "does not say what its model was trained on"),
        ({"protocol": "msm"}, "a matrix is made of plain ones on test"),
        ({"split": "val"}, "a matrix is made of plain ones on test"),
        ({"itc": 3}, "is no results.json"),
    ],
)
def test_results_that_do_not_belong_in_it(run_of, tmp_path, capsys, changes, complaint):
    changes = dict(changes)
    run = run_of(changes.pop("trained_on", "cuhk"), "icfg", 10.0, **changes)
    assert main([run, "--to", str(tmp_path / "matrix")]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "matrix").exists()


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere/results.json"), "--to", str(tmp_path / "matrix")]) == 1
    assert "name runs that were evaluated" in capsys.readouterr().err
