"""The validator reads captions and looks for images that a model would meet in training and in the test."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.caption_checks import LONG, check_captions, has_code, has_other_script, plain
from data.overlap import equal_images
from data.records import PedesDataset, Record
from data.validate import main


def dataset(tmp_path, **splits):
    """A data set whose records are given as (identity, caption, ...) per split."""
    records = {"train": [], "val": [], "test": []}
    for split, rows in splits.items():
        records[split] = [
            Record(f"{split}/{n}.png", identity, tuple(captions))
            for n, (identity, *captions) in enumerate(rows)
        ]
    return PedesDataset("cuhk_pedes", tmp_path, **records)


def found(tmp_path, **splits):
    return [(finding.level, finding.text) for finding in check_captions(dataset(tmp_path, **splits))]


def test_ordinary_captions_are_no_finding(tmp_path):
    captions = ["A man's T-shirt is half-red, half-blue (or so).", "She wears 2 scarves; a café crème coat!"]
    assert not found(
        tmp_path, train=[(1, *captions), (1, captions[0])], test=[(2, "A woman in a naïve hat.")]
    )


def test_one_sentence_on_several_people(tmp_path):
    rows = [(1, "A man in red."), (2, "a man in  red", "a man in blue"), (2, "A man in blue!")]
    ((level, text),) = found(tmp_path, test=rows)
    assert level == "warning"
    assert text.startswith("2 caption(s) of test stand with several identities: no ranking")
    assert "'A man in red.', 'a man in  red'" in text
    ((level, _),) = found(tmp_path, train=rows)
    assert level == "note"
    assert not found(tmp_path, test=[(-1, "A man."), (-1, "A man.")])


@pytest.mark.parametrize(
    ("caption", "what"),
    [
        ("a man 穿着红色外套", "not Latin"),
        ("человек in red", "not Latin"),
        ("a man in {color} shoes", "code"),
        (r"a man\n in red", "code"),
        ("see https://example.org for it", "code"),
        ("man", "one word"),
        ("red " * (LONG + 1), f"more than {LONG} words"),
    ],
)
def test_odd_captions_are_counted_with_an_example(tmp_path, caption, what):
    ((level, text),) = found(tmp_path, val=[(1, caption, "a man in a red coat"), (2, "a man in a blue coat")])
    assert level == "note"
    assert text.startswith("1 caption(s) of val ")
    assert what in text
    assert repr(caption)[:20] in text


def test_sentences_that_training_has_seen(tmp_path):
    ((level, text),) = found(tmp_path, train=[(1, "A red coat.")], test=[(2, "a red coat", "a blue coat")])
    assert level == "note"
    assert "1 caption(s) of test stand in train word for word" in text


@given(st.text(alphabet=st.characters(codec="latin-1", exclude_characters="{}<>[]\\|=^`;:()"), max_size=60))
def test_western_sentences_are_neither_script_nor_code(text):
    assert not has_other_script(text)
    assert not has_code(text.replace("http", ""))


@given(st.text(max_size=40))
def test_comparing_is_stable(text):
    assert plain(plain(text)) == plain(text)
    has_other_script(text)


def test_equal_files_are_found_by_content(tmp_path):
    for name, content in {"a": b"one", "b": b"two", "c": b"", "d": b"two", "e": b"", "f": b"fourth"}.items():
        (tmp_path / name).write_bytes(content)
    first, second = (
        [tmp_path / name for name in names] for names in (["a", "b", "c", "missing"], ["d", "e", "f"])
    )
    assert equal_images(first, second) == [(tmp_path / "b", tmp_path / "d")]
    assert equal_images(second, first) == [(tmp_path / "d", tmp_path / "b")]


def test_images_of_train_in_test_of_this_and_of_another_set(write_dataset, items, capsys, tmp_path):
    root = write_dataset()
    images = root / "CUHK-PEDES/imgs"
    assert main(["--name", "cuhk_pedes", "--root", str(root)]) == 0
    assert "byte for byte" not in capsys.readouterr().out
    shutil.copy(
        images / "cam_0/0_0.png", images / "cam_1/2_1.png"
    )  # train's identity 0 in the place of a test image
    assert main(["--name", "cuhk_pedes", "--root", str(root)]) == 0
    output = capsys.readouterr().out
    assert "warning: 1 image(s) of test are also in train, byte for byte" in output
    assert "2_1.png is 0_0.png" in output
    write_dataset("rstpreid")
    config = tmp_path / "trained_on.yaml"
    config.write_text(f"dataset: {{name: rstpreid, root: {root}}}\n")
    assert main(["--name", "icfg_pedes", "--root", str(write_dataset("icfg_pedes"))]) == 0
    assert "byte for byte" not in capsys.readouterr().out
    shutil.copy(root / "RSTPReid/imgs/cam_2/0_2.png", root / "ICFG-PEDES/imgs/cam_0/2_0.png")
    assert main(["--name", "icfg_pedes", "--root", str(root), "--against", str(config)]) == 0
    output = capsys.readouterr().out
    assert "1 image(s) of test are also in the train split of rstpreid, byte for byte" in output
