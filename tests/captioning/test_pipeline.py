"""Stage A and attribute grouping, with a backend whose answers each test makes up."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from pathlib import Path

import pytest

from captioning import prompts
from captioning.backends import BACKENDS, Backend, BackendError, Reply, make_backend
from captioning.files import Caption as StageCCaption
from captioning.files import CaptionFileError, load_captions, load_pre_captions, write_captions
from captioning.pipeline import caption_sample, export, group_captions, share
from captioning.replies import cut_unfinished, is_refusal, tidy
from captioning.simplify import shorten
from captioning.store import CaptionStore

IMAGES = [f"cam_a/{index}.jpg" for index in range(12)]
LONG = "The {0} is wearing a red coat, blue jeans and white shoes, giving a casual look"


class MadeUp:
    """Answers with `reply(request)`: a text, or (status, text)."""

    name = "made-up"

    def __init__(self, reply, model="made-up-1"):
        self.reply, self.model = reply, model
        self.asked: list = []

    def answer(self, requests):
        # Backwards: the order of answers must not matter.
        for request in reversed(list(requests)):
            self.asked.append(request)
            made = self.reply(request)
            status, text = made if isinstance(made, tuple) else ("done", made)
            yield Reply(request.key, text, status, "" if status == "done" else "made up")

    def close(self):
        pass


def describe(request):
    kind = prompts.kind_of(request.prompt)
    if kind == "base":
        return LONG.format("woman" if int(request.image.stem) % 2 else "man")
    if kind == "styled":
        return f"{request.opening} a red coat, blue jeans and white shoes, giving a casual look"
    return prompts.payload_of(request.prompt).split(", giving")[0]


@pytest.fixture
def store(tmp_path):
    with CaptionStore(tmp_path / "pre_captions.jsonl") as opened:
        yield opened


def test_stage_a_asks_both_questions_and_shortens_by_rules(store):
    backend = MadeUp(describe)
    steps = []
    report = caption_sample(IMAGES, "root", backend, store, progress=lambda *call: steps.append(call))
    assert isinstance(backend, Backend)
    assert (report.asked, report.ready, report.summary.done) == (12, 0, 12)
    assert Counter(prompts.kind_of(request.prompt) for request in backend.asked) == {"base": 12, "styled": 12}
    assert {request.image for request in backend.asked} == {Path("root") / image for image in IMAGES}
    assert steps == [("base", n, 12) for n in range(1, 13)] + [("styled", n, 12) for n in range(1, 13)]
    record = store.get(IMAGES[3])
    assert record["base_caption"] == "The woman is wearing a red coat, blue jeans and white shoes"
    assert record["gender"] == "female"
    assert record["opening"] == prompts.opening("female", 3)
    assert record["styled_caption"] == f"{record['opening']} a red coat, blue jeans and white shoes"
    assert record["model"] == "made-up-1"


def test_openings_rotate_by_position_within_the_gender(store):
    caption_sample(IMAGES, "root", MadeUp(describe), store)
    men = [store.get(image)["opening"] for image in IMAGES[::2]]
    assert set(men[:5]) == set(prompts.OPENINGS_STAGE_A["male"])
    assert men[5] == men[0]


def test_text_model_shortens_long_captions_only(store):
    short = "The man is wearing a red coat"
    looks = MadeUp(lambda r: short if prompts.kind_of(r.prompt) == "base" else describe(r))
    writes = MadeUp(describe, "text-1")
    caption_sample(IMAGES, "root", looks, store, text_backend=writes)
    assert len(short) <= prompts.SIMPLIFY_ABOVE
    assert len(writes.asked) == len(IMAGES)
    assert all(request.image is None for request in writes.asked)
    assert store.get(IMAGES[0])["styled_caption"].endswith("white shoes")


@pytest.mark.parametrize(
    "answer",
    [
        ("failed", ""),
        ("refused", ""),
        ("empty", ""),
        "I'm sorry, I can't.",
        "The man wears" + "x" * 500,
        "Red coat.",
    ],
)
def test_a_text_model_that_gives_nothing_useful_is_replaced_by_rules(store, answer):
    caption_sample(IMAGES[:2], "root", MadeUp(describe), store, text_backend=MadeUp(lambda _: answer))
    assert store.get(IMAGES[0])["base_caption"] == "The man is wearing a red coat, blue jeans and white shoes"
    assert store.summary().done == 2


def test_nothing_is_asked_twice_and_new_images_are_added(store):
    caption_sample(IMAGES[:8], "root", MadeUp(describe), store)
    before = {image: store.get(image) for image in IMAGES[:8]}
    backend = MadeUp(describe)
    report = caption_sample(IMAGES, "root", backend, store)
    assert (report.asked, report.ready) == (4, 8)
    assert len(backend.asked) == 8
    assert {image: store.get(image) for image in IMAGES[:8]} == before
    assert store.duplicates == 0


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop_after", range(0, 48, 5))
def test_stopped_after_any_answer_the_next_run_asks_for_the_rest(tmp_path, stop_after):
    """All four steps, stopped between any two answers; every answer is paid for once."""
    paid = Counter()

    def run(limit):
        def reply(request):
            if sum(paid.values()) >= limit:
                raise Interrupted
            paid[request.key] += 1
            return describe(request)

        with CaptionStore(tmp_path / "s.jsonl") as store:
            caption_sample(IMAGES, "root", MadeUp(reply), store, text_backend=MadeUp(reply))
            return {image: store.get(image) for image in IMAGES}

    with pytest.raises(Interrupted):
        run(stop_after)
    interrupted = run(10_000)
    assert set(paid.values()) == {1}
    assert len(paid) == 4 * len(IMAGES)
    with CaptionStore(tmp_path / "straight.jsonl") as straight:
        caption_sample(IMAGES, "root", MadeUp(describe), straight, text_backend=MadeUp(describe))
        assert interrupted == {image: straight.get(image) for image in IMAGES}


def test_refused_and_empty_are_recorded_skipped_and_retried_on_request(tmp_path, store):
    def moody(request):
        index = int(request.image.stem)
        if index == 1:
            return "I'm sorry, but I can't describe people."
        if index == 2:
            return "empty", ""
        if index == 3 and prompts.kind_of(request.prompt) == "styled":
            return "refused", ""
        if index == 4:
            return "failed", ""
        return 'Sure! Here is the description: **"' + describe(request) + '"**'

    report = caption_sample(IMAGES, "root", MadeUp(moody), store)
    summary = report.summary
    assert (summary.done, summary.refused, summary.empty, summary.failed) == (8, 2, 1, 1)
    assert store.get(IMAGES[0])["base_caption"].startswith("The man is wearing")
    path = tmp_path / "pre_captions.json"
    assert export(store, path, IMAGES) == 8
    assert set(load_pre_captions(path)) == set(IMAGES) - set(IMAGES[1:5])

    again = MadeUp(describe)
    caption_sample(IMAGES, "root", again, store)
    assert {int(request.image.stem) for request in again.asked} == {4}
    retry = MadeUp(describe)
    caption_sample(IMAGES, "root", retry, store, retry_refused=True)
    kinds = Counter((int(r.image.stem), prompts.kind_of(r.prompt)) for r in retry.asked)
    assert kinds == {(1, "base"): 1, (1, "styled"): 1, (2, "base"): 1, (2, "styled"): 1, (3, "styled"): 1}
    assert store.summary().done == len(IMAGES)


def test_other_models_captions_are_kept_and_told(store, caplog):
    caption_sample(IMAGES[:2], "root", MadeUp(describe, "palette"), store)
    with caplog.at_level(logging.WARNING):
        caption_sample(IMAGES, "root", MadeUp(describe, "qwen"), store)
    assert "2 images captioned by palette" in caplog.text
    assert store.summary().models == {"palette": 2, "qwen": 10}


def test_export_is_the_agreed_format_and_replaces_the_old_file(tmp_path, store):
    path = tmp_path / "pre_captions.json"
    path.write_text("old")
    caption_sample(IMAGES, "root", MadeUp(describe), store)
    assert export(store, path, IMAGES) == 12
    records = json.loads(path.read_text())
    assert [record["image"] for record in records] == IMAGES
    names = ["image", "base_caption", "styled_caption", "gender", "opening", "prompts", "model"]
    assert list(records[0]) == names
    assert records[0]["prompts"] == {
        "base": prompts.base_prompt(),
        "styled": prompts.styled_prompt(records[0]["opening"]),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pre_captions.json", "pre_captions.jsonl"]


def caption_share(path: Path, rank: int) -> None:
    with CaptionStore(path) as store:
        caption_sample(IMAGES, "root", MadeUp(describe), store, rank=rank, world_size=3)


def test_ranks_share_the_images_and_one_store(tmp_path, store):
    path = tmp_path / "shared.jsonl"
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=caption_share, args=(path, rank)) for rank in range(3)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    shared = CaptionStore(path)
    caption_sample(IMAGES, "root", MadeUp(describe), store)
    assert {image: shared.get(image) for image in IMAGES} == {image: store.get(image) for image in IMAGES}
    assert shared.duplicates == 0
    assert len(shared) == len(store)
    assert sorted(image for rank in range(3) for image in share(IMAGES, rank, 3)) == sorted(IMAGES)
    with pytest.raises(ValueError, match="Rank 3"):
        share(IMAGES, 3, 3)


CAPTIONS = {
    "a": "a man in a red coat and blue jeans",
    "b": "a woman with a white shirt and a black skirt",
    "c": "he wears a green jacket",
}


def test_grouping_uses_the_model_and_falls_back_to_rules_per_caption(store):
    said = {
        "a": "Sure! Here you go:\n\nUPPER: red coat\n\nLOWER: blue jeans",
        "b": "I would rather talk about the weather.",
        "c": "Upper: none\nLower: none",
    }
    backend = MadeUp(lambda request: said[request.key])
    groups = group_captions(CAPTIONS, backend, store)
    rules = group_captions(CAPTIONS)
    assert groups == {"a": (("red", "coat"), ("blue", "jeans")), "b": rules["b"], "c": rules["c"]}
    assert rules["b"] == (("white", "shirt"), ("black", "skirt"))
    assert list(groups) == list(CAPTIONS)


def test_grouping_is_resumed_and_follows_a_changed_caption(store):
    group_captions(CAPTIONS, MadeUp(lambda _: "Upper: red coat. Lower: blue jeans."), store)
    backend = MadeUp(lambda _: "Upper: pink hat. Lower: boots.")
    groups = group_captions({**CAPTIONS, "c": "a man in a pink hat and boots"}, backend, store)
    assert [request.key for request in backend.asked] == ["c"]
    assert groups["a"] == (("red", "coat"), ("blue", "jeans"))
    assert groups["c"] == (("pink", "hat"), ("boots",))
    group_captions({"a": CAPTIONS["a"]}, MadeUp(lambda _: "", "without store"))


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("The man is wearing a red coat.", "The man is wearing a red coat."),
        ('Sure! Here\'s the simplified description:\n\n"A man in red."', "A man in red."),
        ("Certainly, here is a caption of the image: a man in red", "a man in red"),
        ("**Description:** The man is wearing *red*", "The man is wearing *red*"),
        ("- The man is wearing\n- a red coat", "The man is wearing a red coat"),
        ("<think>The user wants: a caption.</think>\nA man in red", "A man in red"),
        ("<think>never closed", ""),
        ("   \n ", ""),
        ("A sign: a man", "A sign: a man"),
    ],
)
def test_tidy_peels_the_caption_out_of_the_chatter(answer, caption):
    assert tidy(answer) == caption


def test_refusals_are_recognised_at_the_start_only():
    for text in (
        "I'm sorry, but I can't help",
        "Sorry, no.",
        "I’m unable to identify",
        "As an AI language model",
    ):
        assert is_refusal(text)
    for text in (
        "The man wears a shirt that says I'm sorry",
        "In a red coat, the man",
        "Sorrel-coloured hair",
    ):
        assert not is_refusal(text)


def test_cut_unfinished_drops_the_broken_end():
    assert cut_unfinished("A man in a red coat, blue jeans and whi") == "A man in a red coat"
    assert cut_unfinished("A man in a red coa") == "A man in a red"


@pytest.mark.parametrize(
    ("caption", "short"),
    [
        ("The man is wearing a red coat.", "The man is wearing a red coat."),
        (
            "He has a shirt with a picture on it, and black shoes.",
            "He has a shirt with a picture on it, and black shoes.",
        ),
        (
            "The woman is wearing a coat, creating a stylish appearance. The overall style is relaxed. She has a bag.",
            "The woman is wearing a coat. She has a bag.",
        ),
        ("A man standing in the street", "A man standing in the street"),
        ("A man walks, while wearing black boots.", "A man walks, while wearing black boots."),
        ("", ""),
    ],
)
def test_rules_keep_clothing_and_drop_impressions(caption, short):
    assert shorten(caption) == short


def test_caption_files_round_trip_and_complain_clearly(tmp_path):
    path = tmp_path / "captions.json"
    written = [StageCCaption("a.jpg", "base", "styled", ("red", "coat"), ())]
    assert write_captions(path, written) == 1
    assert load_captions(path) == {"a.jpg": written[0]}
    with pytest.raises(CaptionFileError, match=r"no caption file .*none\.json; gen_text\.py makes it"):
        load_captions(tmp_path / "none.json")
    for content, words in [
        ("[", "not valid JSON"),
        ("{}", "list of records"),
        ('[{"image": "a", "base_caption": "b"}]', "'styled_caption'.*import_released"),
        ('[{"image": "a", "base_caption": "b", "styled_caption": "c", "upper": "red"}]', "list of words"),
        (json.dumps([{"image": "a", "base_caption": "b", "styled_caption": "c"}] * 2), "two records of a"),
    ]:
        path.write_text(content)
        with pytest.raises(CaptionFileError, match=words):
            load_captions(path)


def test_registry_names_what_is_known():
    with pytest.raises(BackendError, match=r"'opnai' \(did you mean 'openai'\?\); known: palette, openai"):
        make_backend("opnai")
    with pytest.raises(BackendError, match=r"no option 'basurl' \(did you mean 'base_url'"):
        make_backend("openai", basurl="x")
    with pytest.raises(BackendError, match="needs the option 'model'"):
        make_backend("openai", base_url="http://h/v1")
    assert set(BACKENDS) == {"palette", "openai", "transformers"}
