"""The study from the pre-trained start: what each run may read, equal budgets, its table and its picture."""

from __future__ import annotations

import statistics

import pytest
from PIL import Image

from benchmarks import adaptation, demo_steps, pages, study, study_rows
from engine.building import check_model, supervision


def runs_of(names) -> dict[str, study.Run]:
    runs = study.planned_runs(adaptation.TARGET, list(names), [1], [], 1, adaptation.VARIANTS)
    return {run.name: run for run in runs}


def test_every_run_starts_from_the_weights_on_the_target_world_and_in_a_folder_of_its_own():
    runs = runs_of(adaptation.VARIANTS)
    for run in runs.values():
        check_model(run.config)
        assert (
            run.config.model.pretrained == run.config.pre_train.pretrained == "checkpoint/demo/pretrained.pth"
        )
        assert run.config.dataset.synthesis.world == "target"
        assert run.directory.name == f"ablation-demo-pretrained-{run.label}"  # the demo's are other runs
        if not run.makes_captions:
            assert run.config.run_directory == run.directory


def test_budgets_are_those_of_the_rounds_and_labels_are_read_where_the_title_says_so():
    runs = runs_of(adaptation.VARIANTS)
    plain = runs["pspd"].config.train
    for name in ("own-classes", "labels", "cada"):
        assert runs[name].config.train.max_epoch == plain.rounds * plain.max_epoch
    read = {name: supervision(run.config) for name, run in runs.items() if not run.makes_captions}
    assert {name for name, rung in read.items() if rung == "labels"} == {"labels", "cada"}
    assert {name for name, rung in read.items() if rung == "pairs"} == {"pairs"}
    assert {name for name, rung in read.items() if rung == "zero-shot"} == {"start"}
    assert all(runs[name].config.train.frozen == [] for name in ("labels", "cada", "pairs", "learning-text"))


def test_a_part_differs_from_pspd_in_nothing_that_makes_its_budget_another():
    runs = runs_of(adaptation.VARIANTS)
    plain = runs["pspd"].config.train
    for name in adaptation.PARTS:
        config = runs[name].config
        assert supervision(config) == "pseudo", name
        rounds = config.train.rounds if config.cluster.enabled else 1
        assert rounds * config.train.max_epoch == plain.rounds * plain.max_epoch, name


def test_pairs_are_weighed_where_captions_are_generated_and_nowhere_else():
    runs = runs_of(adaptation.VARIANTS)
    for name, run in runs.items():
        weighed = run.config.train.pair_weights != "none"
        generated = supervision(run.config) == "pseudo" and not run.makes_captions
        if "no-weights" not in name and generated:
            assert weighed, name
        elif not run.makes_captions:
            assert not weighed, name


def test_captions_that_differ_have_their_own_folder():
    runs = runs_of(["pspd", "sample-kept"])
    folders = {run.config.caption_directory.name for run in runs.values()}
    assert folders == {"demo-pretrained-seed1", "demo-pretrained-seed1-sample"}
    assert not runs["sample-kept"].needs


def test_the_readme_says_what_was_measured():
    readme = (study.ROOT / "README.md").read_text("utf-8")
    rows = pages.read_study(adaptation.STUDY)
    for name in ("start", "pspd", "tsn", "cada", "labels"):
        found = [row for row in rows if row["variant"] == name]
        assert [row["seed"] for row in found] == list(range(6 if name == "pspd" else 3))
        cells = []
        for score in ("itc_r1", "itm_r1"):
            values = [row[score] for row in found]
            spread = f" ± {statistics.stdev(values):.2f}" if len(set(values)) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
        assert f" | {' | '.join(cells)} |\n" in readme, name


def row(variant: str, seed: int, features: float, reranked: float) -> dict:
    scores = {"itc_r1": features, "itm_r1": reranked, "itc_mAP": features, "itm_mAP": reranked}
    return {"variant": variant, "seed": seed, "protocol": "plain", **scores}


def test_results_become_a_table_and_a_picture(tmp_path):
    rows = [row("start", 0, 40.0, 41.0), row("pspd", 0, 50.0, 52.0), row("pspd", 1, 54.0, 56.0)]
    rows += [row("no-local", 1, 55.0, 55.5), row("no-local", 2, 99.0, 99.0)]
    study_rows.write_csv(tmp_path / "adaptation-target-cpu-2.15.0.csv", rows)
    texts = {path: path.read_text("utf-8") for path in pages.PAGES}
    page = pages.made_pages(texts, tmp_path)[pages.START]
    assert "| the start, no training | 0 | 40.00 | 41.00 | 40.00 | 41.00 |" in page
    assert "| PSPD | 0 1 | 52.00 ± 2.83 (50.00 to 54.00) | 54.00 ± 2.83 (52.00 to 56.00) |" in page
    assert "| TSN |  | to be measured |" in page
    assert "| without label correction |  | to be measured |" in page.partition("<!-- parts -->")[2]
    assert "| without the local loss | 1 | +1.00 | -0.50 | +1.00 | -0.50 |" in page, "by the seeds of both"
    demo_steps.draw(pages.read_study(adaptation.STUDY, tmp_path), tmp_path / "steps.png")
    with Image.open(tmp_path / "steps.png") as picture:
        assert picture.size > (600, 300)
    with pytest.raises(ValueError, match=r"run python -m benchmarks\.adaptation first"):
        demo_steps.draw([], tmp_path / "none.png")
