"""The word vocabulary: what is a word, which are kept, ids and padding, and files that are no vocabularies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backbones.resnet_lstm import words as module
from models.backbones.resnet_lstm.words import Words, words_of

CAPTION = "A man in a red T-shirt, blue jeans; the woman's 'red' bag -- and (2) shoes."
LEARNT_FROM = ["a red shirt and red shoes", "Shirt, and a bag!", "A coat."]


def test_words_lose_case_and_punctuation_but_not_hyphens():
    expected = "a man in a red t-shirt blue jeans the woman's red bag and 2 shoes"
    assert words_of(CAPTION) == expected.split()
    assert words_of("black/white,grey_green é’s “straw hat”…") == [
        "black",
        "white",
        "grey",
        "green",
        "é’s",
        "straw",
        "hat",
    ]
    assert words_of(" .,-' ") == []
    assert len(words_of("word " * 200)) == 100


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_a_word_is_a_word_again(text):
    for word in words_of(text):
        assert words_of(word) == [word]
        assert word.splitlines() == [word]


def test_words_that_occur_twice_in_the_order_they_first_do(tmp_path):
    vocabulary = Words.train(LEARNT_FROM, tmp_path, vocab_size=100)
    assert vocabulary.vocabulary == ("a", "red", "shirt", "and")
    assert vocabulary.vocab_size == 5
    assert (tmp_path / "words.txt").read_bytes() == b"a\nred\nshirt\nand\n"
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]


def test_of_too_many_words_the_most_frequent_stay(tmp_path):
    """ "a" three times; of the others, which occur twice, the first."""
    assert Words.train(LEARNT_FROM, tmp_path, vocab_size=3).vocabulary == ("a", "red")
    assert Words.train(["z y x x", "x y z"], tmp_path / "deeper" / "still", vocab_size=3).vocabulary == (
        "z",
        "x",
    )


def test_ids_and_padding():
    vocabulary = Words(["red", "shirt", "a"])
    batch = vocabulary(["A RED shirt, unheard of", "zebra", "shirt"])
    assert batch.ids.tolist() == [[3, 1, 2], [0, 0, 0], [2, 0, 0]]
    assert batch.mask.equal(batch.ids > 0)
    assert (batch.ids.dtype, batch.mask.dtype, batch.full) == (torch.int64, torch.bool, False)
    assert vocabulary(["a red shirt"] * 2, max_length=2).ids.tolist() == [[3, 1]] * 2
    assert vocabulary(["red " * 150]).ids.shape == (1, 100)


def test_captions_without_a_known_word_are_rows_of_padding():
    vocabulary = Words(["red"])
    for captions in (["zebra", ""], ["zebra"], []):
        batch = vocabulary(captions)
        assert batch.ids.shape == (len(captions), 1)
        assert not batch.mask.any()
        assert not batch.ids.any()


def test_a_caption_does_not_depend_on_the_others():
    vocabulary = Words(words for words in dict.fromkeys(words_of(CAPTION)))
    captions = [CAPTION, "red", "nothing", "the man and the woman's bag"]
    together = vocabulary(captions)
    for caption, ids, mask in zip(captions, together.ids, together.mask, strict=True):
        alone = vocabulary([caption])
        assert alone.ids[alone.mask].equal(ids[mask])


def test_vocabulary_makes_the_tokenizer_again(tmp_path):
    first = Words.train(LEARNT_FROM, tmp_path, vocab_size=100)
    for again in (Words(first.vocabulary), Words.load(tmp_path), Words.load(tmp_path / Words.file)):
        assert again.vocabulary == first.vocabulary
        assert again(LEARNT_FROM).ids.equal(first(LEARNT_FROM).ids)


def test_captions_that_teach_nothing(tmp_path):
    for captions in ([], ["each word here once"], ["...", "..."]):
        with pytest.raises(ValueError, match="no word occurs 2 times"):
            Words.train(captions, tmp_path, vocab_size=100)
    assert not list(tmp_path.iterdir())


def test_half_a_vocabulary_is_never_there(tmp_path, monkeypatch):
    """The file appears under its name when it is whole: a write that fails leaves the former one."""
    Words.train(LEARNT_FROM, tmp_path, vocab_size=100)
    before = (tmp_path / Words.file).read_bytes()

    def full_disk(path, text, encoding):
        with open(path, "w", encoding=encoding) as file:
            file.write(text[: len(text) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(module.Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        Words.train(["other words", "other words"], tmp_path, vocab_size=100)
    assert (tmp_path / Words.file).read_bytes() == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no word in it"),
        (b"red\n\nblue\n", "line 2 .* '', is no word"),
        (b"red\nBlue\n", "line 2 .* 'Blue'"),
        (b"a\nred shirt\n", "line 2"),
        (b"[PAD]\n[UNK]\n", "line 1"),
        (b"red\nblue\nred\n", "'red' is in the vocabulary twice"),
        (b"\xff\xfe\x00red", "no text file"),
    ],
)
def test_files_that_are_no_vocabularies(tmp_path, content, complaint):
    path = tmp_path / Words.file
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as raised:
        Words.load(tmp_path)
    assert str(path) in str(raised.value)


def test_no_file(tmp_path):
    for place in (tmp_path, tmp_path / "elsewhere"):
        with pytest.raises(ValueError, match="train one on the captions"):
            Words.load(place)
