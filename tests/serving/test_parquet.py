"""An index as a Parquet file, as any other program reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.index import SearchIndex
from serving.stores import named_store
from tests.serving.commands import run
from tests.serving.footage_files import write_table
from tests.serving.galleries import draw_all, update

pytest.importorskip("pyarrow", reason="needs pip install -r requirements-stores.txt")


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = draw_all(tmp_path / "pictures", 12)
    for path in sorted(folder.glob("*.png")):
        path.rename(path.with_suffix(".jpg"))
    return folder


@pytest.mark.parametrize("store", ["faiss", "milvus"])
def test_another_program_reads_features_paths_and_times(pictures, tmp_path, store):
    pandas = pytest.importorskip("pandas")
    kept_in = {}
    if store == "milvus":
        pytest.importorskip("milvus_lite")
        kept_in = named_store(f"milvus:{tmp_path / 'gallery.db'}")
    origins = write_table(pictures)
    update(tmp_path / "index", pictures, kept_in)
    target = tmp_path / "new" / "gallery.parquet"
    for _ in range(2):  # the second one takes the place of the first
        ended = run("export", "--index", tmp_path / "index", "--to", target, "--format", "parquet")
        assert ended.code == 0
    assert ended.output == f"Exported 12 images with their features to {target}.\n"
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    table = pandas.read_parquet(target)
    index = SearchIndex(tmp_path / "index")
    assert sorted(table["path"]) == sorted(path.name for path in pictures.glob("*.jpg"))
    for line in table.itertuples():
        np.testing.assert_allclose(line.feature, index.feature(line.row), atol=1e-7)
        assert index.holds(line.row, line.path)
        origin = origins.get(line.path)
        if origin is None:
            assert line.box is None
            assert pandas.isna(line.source)
            assert pandas.isna(line.seconds)
        else:
            assert (line.source, line.seconds, line.frame, tuple(line.box)) == tuple(vars(origin).values())
    from pyarrow import parquet

    about = json.loads(parquet.read_schema(target).metadata[b"person_search"])
    assert about == {"format": 1, "checkpoint": "digest", "images": str(pictures)}
    index.close()


def test_what_can_not_be_exported_is_told(pictures, tmp_path, messages, capsys, monkeypatch):
    update(tmp_path / "index", pictures)

    def fails(target: Path) -> str:
        assert run("export", "--index", tmp_path / "index", "--to", target).code == 1
        return messages[-1]

    (tmp_path / "thesis.parquet").write_text("years of work")
    assert "is another file: name a new one" in fails(tmp_path / "thesis.parquet")
    assert (tmp_path / "thesis.parquet").read_text() == "years of work"
    assert "does not end in .parquet" in fails(tmp_path / "gallery.csv")
    (tmp_path / "folder.parquet").mkdir()
    assert "is a folder" in fails(tmp_path / "folder.parquet")
    assert "can't be written" in fails(tmp_path / "thesis.parquet" / "a.parquet")
    for arguments, words in (
        (["--index", "x", "--to", "y", "--format", "onnx"], "--format onnx goes with --checkpoint FILE"),
        (["--checkpoint", "x", "--to", "y", "--format", "parquet"], "--format parquet goes with --index"),
        (["--index", "x", "--to", "y", "--half"], "--half is for models"),
        (["--to", "y"], "one of the arguments --checkpoint --index is required"),
    ):
        assert run("export", *arguments).code == 2
        assert words in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert fails(tmp_path / "b.parquet").endswith("pip install -r requirements-stores.txt.")
