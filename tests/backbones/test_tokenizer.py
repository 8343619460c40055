"""Cleaning, ids, word alignment, training and batches of the tokenizer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from models.backbones.blip.tokenizer import BlipTokenizer
from models.texts import TextBatch, clean_caption


def test_clean_caption():
    assert (
        clean_caption('The  man. is "Wearing" (a)\tRED-coat!*#:;~ , ok?\n')
        == "the man is wearing a red-coat , ok?"
    )
    assert clean_caption("a " * 100).split() == ["a"] * 72
    assert clean_caption("one two three", max_words=2) == "one two"


@given(st.text())
def test_clean_caption_is_stable(text):
    cleaned = clean_caption(text)
    assert clean_caption(cleaned) == cleaned
    assert not set('.!"()*#:;~') & set(cleaned)
    assert "  " not in cleaned


def test_bert_vocabulary_gives_blip_ids(bert_pieces, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(bert_pieces) + "\n")
    for source in (tmp_path, tmp_path / "vocab.txt"):
        tokenizer = BlipTokenizer.load(source)
        assert tokenizer.vocab_size == 30524
        assert (tokenizer.dec_id, tokenizer.enc_id) == (30522, 30523)
        assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 101, 102, 103)


def test_ids_equal_transformers_bert_tokenizer(bert_pieces, captions, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(bert_pieces) + "\n")
    theirs = BertTokenizerFast(vocab={piece: number for number, piece in enumerate(bert_pieces)})
    odd = ["Café naïve 漢字 word7", "", "antidisestablishment" * 8, "t-shirt's, o'clock / x"]
    ours = BlipTokenizer.load(path)
    for caption in captions + odd:
        expected = theirs(clean_caption(caption), truncation=True, max_length=73)["input_ids"]
        expected = [number for number in expected if number != ours.unknown_id]  # said nothing: left out
        batch = ours([caption])
        assert batch.ids[0].tolist() == expected
        assert batch.mask.all()


def test_vocabulary_makes_the_tokenizer_again(tokenizer, captions):
    again = BlipTokenizer(tokenizer.vocabulary)
    assert (again.vocab_size, again.dec_id, again.enc_id) == (
        tokenizer.vocab_size,
        tokenizer.dec_id,
        tokenizer.enc_id,
    )
    assert again(captions).ids.equal(tokenizer(captions).ids)


def test_padding_and_truncation(tokenizer, captions):
    batch = tokenizer(captions, max_length=9)
    assert batch.ids.shape == (4, 9)
    assert batch.ids.dtype == torch.int64
    assert batch.mask.dtype == torch.bool
    for row, mask, caption in zip(batch.ids, batch.mask, captions, strict=True):
        assert row[0] == tokenizer.cls_id
        assert row[mask][-1] == tokenizer.sep_id
        assert (row[~mask] == tokenizer.pad_id).all()
        alone = tokenizer([caption], max_length=9)
        assert alone.ids[0].tolist() == row[mask].tolist()
    assert len(tokenizer([])) == 0


def test_word_mask_is_by_word_not_by_piece(tokenizer):
    caption = "The man in a leather jacket, a T-shirt and her other shirt"
    words = tokenizer.words(caption)
    assert len(words) == tokenizer([caption]).ids.shape[1]
    for collection in ({"her"}, {"shirt"}, {"t-shirt", "JACKET"}, {"leat"}, set(), {"leather jacket"}):
        chosen = {word for entry in collection for word in entry.lower().split()}
        expected = [word in chosen for word in words]
        assert tokenizer.word_mask([caption], [collection])[0].tolist() == expected
    assert sum(tokenizer.word_mask([caption], [{"leat"}])[0]) == 0
    kept = [
        w for w, on in zip(words, tokenizer.word_mask([caption], [{"her", "t-shirt"}])[0], strict=True) if on
    ]
    assert set(kept) == {"her", "t-shirt"}


def test_words_spell_the_caption_and_leave_punctuation_out(tokenizer):
    words = tokenizer.words("A man, in 'blue' - jeans?")
    assert words[0] is None
    assert words[-1] is None
    assert list(dict.fromkeys(word for word in words if word)) == ["a", "man", "in", "blue", "jeans"]


def test_word_mask_fits_the_batch(tokenizer, captions):
    for length in (5, 73):
        mask = tokenizer.word_mask(captions, [["red"], [], ["backpack"], ["dress"]], max_length=length)
        batch = tokenizer(captions, max_length=length)
        assert mask.shape == batch.ids.shape
        assert not mask[~batch.mask].any()
    with pytest.raises(ValueError, match="pair up"):
        tokenizer.word_mask(captions, [[]])


def test_decode(tokenizer, captions):
    for caption in captions:
        text = tokenizer.decode(tokenizer([caption]).ids[0])
        assert text.replace(" ", "") == clean_caption(caption).replace(" ", "")
    assert tokenizer.decode(tokenizer(["A red t-shirt, (blue) jeans"]).ids[0]) == "a red t-shirt, blue jeans"


def test_training_does_not_depend_on_order(tmp_path, captions):
    reference = BlipTokenizer.train(captions * 3, tmp_path / "one", vocab_size=150)
    BlipTokenizer.train(captions[::-1] * 3, tmp_path / "two", vocab_size=150)
    files = [(tmp_path / name / "vocab.txt").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    pieces = files[0].decode().splitlines()
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(pieces) <= 150
    assert reference.vocab_size == len(pieces) + 2 == BlipTokenizer.load(tmp_path / "one").vocab_size
    assert reference.unknown_id not in reference(captions).ids


@pytest.mark.integration
def test_training_does_not_depend_on_the_process(tmp_path, captions):
    """The trainer's hash maps are seeded anew in every process."""
    BlipTokenizer.train(captions * 3, tmp_path / "here", vocab_size=150)
    script = (
        "import sys; from models.backbones.blip.tokenizer import BlipTokenizer;"
        "BlipTokenizer.train(sys.argv[2:], sys.argv[1], vocab_size=150)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / "there"), *(captions * 3)]
    subprocess.run(command, check=True, cwd=root)
    assert (tmp_path / "here" / "vocab.txt").read_bytes() == (tmp_path / "there" / "vocab.txt").read_bytes()


def test_bad_vocabularies(tmp_path):
    with pytest.raises(ValueError, match="README"):
        BlipTokenizer.load(tmp_path)
    path = tmp_path / "vocab.txt"
    for content, words in (
        (b"hello\nworld\n", "lacks"),
        (b"[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\n", "first line"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "twice"),
        (b"\xff\xfe\x00", "no text file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            BlipTokenizer.load(path)
    with pytest.raises(ValueError, match="no caption"):
        BlipTokenizer.train(["", " . "], tmp_path)


def batch_of(lengths: list[int], extra: bool = True) -> TextBatch:
    width = max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.arange(1, 1 + mask.numel()).reshape(mask.shape) * mask
    return TextBatch(ids, mask, {"upper": mask & (ids % 2 == 0)} if extra else {})


def test_batches_index_trim_and_join():
    batch = batch_of([3, 7, 5])
    assert len(batch) == 3
    assert not batch.full
    part = batch[torch.tensor([0, 2])]
    assert part.ids.shape == (2, 7)
    trimmed = part.trim()
    assert trimmed.ids.shape == (2, 5)
    assert trimmed.extras["upper"].equal(batch.extras["upper"][[0, 2], :5])
    assert batch[1:2].trim().full
    assert batch[[0]].trim().full
    joined = TextBatch.cat([trimmed, batch[:1].trim(), batch])
    assert joined.ids.shape == (6, 7)
    assert joined[3:].ids.equal(batch.ids)
    assert joined.mask.sum(1).tolist() == [3, 5, 3, 3, 7, 5]
    assert batch.to("cpu") is batch
    assert batch.with_extras(lower=batch.mask).extras.keys() == {"upper", "lower"}
    with pytest.raises(ValueError, match="extras"):
        TextBatch.cat([batch, batch_of([2], extra=False)])
    with pytest.raises(ValueError, match="agree"):
        TextBatch(batch.ids, batch.mask[:, :2])


def test_words_without_a_known_piece_are_left_out(tmp_path):
    tokenizer = BlipTokenizer.train(["a red hat", "a blue hat"] * 3, tmp_path, vocab_size=100)
    assert tokenizer(["a zzyx red hat 9"]).ids.tolist() == tokenizer(["a red hat"]).ids.tolist()
    assert tokenizer.words("a zzyx red hat 9") == [None, "a", "red", "hat", None]
    mask = tokenizer.word_mask(["a zzyx red hat 9", "a blue hat"], [{"hat", "zzyx"}, {"blue"}])
    assert mask.tolist() == [[False, False, False, True, False], [False, False, True, False, False]]
    assert tokenizer.prompt_ids("zzyx red") == tokenizer.prompt_ids("red")


def test_a_trained_vocabulary_has_no_piece_that_its_captions_do_not_use(captions, tmp_path):
    tokenizer = BlipTokenizer.train(captions, tmp_path, vocab_size=400)
    used = set(tokenizer(captions).ids.flatten().tolist()) | set(tokenizer.special_ids)
    assert used >= set(range(tokenizer.vocab_size))


def test_pieces_of_a_word_have_its_number(tokenizer):
    """Its first column; what is no word has its own, and so has every token of a tokenizer without pieces."""
    captions = ["a leather T-shirt, shirt shirt, blue", "her handbag"]
    batch = tokenizer(captions)
    for row, caption in enumerate(captions):
        numbers = batch.words[row][batch.mask[row]].tolist()
        pieces = [tokenizer.decode([number]) for number in batch.ids[row].tolist()]
        assert numbers == sorted(numbers)
        assert all(numbers[number] == number for number in numbers), "a word is numbered by its first column"
        spelled = {number: "" for number in numbers}
        for number, piece in zip(numbers, pieces, strict=False):
            spelled[number] += piece
        separate = [word for word in spelled.values() if word]
        assert separate == re.findall(r"[\w-]+|,", clean_caption(caption))
    shorter = batch[1:].trim()
    assert shorter.words.equal(batch.words[1:, : shorter.ids.shape[1]])
    assert batch_of([3, 5]).words.tolist() == [list(range(5))] * 2
    assert tokenizer([]).words.shape == (0, 0)


def test_dropped_tokens_close_up_and_extras_follow():
    ids = torch.tensor([[2, 11, 12, 13, 3], [2, 21, 3, 0, 0]])
    mask = ids > 0
    texts = TextBatch(ids, mask, {"units": ids * 10, "upper": mask & (ids % 2 == 1)})
    dropped = torch.tensor([[True, False, True, False, True], [False, True, True, True, True]])
    left = texts.without(dropped)
    assert left.ids.tolist() == [[2, 11, 13, 3], [2, 3, 0, 0]]
    assert left.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert left.extras["units"].tolist() == [[20, 110, 130, 30], [20, 30, 0, 0]]
    assert left.extras["upper"].tolist() == [[False, True, True, True], [False, True, False, False]]
    assert left.extras["upper"].dtype == torch.bool
