"""CLIP's tokenizer: open_clip's ids, texts cut before their end, and vocabularies learnt from captions."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import open_clip
import pytest

from models.backbones.clip.tokenizer import END, MASK, RELEASED_FILE, START, ClipTokenizer

ODD = [
    "",
    "red " * 100,
    "A man's wearing a T-shirt, don't  you? it's 12.5% café &amp; naïve 人 😀!!!...",
    "x-ray_y 'quoted'  \n\t tab; Supercalifragilisticexpialidocious 'S 'LL #1 <b>hi</b>",
]


@pytest.fixture(scope="module")
def released() -> ClipTokenizer:
    return ClipTokenizer.load(RELEASED_FILE)


@pytest.fixture(scope="module")
def trained(captions, tmp_path_factory) -> ClipTokenizer:
    return ClipTokenizer.train(captions * 2, tmp_path_factory.mktemp("pairs"), vocab_size=160)


def test_ids_are_open_clips(released, captions):
    theirs = open_clip.SimpleTokenizer()
    batch, expected = released([*captions, *ODD]), theirs([*captions, *ODD])
    assert (released.start_id, released.end_id) == (theirs.sot_token_id, theirs.eot_token_id)
    assert (released.mask_id, released.vocab_size) == (49408, 49409)
    assert batch.ids.equal(expected[:, : batch.ids.shape[1]] * batch.mask)
    assert not expected[:, batch.ids.shape[1] :].any()


def test_a_text_that_is_cut_keeps_its_end(released):
    for length in (77, 20, 2):
        ids = released.of_length(length)(["red " * 100]).ids[0].tolist()
        assert len(ids) == length
        assert (ids[0], ids[-1]) == (released.start_id, released.end_id)


def test_words_for_the_special_tokens_are_words(released):
    ids = released([f"a {START} {END} {MASK} man"]).ids[0].tolist()
    assert not {released.start_id, released.end_id, released.mask_id} & set(ids[1:-1])


def test_a_vocabulary_is_the_tokenizer(released, trained, captions, tmp_path):
    for tokenizer in (released, trained):
        again = ClipTokenizer(tokenizer.vocabulary)
        assert again(captions + ODD).ids.equal(tokenizer(captions + ODD).ids)
        assert again.vocabulary == tokenizer.vocabulary
    shipped = tmp_path / "merges.txt.gz"
    shipped.write_bytes(Path(open_clip.tokenizer.default_bpe()).read_bytes())
    assert ClipTokenizer.load(shipped).vocabulary == released.vocabulary


def test_no_captions_are_an_empty_batch(trained):
    assert trained([]).ids.shape == (0, 0)


def spelled(tokenizer: ClipTokenizer, caption: str) -> str:
    tokens = [tokenizer.vocabulary[number] for number in tokenizer([caption]).ids[0, 1:-1].tolist()]
    return "".join(tokens).replace(" ", "").replace("</w>", " ").strip()


def test_a_trained_vocabulary_spells_its_captions(trained, captions):
    assert trained.vocab_size <= 160
    assert trained.vocabulary[-3:] == (START, END, MASK)
    assert spelled(trained, "The man, in blue jeans;") == "the man , in blue jeans ;"
    batch = trained(captions)
    used = set(batch.ids[batch.mask].tolist())
    idle = {number for number, token in enumerate(trained.vocabulary) if token.startswith(" ")}
    assert not used & idle
    assert used | idle | {trained.mask_id} >= set(range(trained.vocab_size))


def test_pieces_of_a_word_have_its_number(released, trained):
    """The column of its first piece; what is no word has its own."""
    captions = ["a man's T-shirt, reddish-brown: (café) zzzqq; 12.5 shirt shirt", "her handbag"]
    batch = released(captions)
    for row, caption in enumerate(captions):
        numbers = batch.words[row][batch.mask[row]].tolist()
        tokens = [released.vocabulary[number].replace(" ", "") for number in batch.ids[row].tolist()]
        assert numbers == sorted(numbers)
        assert all(numbers[number] == number for number in numbers)
        spelled = {number: "" for number in numbers[1:-1]}
        for number, token in list(zip(numbers, tokens, strict=False))[1:-1]:
            spelled[number] += token.replace("</w>", "").replace("Ã©", "é")
        assert list(spelled.values()) == re.findall(r"\w+(?:[-']\w+)*|[^\w\s]+", caption.lower())
    assert trained(["the zebra man"]).words[0].tolist() == [0, 1, 2, 3]


def test_words_that_nothing_was_learnt_about_are_left_out(trained):
    assert spelled(trained, "the zebra man") == "the man"  # z is in no caption
    assert spelled(trained, "the naïve man") == "the man"
    assert spelled(trained, "the bleak man") == "the man"  # all letters are, but never as pieces of their own


def test_equal_captions_train_equal_files(captions, tmp_path):
    """The trainer's hash maps are seeded anew for each of these trainings."""
    files = set()
    for turn in range(6):
        texts = captions[turn % 4 :] + captions[: turn % 4]
        ClipTokenizer.train(texts * 2, tmp_path / str(turn), vocab_size=150)
        files.add((tmp_path / str(turn) / ClipTokenizer.file).read_bytes())
        assert ClipTokenizer.load(tmp_path / str(turn)).vocab_size <= 150
    assert len(files) == 1


def test_what_is_no_vocabulary_is_refused(captions, tmp_path):
    with pytest.raises(ValueError, match=f"no vocabulary at .*: name {RELEASED_FILE}"):
        ClipTokenizer.load(tmp_path)
    path = tmp_path / ClipTokenizer.file
    for content, complaint in (
        (b"\xff\xfe\x00", "can't be read as text"),
        (b"[PAD]\n[UNK]\nman\n", "ends otherwise"),
        (
            f"a\nb\na c\n{START}\n{END}\n".encode(),
            "line 3 of the vocabulary, 'a c', is no letter and no merge",
        ),
        (f"a\n\n{START}\n{END}\n".encode(), "line 2"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=complaint):
            ClipTokenizer.load(path)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"#version\na b\n" * 99)[:-9])
    with pytest.raises(ValueError, match="can't be read as text"):
        ClipTokenizer.load(cut)
    with pytest.raises(ValueError, match="cannot be trained on nothing"):
        ClipTokenizer.train(["", "  "], tmp_path, 100)
    with pytest.raises(ValueError, match=r"a vocabulary of 20 tokens does not hold .*: \d+ or more"):
        ClipTokenizer.train(captions, tmp_path, 20)
