"""docs/model_zoo.md holds what its command writes from the result files, and nothing typed by hand."""

from __future__ import annotations

import csv
import json

import pytest

from benchmarks import model_zoo
from benchmarks.ablation import VARIANTS
from benchmarks.study_rows import COLUMNS, ON_TEST, spread_text, write_csv


def result(variant: str, seed: int, r1: float, protocol: str = "plain", on_test: float | str = "") -> dict:
    scores = {name: r1 + 1 if name == "itm_r1" else r1 for name in COLUMNS if name.startswith("it")}
    scores |= {name: on_test for name in COLUMNS if name.startswith(ON_TEST)}
    told = {"method": VARIANTS[variant].method, "split": "test", "protocol": protocol, "selected_on": "val"}
    cost = {"minutes": 5.0 + seed, "cpu_minutes": 6.0, "peak_mib": 700.5}
    where = {"processor": "abacus", "processor_features": "avx2", "precision": "fp32", "linear": "torch"}
    return {"variant": variant, "seed": seed, **told, **scores, **cost, **where}


def test_the_page_is_what_the_command_writes():
    page = model_zoo.PAGE.read_text("utf-8")
    assert model_zoo.made_page(page) == page, "run python -m benchmarks.model_zoo"


def values(variant: str, column: str) -> list[float]:
    return [
        row[column]
        for row in model_zoo.read_runs("demo")
        if row["variant"] == variant and row["protocol"] == "plain"
    ]


@pytest.mark.parametrize(("row", "kind"), [("features alone", "itc"), ("with ITM re-ranking", "itm")])
def test_the_demos_page_says_what_was_measured(row, kind):
    cells = [spread_text(values("pspd", f"{kind}_{metric}")) for metric in ("r1", "r5", "r10", "mAP", "mINP")]
    assert f"| {row} | {' | '.join(cells)} |" in (model_zoo.ROOT / "docs/demo_results.md").read_text("utf-8")


def test_the_ablations_differences_are_those_of_the_results():
    page = (model_zoo.ROOT / "docs/demo_results.md").read_text("utf-8")
    for variant in ("no-correction", "no-local", "base-captions", "warm-up", "labels"):
        cells = []
        for column in ("itc_r1", "itm_r1", "itm_mAP"):
            pairs = zip(values(variant, column), values("pspd", column), strict=True)
            points = [value - base for value, base in pairs]
            cells.append(
                f"{sum(points) / len(points):+.2f} ({', '.join(f'{point:+.2f}' for point in points)})"
            )
        assert f"| {' | '.join(cells)} |" in page, variant


def test_without_results_every_row_is_there_and_marked(tmp_path):
    page = model_zoo.made_page(model_zoo.PAGE.read_text("utf-8"), tmp_path)
    on_demo = ("| demo |", "| demo from scratch |")
    rows = [line for line in page.splitlines() if line.startswith((*on_demo, "| CUHK", "| ICFG", "| RSTP"))]
    methods = sum(map(len, model_zoo.PROTOCOLS.values()))
    started = sum(len(model_zoo.PROTOCOLS[name]) for name in model_zoo.STARTED)
    with_settings = sum(bool(VARIANTS[name].settings) for name in model_zoo.METHODS)
    assert len(rows) == started + methods + 3 * (methods - with_settings)
    assert all("to be measured" in row for row in rows if row.startswith(on_demo))
    assert all("not run here" in row for row in rows if not row.startswith(on_demo))
    for demo in ("demo", "demo from scratch"):
        assert f"| TSN / CADA, {demo} | to be measured | to be measured |" in page
    for name in set(VARIANTS) - model_zoo.OTHERS:
        assert f"(`{name}`) | to be measured |" in page


def test_results_fill_all_tables(tmp_path):
    rows = [result("pspd", seed, 20.0 + seed) for seed in range(3)]
    rows += [result("tsn", 0, 10.0), result("tsn", 0, 90.0, "msm"), result("cada", 0, 42.0)]
    rows += [
        result("no-local", 0, 19.0),
        {"variant": "captions", "seed": 0, "minutes": 4.0, "peak_mib": 600.0},
    ]
    older = [result("pspd", 0, 1.0), result("ssan", 0, 33.0)]  # one of them was not run again
    write_csv(tmp_path / "ablation-demo-cpu-2.9.0.csv", older)
    write_csv(tmp_path / "ablation-demo-cpu-2.15.0.csv", rows)
    page = model_zoo.made_page(model_zoo.PAGE.read_text("utf-8"), tmp_path)
    demo = {
        tuple(line.split(" | ")[i] for i in (1, 3)): line
        for line in page.splitlines()
        if line.startswith("| demo from scratch")
    }
    pspd = demo["PSPD", "plain"]
    assert "| 0 1 2 | val | 21.00 ± 1.00 (20.00 to 22.00) | 22.00 ± 1.00 (21.00 to 23.00) |" in pspd
    assert pspd.endswith("| 6.0 | not recorded |")
    assert "| 10.00 | 11.00 |" in demo["TSN", "plain"]
    assert "| 90.00 | 91.00 |" in demo["TSN", "msm"]
    assert "| 33.00 | 34.00 |" in demo["SSAN", "plain"]
    assert f"| PSPD / CADA, demo from scratch | {21 / 42:.2f} | {22 / 43:.2f} |" in page
    assert f"| TSN / CADA, demo from scratch | {10 / 42:.2f} | {11 / 43:.2f} |" in page
    assert "without the local loss (`no-local`) | plain | 0 | 19.00 |" in page
    assert "base captions only, each twice (`base-captions`) | to be measured |" in page
    assert "(`captions`) |  | 0 |" in page


