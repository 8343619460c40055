from __future__ import annotations

import json

import numpy as np
import pytest

from retrieval import results
from retrieval.evaluate import evaluate
from retrieval.results import table, write_atomically, write_results

QUERY_IDS, GALLERY_IDS = np.arange(40) % 8, np.repeat(np.arange(8), 3)
ABOUT = {"dataset": "demo", "method": "pspd", "split": "test", "protocol": "plain", "selected_on": "val"}
COMPUTED = {"processor": "abacus", "libraries": {"torch": "2.14.1"}}


@pytest.fixture
def evaluation(tiny_model, tiny_images, captions):
    return evaluate(tiny_model, [tiny_images], captions, QUERY_IDS, GALLERY_IDS, k_test=12)


def write(path, evaluation, captions):
    images = [f"imgs/{i}.jpg" for i in range(24)]
    return write_results(
        path, evaluation, **ABOUT, captions=captions, query_ids=QUERY_IDS, images=images, computed=COMPUTED
    )


def test_results_hold_exactly_the_agreed_fields(evaluation, captions, tmp_path):
    path = tmp_path / "run" / "results.json"
    record = write(path, evaluation, captions)
    read = json.loads(path.read_text())
    assert read == record
    assert list(read) == [*ABOUT, "itc", "itm", "queries", "gallery", "seconds", "computed", "trained_on"]
    assert read["computed"] == COMPUTED
    assert list(read["itc"]) == list(read["itm"]) == ["r1", "r5", "r10", "mAP", "mINP"]
    assert {key: read[key] for key in ABOUT} == ABOUT
    assert read["itm"]["mAP"] == pytest.approx(evaluation.itm["mAP"], abs=1e-4)


def test_a_line_per_query(evaluation, captions, tmp_path):
    write(tmp_path / "results.json", evaluation, captions)
    lines = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == list(range(40))
    assert [line["caption"] for line in lines] == captions
    for line in lines:
        hits = [rank for rank, g in enumerate(line["top_indices"], 1) if GALLERY_IDS[g] == line["identity"]]
        assert (hits or [None])[0] == (line["first_hit_itm"] if line["first_hit_itm"] <= 10 else None)
        assert line["top"] == [f"imgs/{g}.jpg" for g in line["top_indices"]]
    share = np.mean([line["first_hit_itc"] <= 5 for line in lines])
    assert 100 * share == pytest.approx(evaluation.itc["r5"])


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_table_shows_both_rows(evaluation, captions, tmp_path):
    lines = table(write(tmp_path / "results.json", evaluation, captions)).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[-5:] == ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"]
    assert lines[1].split()[-5] == f"{evaluation.itc['r1']:.2f}"
    assert lines[2].startswith("with ITM re-ranking")
    assert lines[2].split()[-2] == f"{evaluation.itm['mAP']:.2f}"
