"""What switches and released configurations do on the demo: each run differs in what it says, and its effect is what the page tells."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from benchmarks import fidelity, pages, study, study_rows
from benchmarks.fidelity import OWN, SCRATCH, STUDIES, STUDY, SWITCHES
from engine.building import check_model
from engine.marks import differences
from tests.benchmarks.test_model_zoo import result
from tests.pipeline.mini import ROOT, make_pipeline

PLACES = {"run", "pre_gen_data"}


def runs_of(one, names=()) -> dict[str, study.Run]:
    runs = study.planned_runs(one.target, list(names or one.variants), [1], [], 1, one.variants)
    return {run.name: run for run in runs}


def changed(first: study.Run, second: study.Run) -> set[str]:
    contents = (json.loads(run.config.model_dump_json()) for run in (first, second))
    return {line.split(" ")[0] for line in differences(*contents)}


def test_a_switch_is_all_that_its_run_has_more_than_its_methods():
    runs = runs_of(STUDY) | runs_of(SCRATCH)
    assert set(SWITCHES) <= set(runs)
    for name, switch in SWITCHES.items():
        own, run = runs[switch.method], runs[name]
        check_model(run.config)
        # A supervised method clusters nothing, so the demo's source makes no difference to it.
        more = {"pspd-jaccard": {"cluster.eps"}, "released-ssan": {"cluster.source"}}.get(name, set())
        assert changed(own, run) - PLACES - more == {switch.setting.partition("=")[0]}, name
        assert run.needs == (() if switch.captions else own.needs)
        assert own.config.run_directory != run.config.run_directory
        same = own.config.caption_directory == run.config.caption_directory
        assert same != switch.captions or not own.needs


def test_the_demos_source_is_that_of_the_released_run():
    runs = runs_of(STUDY, ["pspd-source", "released-pspd"])
    assert runs["pspd-source"].config.cluster.source == runs["released-pspd"].config.cluster.source


def test_released_runs_stand_beside_ours_from_the_same_start():
    assert {method for one in STUDIES for method in OWN if method in one.variants} == set(OWN)
    for one in STUDIES:
        for method in set(fidelity.RELEASED) & set(one.variants):
            assert one.variants[method] is one.shares_with.variants[method]
            runs = runs_of(one, [method, f"released-{method}"])
            run = runs[f"released-{method}"]
            assert run.files[-1].name == "released.yaml"
            assert run.stages == list(OWN[method].stages)
            assert run.config.model.pretrained == runs[method].config.model.pretrained
            assert bool(run.config.model.pretrained) == (one is STUDY)


def rows_of(tmp_path, *rows):
    filled = [{**row, "protocol": row.get("protocol", "plain")} for row in rows]
    for one, data in ((STUDY, "target"), (SCRATCH, "demo")):
        own = [row for row in filled if row["variant"] in one.variants]
        study_rows.write_csv(tmp_path / f"fidelity-{data}-cpu-2.15.0.csv", own)
    return pages.made_pages({p: p.read_text("utf-8") for p in pages.PAGES}, tmp_path)


def named(variant: str, method: str, seed: int, r1: float, **more) -> dict:
    return {**result(method, seed, r1, **more), "variant": variant}


def test_effects_are_differences_of_the_same_seeds(tmp_path):
    made = rows_of(
        tmp_path,
        result("pspd", 0, 30.0, on_test=32.0),
        result("pspd", 1, 34.0, on_test=34.5),
        named("pspd-agreement", "pspd", 1, 33.0),
        named("pspd-agreement", "pspd", 2, 99.0),
        named("pspd-source", "pspd", 0, 31.0),
        named("pspd-source", "pspd", 1, 37.0),
        {**result("ssan", 0, 70.0), "itm_r1": ""},
        {**named("released-ssan", "ssan", 0, 71.5), "itm_r1": ""},
    )
    page = made[pages.FIDELITY]
    row = next(line for line in page.splitlines() if "correction.agreement=0.5" in line)
    assert "| demo, PSPD: Rank-1 re-ranked -1.00, features -1.00 (seed 1) |" in row
    row = next(line for line in page.splitlines() if "cluster.source={name" in line)
    assert "| demo, PSPD: Rank-1 re-ranked +2.00 ± 1.41, features +2.00 ± 1.41 (seeds 0 1) |" in row
    row = next(line for line in page.splitlines() if "`runtime.precision=bf16`" in line)
    assert "| PSPD on the demo: " in row, "what the page says by itself stays"
    row = next(line for line in page.splitlines() if "padding_counts=true" in line)
    assert "| demo, SSAN: Rank-1 features +1.50 (seed 0) |" in row
    row = next(line for line in page.splitlines() if "`correction.captions=base`" in line)
    assert "| not measured |" in row
    row = next(line for line in page.splitlines() if "also_select_on_test=true` |" in line)
    assert "| demo, 2 runs: Rank-1 +0.25 (-0.50 to +1.00) |" in row


def test_effects_on_other_data_come_from_their_files_and_stand_before_the_demos(tmp_path):
    rows = ["spread,ratio,source,noise %", "0.3,0.051,none,0.0", "0.3,0.051,same model,0.0"]
    for spread, none, same in ((0.6, 2.0, 1.5), (0.8, 9.0, 6.0)):
        rows += [f"{spread},0.051,none,{none}", f"{spread},0.051,same model,{same}"]
    (tmp_path / "source_term-abacus-2.9.0.csv").write_text("\n".join(rows), "utf-8")
    rows = ["spread,metric,eps,noise %,clusters,ARI,ARI by seed"]
    rows += ["0.6,profile,auto,2.0,9,0.9,0.9 0.9", "0.6,jaccard,0.6,1.5,8,0.95,0.9 1.0"]
    (tmp_path / "cluster_metric-abacus-2.9.0.csv").write_text("\n".join(rows), "utf-8")
    rows = ["wrong captions %,blurred images %,k_tests,agreement,ARI after"]
    rows += ["0,0,6,0.0,0.5", "0,0,6,0.5,0.49", "0,0,12,0.0,0.4", "0,0,12,0.5,0.402"]
    (tmp_path / "label_correction-abacus-2.9.0.csv").write_text("\n".join(rows), "utf-8")
    page = rows_of(tmp_path, result("pspd", 0, 30.0), named("pspd-source", "pspd", 0, 31.0))[pages.FIDELITY]
    row = next(line for line in page.splitlines() if "cluster.source={name" in line)
    assert (
        "| made-up features: points of noise -3.0 to -0.5 (pspd), see [below](#the-source-term); demo, PSPD: "
        in row
    )
    row = next(line for line in page.splitlines() if "`cluster.metric=jaccard` |" in line)
    assert "| made-up features: points of noise -0.5, ARI +0.050, see [below](#what-dbscan-compares) |" in row
    row = next(line for line in page.splitlines() if "correction.agreement=0.5" in line)
    assert "| labels of the target world: ARI -0.010 to +0.002, see [clustering]" in row
    assert "| 0.6 | jaccard | 0.6 | 1.5 % | 8 | 0.95 (0.9, 1.0) |" in page


def test_without_results_the_page_says_so_and_filling_it_twice_changes_nothing(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    texts = {p: p.read_text("utf-8") for p in pages.PAGES}
    bare = pages.made_pages(texts, empty)
    assert pages.made_pages(bare, empty) == bare
    assert "demo, PSPD" not in bare[pages.FIDELITY].split("## Released")[0].replace('"demo, PSPD: ..."', "")
    assert "| PSPD as released |  | to be measured |" in bare[pages.FIDELITY]
    made = rows_of(tmp_path, result("cada", 0, 40.0), named("released-cada", "cada", 0, 42.0, on_test=44.0))
    table = made[pages.FIDELITY]
    assert "| CADA | 0 | 40.00 | 41.00 | 40.00 |  |  |" in table
    assert (
        "| CADA as released | 0 | 42.00 | 43.00 | 42.00 | +2.00 | 44.00 instead of 43.00 (seed 0) |" in table
    )


def test_seeds_that_the_ablation_has_measured_are_taken_from_it(tmp_path):
    """With the same torch, of variants that are the ablation's; the study's own rows win."""
    study_rows.write_csv(
        tmp_path / "ablation-demo-cpu-2.15.0.csv",
        [result("ssan", 1, 70.0), result("irra", 0, 1.0), result("labels", 0, 2.0)],
    )
    study_rows.write_csv(tmp_path / "fidelity-demo-cpu-2.15.0.csv", [result("irra", 0, 30.0)])
    rows = pages.read_study(SCRATCH, tmp_path)
    assert {(row["variant"], row["seed"], row["itc_r1"]) for row in rows} == {
        ("ssan", 1, 70.0),
        ("irra", 0, 30.0),
    }
    study_rows.write_csv(tmp_path / "ablation-demo-cpu-2.16.0.csv", [result("rde", 0, 3.0)])
    assert pages.read_study(SCRATCH, tmp_path) == rows, "a newer torch of the other study's alone"
    (tmp_path / "fidelity-demo-cpu-2.15.0.csv").unlink()
    assert [row["variant"] for row in pages.read_study(SCRATCH, tmp_path)] == ["rde"]


@pytest.mark.slow
def test_a_released_configuration_in_miniature(tmp_path):
    """From its own captions to its row, beside a switch that shares the plain captions."""
    path = make_pipeline(tmp_path, []).path
    folder = path.with_suffix("")
    folder.mkdir()
    source = f"{{name: cuhk_pedes, tag: other, root: {tmp_path}/other, synthesis: {{world: source, train: 8, val: 1, test: 1, images: 2, seed: 3}}}}"
    released = f"pre_gen_data: {tmp_path}/released-captions\ncluster: {{source: {source}}}\n"
    (folder / "released.yaml").write_text(released, "utf-8")
    command = [sys.executable, "-m", "benchmarks.fidelity", "--config", str(path), "--results", str(tmp_path)]
    command += ["--seeds", "0", "--variants", "released-pspd", "pspd-correction-cls"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with next(tmp_path.glob("fidelity-mini-*.csv")).open(encoding="utf-8") as stream:
        rows = {row["variant"] for row in csv.DictReader(stream)}
    assert rows == {"captions", "captions-released", "released-pspd", "pspd-correction-cls"}
    assert (tmp_path / "released-captions" / "captions.json").is_file()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert "4 runs are finished, 0 to do." in again.stdout, again.stderr
