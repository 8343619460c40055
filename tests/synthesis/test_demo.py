"""The demo set on disk: formats, splits, and the same bytes whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from synthesis import demo
from synthesis.contact_sheet import contact_sheet, side_by_side
from synthesis.demo import DemoError, main, make_demo

SIZES = {"train": 5, "val": 2, "test": 3, "images": 4}


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def cuhk(tmp_path_factory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo"), **SIZES)


def test_cuhk_format(cuhk):
    records = json.loads((cuhk / "reid_raw.json").read_text())
    assert cuhk.name == "CUHK-PEDES"
    assert len(records) == 40
    for record in records:
        assert set(record) == {"split", "captions", "file_path", "processed_tokens", "id"}
        assert len(record["captions"]) == len(record["processed_tokens"]) == 2
        assert record["file_path"].split("/")[0] in ("cam_a", "cam_b")
        with Image.open(cuhk / "imgs" / record["file_path"]) as image:
            assert image.mode == "RGB"
            assert 128 <= image.height <= 200


def test_splits_share_no_identity(cuhk):
    records = json.loads((cuhk / "reid_raw.json").read_text())
    splits = {name: {r["id"] for r in records if r["split"] == name} for name in ("train", "val", "test")}
    assert [len(ids) for ids in splits.values()] == [5, 2, 3]
    assert len(set.union(*splits.values())) == 10


def test_icfg_format_has_no_val_split(tmp_path):
    folder = make_demo(tmp_path, "icfg_pedes", **SIZES)
    records = json.loads((folder / "ICFG-PEDES.json").read_text())
    assert {record["split"] for record in records} == {"train", "test"}
    assert all(len(record["captions"]) == 1 for record in records)
    assert set(records[0]) == {"split", "captions", "file_path", "processed_tokens", "id"}
    # The storage folder must not give the split away.
    assert len({(r["split"], r["file_path"].split("/")[0]) for r in records}) == 4


def test_rstp_format(tmp_path):
    folder = make_demo(tmp_path, "rstpreid", **SIZES)
    records = json.loads((folder / "data_captions.json").read_text())
    assert set(records[0]) == {"id", "img_path", "captions", "split"}
    assert all("/" not in record["img_path"] and len(record["captions"]) == 2 for record in records)
    assert min(record["id"] for record in records) == 0


def test_attributes_stay_apart_from_the_annotation(cuhk):
    truth = json.loads((cuhk / "attributes.json").read_text())
    records = json.loads((cuhk / "reid_raw.json").read_text())
    assert set(truth["images"]) == {record["file_path"] for record in records}
    assert {str(record["id"]) for record in records} == set(truth["identities"])
    for record in records:
        assert truth["images"][record["file_path"]]["identity"] == record["id"]


def test_a_second_run_changes_nothing(cuhk):
    before = {path: path.stat().st_mtime_ns for path in cuhk.rglob("*")}
    assert make_demo(cuhk.parent, **SIZES) == cuhk
    assert {path: path.stat().st_mtime_ns for path in cuhk.rglob("*")} == before


@pytest.mark.integration
def test_bytes_do_not_depend_on_the_workers(cuhk, tmp_path):
    assert _digest(make_demo(tmp_path, **SIZES, workers=2)) == _digest(cuhk)


def test_bytes_depend_on_the_seed(cuhk, tmp_path):
    other = _digest(make_demo(tmp_path, **SIZES, seed=1))
    assert other["reid_raw.json"] != _digest(cuhk)["reid_raw.json"]


def test_an_interrupted_run_is_continued_to_the_same_bytes(cuhk, tmp_path, monkeypatch, capsys):
    drawn: list[int] = []
    original = demo.draw_identity

    def dies_at_the_fifth(task, **options):
        if len(drawn) == 4:
            raise KeyboardInterrupt
        drawn.append(task[0])
        return original(task, **options)

    monkeypatch.setattr(demo, "draw_identity", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, **SIZES)
    journal = tmp_path / ".CUHK-PEDES.partial" / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20])  # the last line torn, as by a kill
    assert not (tmp_path / "CUHK-PEDES").exists()
    monkeypatch.setattr(demo, "draw_identity", original)
    folder = make_demo(tmp_path, **SIZES)
    assert "3 of 10 identities" in capsys.readouterr().out
    assert _digest(folder) == _digest(cuhk)


def test_a_real_dataset_is_never_touched(tmp_path):
    folder = tmp_path / "CUHK-PEDES"
    folder.mkdir()
    (folder / "reid_raw.json").write_text("[]")
    with pytest.raises(DemoError, match="was not made here"):
        make_demo(tmp_path, **SIZES)
    assert _digest(folder).keys() == {"reid_raw.json"}


def test_another_demo_set_is_refused_with_what_differs(cuhk):
    with pytest.raises(DemoError, match=r"differs in seed.*remove it or choose another root"):
        make_demo(cuhk.parent, **SIZES, seed=9)


@pytest.mark.parametrize(
    ("changes", "words"), [({"fmt": "market"}, "choose one of"), ({"images": 0}, "at least 1")]
)
def test_bad_arguments_get_one_sentence(tmp_path, changes, words):
    with pytest.raises(DemoError, match=words):
        make_demo(tmp_path, **(SIZES | changes))


def test_command_line(tmp_path, capsys):
    sizes = ["--train", "2", "--val", "1", "--test", "1", "--images", "2", "--workers", "1"]
    assert main(["--root", str(tmp_path), "--format", "rstpreid", *sizes]) == 0
    assert (tmp_path / "RSTPReid" / "data_captions.json").exists()
    assert main(["--root", str(tmp_path), "--format", "rstpreid", *sizes, "--seed", "3"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_contact_sheet_shows_crops(cuhk):
    sheet = contact_sheet(cuhk, identities=3)
    assert sheet.width > 1000
    assert len(sheet.getcolors(maxcolors=10**6)) > 1000
    both = side_by_side((cuhk, cuhk), identities=1)
    middle = both.width // 2
    # The same half twice, under the same name.
    left, right = (
        both.crop((0, 0, middle - 6, both.height)),
        both.crop((middle + 6, 0, both.width, both.height)),
    )
    assert left.tobytes() == right.tobytes()
    assert len(left.getcolors(maxcolors=10**6)) > 1000
    with pytest.raises(ValueError, match="ask for fewer"):
        contact_sheet(cuhk, identities=4)
    with pytest.raises(ValueError, match="holds none of"):
        contact_sheet(cuhk / "imgs", identities=1)
