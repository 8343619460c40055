"""Whatever stands in a caption store, a caption file or a model's reply: a correct result or a sentence, and no hang."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from captioning.attributes import group, parse_reply
from captioning.backends import Reply, Request
from captioning.files import load_captions, load_pre_captions
from captioning.gender import gender_of
from captioning.pipeline import caption_sample, export
from captioning.replies import cut_unfinished, is_refusal, tidy
from captioning.simplify import shorten
from captioning.store import STATUSES, CaptionStore
from data.errors import UserError
from engine.run import Run

# A deadline per example, so that a pattern that backtracks for ever is a failure and no hang.
SETTINGS = settings(max_examples=100, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
TEXT = st.text(st.characters(codec=None), max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(["a.jpg", "b/c.jpg", "", "  ", "../x.jpg"])
captions = st.fixed_dictionaries(
    {},
    optional={
        "image": names | values,
        "base_caption": TEXT | values,
        "styled_caption": TEXT | values,
        "upper": st.lists(st.text(max_size=5)) | values,
        "lower": values,
        "prompts": st.dictionaries(st.text(max_size=4), st.text(max_size=4)) | values,
    },
)
store_lines = st.one_of(
    st.fixed_dictionaries({"key": TEXT, "status": st.sampled_from(STATUSES), "text": values}).map(json.dumps),
    st.fixed_dictionaries({}, optional={"key": values, "status": values}).map(json.dumps),
    st.text(st.characters(codec="utf-8"), max_size=30),
).map(lambda line: line.encode("utf-8"))
words = st.sampled_from(
    [
        "the woman",
        "is wearing",
        "red shirt,",
        "UPPER:",
        "[",
        "]",
        "Sure!",
        "I'm sorry",
        "<think>",
        "</think>",
        "**",
        "\n",
        "- ",
        "1. ",
        '"',
        ":",
        "{",
        "}",
        "null",
        "\x00",
        "é",
        "\n    Here is the description:",
        "...",
        " ",
    ]
)
replies = st.lists(words | TEXT, max_size=12).map(" ".join)


def sentence(error: UserError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 2000


@SETTINGS
@given(content=st.binary(max_size=200) | values.map(json.dumps).map(str.encode))
def test_any_bytes_are_captions_or_a_sentence(content):
    read_captions(content)


@SETTINGS
@given(records=st.lists(captions, max_size=4))
@example(records=[{"image": "a.jpg", "base_caption": "a", "styled_caption": "b", "prompts": "not a mapping"}])
def test_any_records_are_captions_or_a_sentence(records):
    for known in read_captions(json.dumps(records).encode()):
        assert len(known) == len(records)
        for record in records:
            caption = known[record["image"]]
            assert caption.base_caption == record["base_caption"]
            assert caption.styled_caption == record["styled_caption"]


def read_captions(content: bytes) -> list[dict]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.json")
        path.write_bytes(content)
        for load in (load_captions, load_pre_captions):
            try:
                found.append(load(path))
            except UserError as error:
                sentence(error)
    return found


@SETTINGS
@given(lines=st.lists(store_lines | st.binary(max_size=40), max_size=6), new=TEXT)
def test_a_store_of_any_bytes_keeps_its_whole_records_and_takes_new_ones(lines, new):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.jsonl")
        path.write_bytes(b"\n".join(lines))
        wanted = {}
        for line in b"\n".join(lines).split(b"\n"):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("key"), str) and whole(record):
                    wanted[record["key"]] = record["status"]
        with CaptionStore(path) as store:
            assert {record["key"]: record["status"] for record in store} == wanted
            store.put("new key", text=new)
            str(store.summary())
        with CaptionStore(path) as again:
            assert again.get("new key")["text"] == new
            assert {record["key"]: record["status"] for record in again} == {**wanted, "new key": "done"}


def whole(record: dict) -> bool:
    return isinstance(record.get("status"), str) and record["status"] in STATUSES


@SETTINGS
@given(reply=replies)
def test_any_reply_is_read_by_every_reader(reply):
    clean = tidy(reply)
    assert "\n" not in clean
    assert clean == clean.strip()
    assert is_refusal(reply) in (True, False)
    assert len(cut_unfinished(reply)) <= len(reply)
    assert gender_of(reply) in {"male", "female", "unknown"}
    for part in (group(reply), parse_reply(reply) or ((), ())):
        assert all(isinstance(word, str) and word for half in part for word in half)
    assert isinstance(shorten(reply), str)


class Babbler:
    """A backend that gives the texts it was told to, whatever is asked."""

    name = model = "babbler"

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.asked = texts, 0

    def answer(self, requests: list[Request]) -> Iterator[Reply]:
        for request in requests:
            text = self.texts[self.asked % len(self.texts)]
            self.asked += 1
            yield Reply(request.key, text, status="done" if text.strip() else "empty")

    def close(self) -> None:
        """Nothing to close."""


@settings(SETTINGS, max_examples=30)
@given(texts=st.lists(replies, min_size=1, max_size=5))
def test_stage_a_survives_any_replies_and_exports_what_can_be_read(texts):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [f"{index}.png" for index in range(3)]
        for image in images:
            Image.fromarray(np.zeros((8, 4, 3), np.uint8)).save(folder / image)
        with CaptionStore(folder / "pre_captions.jsonl") as store:
            caption_sample(images, folder, Babbler(texts), store)
            assert all(store.status(image) in STATUSES for image in images)
            try:
                export(store, folder / "pre_captions.json", images)
            except UserError as error:
                sentence(error)
                return
        known = load_pre_captions(folder / "pre_captions.json")
        assert set(known) <= set(images)
        assert all(one.base_caption.strip() and one.styled_caption.strip() for one in known.values())


@SETTINGS
@given(content=st.lists(st.binary(max_size=40) | captions.map(json.dumps).map(str.encode), max_size=5))
def test_metrics_of_any_bytes_lose_no_line_that_is_not_meant(content):
    """What a killed run leaves is tidied up before the run goes on."""
    kept = {"event": "epoch", "phase": "round-0"}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.metrics_path.write_bytes(b"\n".join([*content, json.dumps(kept).encode(), b""]))
        run.record("step", phase="round-1")
        run.forget_metrics(phase="round-1")
        left = [json.loads(line) for line in run.metrics_path.read_text("utf-8").splitlines()]
        assert kept in left
        assert {"event": "step", "phase": "round-1"} not in left
