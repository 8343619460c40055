"""A run that fills a collection, killed with SIGKILL at a place: what can be searched then, and that the same command mends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from data.errors import UserError
from serving.index import SearchIndex
from serving.stores import named_store
from tests.serving.commands import ROOT
from tests.serving.galleries import draw, draw_all, update
from tests.serving.test_milvus_store import check

pytest.importorskip("milvus_lite", reason="needs pip install -r requirements-stores.txt")

# Ends the process when a method is called for the n-th time, before or after it has done its work.
_CHILD = """
import importlib, os, runpy, signal, sys
place, index, pictures, store = sys.argv[1:]
module, owner, method, number, when = place.split(" ")
owner = getattr(importlib.import_module(module), owner)
plain, calls = getattr(owner, method), []

def watched(*arguments, **options):
    calls.append(1)
    last = len(calls) == int(number)
    if last and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = plain(*arguments, **options)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, method, watched)
sys.argv = ["galleries", index, pictures, store]
runpy.run_module("tests.serving.galleries", run_name="__main__")
"""


def killed(place: str, index, pictures, store: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), place, str(index), str(pictures), store]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("place", "published"),
    [
        ("serving.milvus_collection Collection create 1 after", None),
        (
            "serving.catalogue Catalogue add 1 before",
            None,
        ),  # the rows are in Milvus, the folder does not know
        ("serving.milvus_collection Collection flush 1 after", None),
        ("serving.milvus_store MilvusStore publish 1 after", True),
    ],
)
def test_killed_while_it_is_made(tmp_path, place, published):
    pictures, store = draw_all(tmp_path / "pictures", 20), f"milvus:{tmp_path / 'gallery.db'}"
    killed(place, tmp_path / "index", pictures, store)
    if not published:
        with pytest.raises(UserError, match=r"is not finished|is no search index"):
            SearchIndex(tmp_path / "index")
    report, encoded = update(tmp_path / "index", pictures, named_store(store))
    assert report.indexed == 20
    if "create" not in place:
        assert encoded == []  # what had reached Milvus is not done twice
    check(tmp_path / "index", pictures)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("place", "published"),
    [
        ("serving.milvus_store MilvusStore commit 1 after", False),
        ("serving.milvus_store MilvusStore publish 1 before", False),
        (
            "serving.milvus_store MilvusStore publish 1 after",
            True,
        ),  # both of a changed picture's rows are there
        ("serving.milvus_store MilvusStore wipe 1 after", True),
    ],
)
def test_killed_while_it_is_changed(tmp_path, place, published):
    pictures, store = draw_all(tmp_path / "pictures", 20), f"milvus:{tmp_path / 'gallery.db'}"
    update(tmp_path / "index", pictures, named_store(store)), SearchIndex(tmp_path / "index").close()
    (pictures / "003.png").unlink()
    draw(pictures, "005.png", 500)
    draw(pictures, "100.png", 100)
    killed(place, tmp_path / "index", pictures, store)
    index = SearchIndex(tmp_path / "index")
    images = {one.image for block, _ in index.everything() for one in block}
    assert ("100.png" in images) == published
    assert published or "003.png" in images  # as it was before
    index.close()
    draw(pictures, "101.png", 101)  # and the folder goes on changing
    report, encoded = update(tmp_path / "index", pictures, named_store(store))
    assert report.indexed == 21
    assert encoded == ["101.png"]
    check(tmp_path / "index", pictures)


@pytest.mark.integration
@pytest.mark.parametrize("kept", [0, 60, 200])
def test_an_index_that_milvus_lite_had_half_written_is_made_anew(tmp_path, kept):
    """It writes them in place; what they are made of is safe."""
    pictures, store = draw_all(tmp_path / "pictures", 20), f"milvus:{tmp_path / 'gallery.db'}"
    update(tmp_path / "index", pictures, named_store(store))
    written = [*(tmp_path / "gallery.db").rglob("*.idx")]
    for path in written:
        os.truncate(path, kept)
    assert written
    check(tmp_path / "index", pictures)
    assert update(tmp_path / "index", pictures, named_store(store))[1] == []
