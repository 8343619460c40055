"""Any annotation file gives a correct dataset or a UserError, never another exception."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path, PurePosixPath

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import UserError, load_dataset

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
paths = st.one_of(
    st.text(st.sampled_from("ab./\\ C:~é\n"), max_size=12),
    st.lists(st.sampled_from(["a", "..", ".", "", "b.jpg", "C:"]), max_size=5).map("/".join),
    json_values,
)
good_paths = st.integers(0, 30).map(lambda n: f"cam/{n}.jpg")
good_records = st.fixed_dictionaries(
    {
        "id": st.integers(0, 5),
        "split": st.sampled_from(["train", "VAL", "Test"]),
        "file_path": good_paths,
        "captions": st.lists(st.text(max_size=15), max_size=4),
    }
)
wild_records = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(-2, 5) | json_values,
        "split": st.sampled_from(["train", "test", "x"]) | json_values,
        "file_path": paths,
        "captions": st.lists(st.text(max_size=5)) | json_values,
        "processed_tokens": json_values,
    },
)


def load(content: bytes):
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "CUHK-PEDES")
        folder.mkdir()
        (folder / "reid_raw.json").write_bytes(content)
        try:
            return load_dataset("cuhk_pedes", root)
        except UserError as error:
            sentence = str(error)
    assert "\n" not in sentence
    assert len(sentence.encode("utf-8")) < 2_000
    return None


def check_well_formed(dataset) -> None:
    for split in ("train", "val", "test"):
        for image, identity, captions in dataset.split(split):
            path = PurePosixPath(image)
            assert not path.is_absolute()
            assert ".." not in path.parts
            assert str(path) == image
            assert 0 <= identity < 2**63
            assert all(caption.strip() == caption != "" for caption in captions)
            "".join(captions).encode("utf-8")


@SETTINGS
@given(st.binary(max_size=200))
def test_any_bytes(content):
    dataset = load(content)
    assert dataset is None


@SETTINGS
@given(json_values)
def test_any_json(value):
    load(json.dumps(value).encode())


@SETTINGS
@given(st.lists(wild_records | good_records | json_values, max_size=6))
def test_any_mixture_of_records(items):
    dataset = load(json.dumps(items).encode())
    if dataset is not None:
        check_well_formed(dataset)


@SETTINGS
@given(st.lists(good_records, min_size=1, max_size=30))
def test_good_records_give_what_a_plain_loop_gives(items):
    dataset = load(json.dumps(items).encode())
    check_well_formed(dataset)
    for split in ("train", "val", "test"):
        images, sentences = [], set()
        for item in items:
            if item["split"].lower() == split:
                key = (item["file_path"], item["id"])
                if key not in images:
                    images.append(key)
                for caption in item["captions"]:
                    if caption.strip():
                        sentences.add((*key, caption.strip()))
        records = dataset.split(split)
        assert [(record.image, record.identity) for record in records] == images
        assert {(r.image, r.identity, caption) for r in records for caption in r.captions} == sentences


@SETTINGS
@given(st.lists(good_records, min_size=1, max_size=5), st.data())
def test_truncated_files(items, data):
    content = json.dumps(items).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    assert load(content[:cut]) is None
