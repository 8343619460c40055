"""A data set is one file in data/: found, named in the configuration, read and checked without another line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import data
from data import DATASETS, Record, load_dataset
from data.registry import find_datasets
from engine.config import ConfigError, load_config

REPOSITORY = Path(__file__).resolve().parents[2]
LINES = '''
"""One line per image: split, identity, path and caption, divided by tabs."""

from pathlib import Path

from data.records import SPLITS, PedesDataset, Record


def lines_of(root):
    name = Path(root) / "lines.tsv"
    return [line.split("\\t") for line in name.read_text("utf-8").splitlines()]


class Lines:
    name: str = "lines"

    @classmethod
    def load(cls, root):
        splits = {split: [] for split in SPLITS}
        for split, identity, image, caption in lines_of(root):
            splits[split].append(Record(image, int(identity), (caption,)))
        return PedesDataset(cls.name, Path(root), **splits)


class NoDataset:
    name = "nothing to load"
'''


@pytest.fixture
def root(tmp_path) -> Path:
    """Two images in the format of LINES."""
    lines = ["train\t7\ta.png\ta man in a red coat", "test\t9\tb.png\ta woman in a white dress"]
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "lines.tsv").write_text("\n".join(lines), "utf-8")
    for image in ("a.png", "b.png"):
        Image.new("RGB", (12, 24), "red").save(folder / image)
    return folder


def test_those_of_this_room_are_there_by_their_names():
    assert list(DATASETS) == ["cuhk_pedes", "folder", "icfg_pedes", "rstpreid", "synthetic"]
    assert all(kind.name == name for name, kind in DATASETS.items())


def test_one_more_file_is_one_more_data_set(tmp_path, root, monkeypatch):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "lines.py").write_text(LINES, "utf-8")
    (tmp_path / "files" / "costly.py").write_text("class Costly:\n    size = 1\n\nname = 1\nraise SystemExit")
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(tmp_path / "files")])
    found = find_datasets(data)
    sys.modules.pop("data.lines")
    assert list(found) == sorted([*DATASETS, "lines"])
    monkeypatch.setitem(DATASETS, "lines", found["lines"])
    dataset = load_dataset("lines", root)
    assert dataset.train == [Record("a.png", 7, ("a man in a red coat",))]
    assert [record.identity for record in dataset.test] == [9]
    assert load_config([], ["dataset.name=lines"]).dataset.label == "lines"


def test_the_file_alone_is_enough_and_brings_no_torch(tmp_path, root):
    """In a copy of the room, as its author would add it, with nothing else changed."""
    shutil.copytree(REPOSITORY / "data", tmp_path / "data", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data" / "lines.py").write_text(LINES, "utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)

    modules = run("-c", "import data, sys; print(*{name.split('.')[0] for name in sys.modules})")
    assert not {"torch", "numba", "numpy", "PIL"} & set(modules.stdout.split()), modules.stderr
    report = run("-m", "data.validate", "--name", "lines", "--root", str(root))
    assert "The dataset is ready." in report.stdout, report.stderr


@pytest.mark.parametrize("where", ["file", "override"])
def test_a_misspelt_data_set_is_refused_before_anything_starts(tmp_path, where):
    path = tmp_path / "mine.yaml"
    path.write_text("dataset:\n  name: cuhk\n" if where == "file" else "", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config([path], ["dataset.name=cuhk"] if where == "override" else [])
    assert str(caught.value) == (
        f"'dataset.name' ({f'{path}, line 2' if where == 'file' else '--set dataset.name=cuhk'}) has the value 'cuhk': "
        "there is no such data set; choose one of cuhk_pedes, folder, icfg_pedes, rstpreid, synthetic."
    )
