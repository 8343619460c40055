"""Every tokenizer says how many captions it does not hold to their end: those whose last word is in no id."""

from __future__ import annotations

import logging

import pytest

from engine.sources import say_what_is_cut
from models.backbones.blip.tokenizer import BlipTokenizer
from models.backbones.clip.tokenizer import ClipTokenizer
from models.backbones.resnet_lstm.words import Words


@pytest.fixture(params=[BlipTokenizer, ClipTokenizer, Words])
def tokenizer(request, tmp_path):
    captions = ["a red coat and a blue hat"] * 3
    return request.param.train(captions, tmp_path, vocab_size=200)


def test_captions_that_lose_their_last_word(tokenizer):
    captions = [f"{'red coat, ' * count}hat." for count in range(60)]
    (hat,) = set(tokenizer(["hat"]).ids.flatten().tolist()) - set(tokenizer(["red"]).ids.flatten().tolist())
    lost = [hat not in row for row in tokenizer(captions).ids.tolist()]
    assert any(lost)
    assert not all(lost)
    assert [tokenizer.cut([caption]) for caption in captions] == lost
    assert tokenizer.cut(captions) == sum(lost)
    assert tokenizer.cut([]) == 0


def test_it_is_said_once_and_only_where_something_is_cut(tokenizer, caplog):
    caplog.set_level(logging.WARNING)
    say_what_is_cut(tokenizer, ["a red coat", "a hat"], "test")
    assert not caplog.records
    say_what_is_cut(tokenizer, ["a red coat", "red " * 200], "test")
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 test captions are longer than the text encoder reads; their ends are left out."
    ]