def test_the_two_demos_are_two_data_sets(tmp_path):
    write_csv(tmp_path / "ablation-demo-cpu-2.15.0.csv", [result("cada", 0, 10.0)])
    started = [result("cada", 0, 40.0, on_test=42.0), result("tsn", 0, 20.0, "msm")]
    write_csv(tmp_path / "adaptation-target-cpu-2.15.0.csv", started)
    page = model_zoo.made_page(model_zoo.PAGE.read_text("utf-8"), tmp_path)
    rows = {
        name: line
        for line in page.splitlines()
        for name in ("demo", "demo from scratch")
        if line.startswith(f"| {name} | CADA")
    }
    assert "[demo-pretrained/cada.yaml]" in rows["demo"]
    assert "| 40.00 | 41.00 |" in rows["demo"]
    assert rows["demo"].endswith("| 42.00 instead of 41.00 (seed 0) |")
    assert "[demo/cada.yaml]" in rows["demo from scratch"]
    assert "| 10.00 | 11.00 |" in rows["demo from scratch"]
    assert rows["demo from scratch"].endswith("| not recorded |")
    assert "| 20.00 | 21.00 |" in next(
        line for line in page.splitlines() if line.startswith("| demo | TSN") and "| msm |" in line
    )


def test_a_summary_of_seeds_fills_its_row(tmp_path):
    spread = {"mean": 50.0, "std": 1.0, "min": 49.0, "max": 51.0, "values": [49.0, 50.0, 51.0]}
    content = {
        "dataset": "cuhk",
        "method": "pspd",
        "protocol": "plain",
        "selected_on": "val",
        "seeds": [0, 1, 2],
        "itc": {"r1": spread},
        "itm": {"r1": spread, "mAP": spread},
        "training_minutes": {**spread, "mean": 600.0},
    }
    (tmp_path / "cuhk-pspd-seeds.json").write_text(json.dumps(content), "utf-8")
    page = model_zoo.made_page(model_zoo.PAGE.read_text("utf-8"), tmp_path)
    row = next(line for line in page.splitlines() if line.startswith("| CUHK-PEDES | PSPD"))
    assert "| plain | 0 1 2 | val | 50.00 ± 1.00 (49.00 to 51.00) |" in row
    assert row.endswith("| 600 (training) | not recorded |")
    best = {"itc": {"r1": spread}, "itm": {"r1": {**spread, "mean": 50.75}}}
    told = json.dumps(content | {"if_selected_on_test": best})
    (tmp_path / "cuhk-pspd-seeds.json").write_text(told, "utf-8")
    page = model_zoo.made_page(model_zoo.PAGE.read_text("utf-8"), tmp_path)
    row = next(line for line in page.splitlines() if line.startswith("| CUHK-PEDES | PSPD"))
    assert row.endswith("| 600 (training) | 50.75 instead of 50.00 (seeds 0 1 2) |")


def test_what_choosing_on_test_would_report_stands_beside_the_same_runs_results(tmp_path):
    """Rank-1 by the ranking that chooses, of the runs that recorded it alone: others would not be comparable."""
    rows = [result("pspd", 0, 20.0), result("tsn", 0, 90.0, "msm"), result("tsn", 0, 10.0)]
    write_csv(tmp_path / "ablation-demo-cpu-2.15.0.csv", [*rows, result("ssan", 1, 33.0, on_test=33.5)])
    measured = [result("pspd", 0, 30.0, on_test=32.0), result("pspd", 2, 31.0, on_test=33.0)]
    write_csv(tmp_path / "fidelity-demo-cpu-2.15.0.csv", [*measured, result("tsn", 0, 10.0, on_test=12.0)])
    write_csv(tmp_path / "rungs-demo-cpu-2.15.0.csv", [result("pspd", 2, 99.0, on_test=99.0)])
    page = model_zoo.made_page(model_zoo.PAGE.read_text("utf-8"), tmp_path)
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| demo from scratch")]
    last = {(cells[1].strip(), cells[3].strip()): cells[-1].strip() for cells in rows}
    assert last["PSPD", "plain"] == "32.50 instead of 31.50 (seeds 0 2)"
    assert last["SSAN", "plain"] == "33.50 instead of 34.00 (seed 1)"
    assert last["TSN", "plain"] == "12.00 instead of 11.00 (seed 0)"
    assert last["TSN", "msm"] == ""
    assert last["CADA", "plain"] == "to be measured"


def test_a_page_without_a_place_is_refused():
    with pytest.raises(ValueError, match="0 places for the table 'zoo'"):
        model_zoo.filled("# A page", {"zoo": "x"})


def test_the_csv_reads_as_it_was_written(tmp_path):
    rows = [result("pspd", 0, 20.25)]
    write_csv(tmp_path / "ablation-demo-cpu-2.15.0.csv", rows)
    assert model_zoo.read_runs("demo", tmp_path) == rows
    with (tmp_path / "ablation-demo-cpu-2.15.0.csv").open(encoding="utf-8") as stream:
        assert next(csv.reader(stream)) == COLUMNS
