"""From images to results through the real scripts: every format, bare folders, second runs, and what is told."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.files import (
    Caption,
    PreCaption,
    load_captions,
    load_pre_captions,
    write_captions,
    write_pre_captions,
)
from captioning.store import CaptionStore
from data import load_dataset
from engine import checkpoints
from models.backbones.blip.captioner import BlipCaptioner
from tests.captioning.chat_server import ChatServer
from tests.pipeline.mini import ROOT, STAGES, make_pipeline

pytestmark = pytest.mark.integration
FORMATS = ("cuhk_pedes", "icfg_pedes", "rstpreid")
METRICS = {"r1", "r5", "r10", "mAP", "mINP"}


@pytest.fixture(scope="module", params=FORMATS)
def finished(request, tmp_path_factory, messages_of_module):
    """A pipeline that has run through, per format."""
    pipeline = make_pipeline(tmp_path_factory.mktemp(request.param), messages_of_module, name=request.param)
    pipeline.all()
    return pipeline


def files_and_times(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"
    }


def test_results_have_the_agreed_fields(finished):
    folder = finished.config.run_directory
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert {
        "dataset": "mini",
        "method": "pspd",
        "split": "test",
        "protocol": "plain",
    }.items() <= results.items()
    has_val = finished.config.dataset.name != "icfg_pedes"
    assert results["selected_on"] == ("val" if has_val else "last")
    captions_per_image = 1 if finished.config.dataset.name == "icfg_pedes" else 2
    assert (results["queries"], results["gallery"]) == (8 * captions_per_image, 8)
    assert results["seconds"] > 0
    for scores in (results["itc"], results["itm"]):
        assert set(scores) == METRICS
        assert all(0 <= score <= 100 for score in scores.values())
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == results["queries"]
    names = {"config.yaml", "best.pth", "metrics.jsonl", "log.txt", "rank_lists.jpg", "training_curves.png"}
    assert names <= set(os.listdir(folder))
    assert not (folder / "train").exists()


def test_every_training_image_has_captions_and_no_other_has(finished):
    config = finished.config
    dataset = load_dataset(config.dataset.name, config.dataset.root)
    captions = load_captions(config.caption_directory / "captions.json")
    assert list(captions) == [record.image for record in dataset.train]
    human = {caption for record in dataset.train for caption in record.captions}
    for caption in captions.values():
        assert caption.base_caption not in human
        assert caption.styled_caption not in human
    sampled = json.loads((config.caption_directory / "pre_captions.json").read_text("utf-8"))
    assert len(sampled) == config.gen_pre_train_text.samples
    assert {record["image"] for record in sampled} <= captions.keys()


def test_a_second_run_does_nothing(finished):
    root = finished.path.parent
    before = files_and_times(root)
    for stage in STAGES[:-1]:
        assert finished(stage) == 0
        assert finished.said("already finished")
    assert files_and_times(root) == before
    first = json.loads((finished.config.run_directory / "results.json").read_text("utf-8"))
    assert finished("test") == 0
    again = json.loads((finished.config.run_directory / "results.json").read_text("utf-8"))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_a_changed_setting_is_named_and_force_does_the_stage_again(pipeline, tmp_path):
    for stage in STAGES[:2]:
        assert pipeline(stage) == 0
    assert pipeline("gen_text") == 0
    assert pipeline("gen_text", "--set", "gen_text.top_p=0.5") == 0
    assert pipeline.said("gen_text.top_p 0.9 -> 0.5")
    before = (tmp_path / "captions" / "captions.jsonl").read_bytes()
    assert pipeline("gen_text", "--force", "--set", "gen_text.top_p=0.5") == 0
    assert (tmp_path / "captions" / "captions.jsonl.old1").read_bytes() == before
    assert (tmp_path / "captions" / "captions.jsonl").read_bytes() != before


def test_stage_c_goes_on_with_the_captions_that_an_undisturbed_run_makes(pipeline, tmp_path):
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
    folder = tmp_path / "captions"
    expected = (folder / "captions.json").read_text("utf-8")
    lines = (folder / "captions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "captions.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:20])  # killed while writing
    (folder / "captions.json").unlink()
    (folder / ".gen_text.done").unlink()
    assert pipeline("gen_text") == 0
    assert pipeline.said(f"captioning {len(lines) - 9} images (9 are done)")
    assert (folder / "captions.json").read_text("utf-8") == expected


def test_captions_written_in_portions_are_those_of_whole_batches(pipeline, tmp_path, monkeypatch):
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
    path = tmp_path / "captions" / "captions.json"
    expected, encode = path.read_text("utf-8"), BlipCaptioner.encode_images

    def encode_images(model, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(model, images)

    monkeypatch.setattr(BlipCaptioner, "encode_images", encode_images)
    assert pipeline("gen_text", "--force") == 0
    assert path.read_text("utf-8") == expected
    assert [said for said in pipeline.messages if "at a time" in said] == [
        "Memory does not hold 7 captions at once: going on with 1 at a time."
    ]


def test_a_captioner_is_not_loaded_when_nothing_is_left_to_caption(pipeline, tmp_path):
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
    (tmp_path / "captions" / ".gen_text.done").unlink()
    checkpoint = pipeline.config.captioner_directory / "captioner.pth"
    checkpoint.unlink()
    assert pipeline("gen_text") == 0
    (pipeline.config.captioner_directory / ".pre_train.done").unlink()
    assert pipeline("pre_train") == 0
    assert pipeline.said("not needed")
    assert not checkpoint.exists()


def test_texts_that_are_empty_or_refused_are_counted_and_left_out(pipeline, tmp_path):
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
    folder = tmp_path / "captions"
    images = list(load_captions(folder / "captions.json"))
    with CaptionStore(folder / "captions.jsonl") as store:
        store.put(images[0], status="empty", base_caption="", styled_caption="the man")
        store.put(images[1], status="refused")
    (folder / ".gen_text.done").unlink()
    assert pipeline("gen_text") == 0
    assert pipeline.said("2 of 24 images have no usable caption")
    assert list(load_captions(folder / "captions.json")) == images[2:]
    assert pipeline("train") == 0
    assert pipeline.said("2 of 24 training images have no caption")


def drawn_images(pipeline) -> list[str]:
    """The training images, drawn by stage A's dry run."""
    assert pipeline("gen_pre_train_text", "--dry-run") == 0
    dataset = load_dataset(pipeline.config.dataset.name, pipeline.config.dataset.root)
    return [record.image for record in dataset.train]


def imported(images: list[str]) -> list[Caption]:
    return [
        Caption(
            image,
            f"a man in a red shirt {i}",
            f"he wears a red shirt and blue jeans {i}",
            ("own",),
            ("words",),
        )
        for i, image in enumerate(images)
    ]


def test_imported_captions_make_the_stages_before_needless(pipeline, tmp_path):
    images = drawn_images(pipeline)
    released = [
        {
            "image": caption.image,
            "base_caption": caption.base_caption,
            "styled_caption": caption.styled_caption,
        }
        for caption in imported(images)
    ]
    with CaptionStore(tmp_path / "captions" / "captions.jsonl") as store:
        for record in released:
            groups = {"upper": ["own", "words"], "lower": ["kept"]} if record is released[0] else {}
            store.put(record.pop("image"), model="released", **record, **groups)
    for stage in STAGES[:2]:
        assert pipeline(stage) == 0
        assert pipeline.said("not needed")
    assert pipeline("gen_text") == 0
    captions = load_captions(tmp_path / "captions" / "captions.json")
    assert list(captions) == images
    assert (captions[images[0]].upper, captions[images[0]].lower) == (("own", "words"), ("kept",))
    assert captions[images[1]].lower == ("blue", "jeans")  # the rules', where the file has none
    assert pipeline("train") == 0


def test_a_captions_file_put_there_by_hand_is_used_as_it_is(pipeline, tmp_path):
    path = tmp_path / "captions" / "captions.json"
    write_captions(path, imported(drawn_images(pipeline)))
    before = path.read_bytes()
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
        assert pipeline.said("not needed")
    assert path.read_bytes() == before


def test_imported_captions_of_stage_a_come_first_and_other_splits_are_left_out(pipeline, tmp_path):
    images = drawn_images(pipeline)
    test_image = load_dataset("cuhk_pedes", pipeline.config.dataset.root).test[0].image
    with CaptionStore(tmp_path / "captions" / "pre_captions.jsonl") as store:
        for image in [*images[:10], test_image]:
            store.put(
                image, base_caption="the man is wearing red", styled_caption="he is wearing red", model="x"
            )
    assert pipeline("gen_pre_train_text") == 0
    sampled = json.loads((tmp_path / "captions" / "pre_captions.json").read_text("utf-8"))
    names = {record["image"] for record in sampled}
    assert len(names) == 14
    assert set(images[:10]) <= names <= set(images)
    others = PreCaption(test_image, "the man is wearing green", "he is wearing green")
    write_pre_captions(tmp_path / "captions" / "pre_captions.json", [others])
    assert pipeline("pre_train") == 1
    assert pipeline.said("no caption of a training image")


def test_stage_a_as_the_source_needs_no_captioner(pipeline, tmp_path):
    choice = ("--set", "gen_text.source=pre_captions", "gen_pre_train_text.samples=100")
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, pipeline.messages
        assert pipeline.said("not needed") == (stage == "pre_train")
    assert len(load_captions(tmp_path / "captions" / "captions.json")) == 24


def test_the_sample_keeps_the_captions_of_stage_a_where_both_are_asked_for(pipeline, tmp_path):
    choice = ("--set", "gen_text.source=both")
    for stage in STAGES[:3]:
        assert pipeline(stage, *choice) == 0, pipeline.messages
    sampled = load_pre_captions(tmp_path / "captions" / "pre_captions.json")
    captions = load_captions(tmp_path / "captions" / "captions.json")
    assert 0 < len(sampled) < len(captions) == 24
    for image, own in sampled.items():
        assert captions[image].base_caption == own.base_caption
        assert captions[image].styled_caption == own.styled_caption
    written = CaptionStore(tmp_path / "captions" / "captions.jsonl")
    assert {image for image in captions if written.status(image)} == captions.keys() - sampled.keys()


def test_the_sample_is_made_where_a_store_of_captions_lies_beside_it_and_its_own_file_does_not(
    pipeline, tmp_path
):
    with CaptionStore(tmp_path / "captions" / "captions.jsonl") as store:
        store.put(drawn_images(pipeline)[0], base_caption="a man in red", styled_caption="he wears red")
    assert pipeline("gen_pre_train_text", "--set", "gen_text.source=both") == 0, pipeline.messages
    assert load_pre_captions(tmp_path / "captions" / "pre_captions.json")


def test_supervised_training_needs_no_captions(pipeline, tmp_path):
    choice = ("--set", "train.supervision=labels")
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, pipeline.messages
        assert pipeline.said("not needed") == (stage in STAGES[:3])
    assert not (tmp_path / "captions").exists()
    assert pipeline("gen_text", "--set", "model.method=cada") == 0
    assert pipeline.said("'cada' learns from the data set's own captions")


def test_a_dry_run_says_what_is_left_and_writes_nothing(pipeline, tmp_path, capsys):
    images = drawn_images(pipeline)
    assert (
        "14 of 14 sampled images are still to be captioned, on this machine, at no cost"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "captions").exists()
    endpoint = (
        "--set",
        "gen_pre_train_text.backend=openai",
        "gen_pre_train_text.options={base_url: 'http://127.0.0.1:9/v1', model: vl, api_key_env: '', prompt_price: 2, completion_price: 4}",
    )
    with CaptionStore(tmp_path / "captions" / "pre_captions.jsonl") as store:
        for image in images[:4]:
            store.put(image, base_caption="a b", styled_caption="c d")
        store.put(images[4], status="refused")
    assert pipeline("gen_pre_train_text", "--dry-run", *endpoint) == 0, pipeline.messages
    out = capsys.readouterr().out
    assert "of 14 sampled images" in out
    assert "requests" in out
    assert "cost about" in out
    assert not (tmp_path / "captions" / ".gen_pre_train_text.done").exists()


def test_refused_images_are_asked_about_again_on_request(pipeline, tmp_path):
    assert pipeline("gen_pre_train_text") == 0
    folder = tmp_path / "captions"
    image = json.loads((folder / "pre_captions.json").read_text("utf-8"))[0]["image"]
    with CaptionStore(folder / "pre_captions.jsonl") as store:
        store.put(f"{image}::base", status="refused", text="", step="base")
        store.put(image, status="refused")
    (folder / ".gen_pre_train_text.done").unlink()
    for arguments, count in (((), 13), (("--retry-refused",), 14)):
        assert pipeline("gen_pre_train_text", *arguments) == 0
        sampled = json.loads((folder / "pre_captions.json").read_text("utf-8"))
        assert len(sampled) == count
        assert (image in {record["image"] for record in sampled}) == bool(arguments)


def test_an_endpoints_key_is_in_no_file_of_the_run(pipeline, tmp_path, monkeypatch, capfd):
    key = "sk-test-9f2c7a51d0e84b"
    monkeypatch.setenv("PSPD_TEST_KEY", key)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer(scripted=[(500, {}, f"no, not with {key}".encode())]) as server:
        options = f"{{base_url: '{server.url}', model: vl, api_key_env: PSPD_TEST_KEY, concurrency: 2}}"
        endpoint = [f"{part}={value}" for part, value in (("backend", "openai"), ("options", options))]
        stage_a = [f"gen_pre_train_text.{setting}" for setting in endpoint]
        stage_c = [f"gen_text.attributes.{setting}" for setting in endpoint]
        for stage in STAGES:
            assert pipeline(stage, "--set", *stage_a, *stage_c) == 0, pipeline.messages
            assert not pipeline.said(key)
    assert len(server.asked) > 14 * 2 + 24
    assert all(key in asked.authorization for asked in server.asked)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("openai" in path.read_text("utf-8") for path in written if path.name == "config.yaml")
    assert not [path for path in written if key.encode() in path.read_bytes()]
    out, err = capfd.readouterr()
    assert key not in out + err


PHOTOS = ("RGB", "RGBA", "L", "P", "I;16", "CMYK", "exif", "progressive")


def write_photo(path: Path, kind: str, rng: np.random.Generator) -> None:
    """An ordinary picture of some person-like colours, in a kind and size that folders hold."""
    width, height = int(rng.integers(20, 90)), int(rng.integers(40, 200))
    upper, lower = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    pixels = np.empty((height, width, 3))
    pixels[: height // 2], pixels[height // 2 :] = upper, lower
    pixels = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if kind == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path.with_suffix(".png"))
    elif kind == "CMYK":
        image.convert("CMYK").save(path.with_suffix(".jpg"))
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        image.rotate(90, expand=True).save(path.with_suffix(".JPG"), format="JPEG", exif=exif)
    elif kind == "progressive":
        image.save(path.with_suffix(".jpeg"), progressive=True)
    else:
        image.convert(kind).save(path.with_suffix(".png"))


def test_a_folder_of_ordinary_photos(pipeline_of, tmp_path):
    photos = tmp_path / "my photos ü"
    rng = np.random.default_rng(0)
    for index in range(24):
        folder = photos / f"camera {index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        write_photo(folder / f"{index:02d}", PHOTOS[index % len(PHOTOS)], rng)
    (photos / "notes.txt").write_text("no image", "utf-8")
    pipeline = pipeline_of(name="folder", data=f"'{photos}'", synthesis="null")
    pipeline.all()
    assert pipeline.said("nothing to evaluate")
    assert not (pipeline.config.run_directory / "results.json").exists()
    model, content = checkpoints.load_retrieval_model(pipeline.config.run_directory / "best.pth")
    assert content["meta"]["selected_on"] == "last"
    _, features = model.encode_images(torch.zeros(2, 3, 48, 24))
    assert all(math.isfinite(value) for value in features.flatten().tolist())
    assert len(load_captions(tmp_path / "captions" / "captions.json")) == 24


def test_stages_out_of_order_say_what_is_missing(pipeline):
    for stage, words in (
        ("pre_train", "gen_pre_train_text.py"),
        ("gen_text", "pre_train.py"),
        ("train", "gen_text.py"),
        ("test", "train first"),
    ):
        assert pipeline(stage) == 1
        assert words in pipeline.messages[-1]


def test_the_shuffled_annotation_gives_the_same_model(pipeline_of, tmp_path, messages):
    """Unsupervised by construction: neither identities nor human captions of the training split are read."""
    first = pipeline_of()
    for stage in STAGES[:4]:
        assert first(stage) == 0
    original = first.config.dataset.root
    path = Path(original) / "CUHK-PEDES" / "reid_raw.json"
    entries = json.loads(path.read_text("utf-8"))
    shuffled = tmp_path / "shuffled" / "CUHK-PEDES"
    shuffled.mkdir(parents=True)
    (shuffled / "imgs").symlink_to((path.parent / "imgs").resolve())
    train = [entry for entry in entries if entry["split"] == "train"]
    moved = train[5:] + train[:5]
    for entry, (identity, captions) in zip(train, [(m["id"], m["captions"]) for m in moved], strict=True):
        entry["id"], entry["captions"] = identity, [f"{caption} indeed" for caption in captions]
    (shuffled / path.name).write_text(json.dumps(entries), "utf-8")
    second = make_pipeline(tmp_path / "second", messages, data=shuffled.parent, synthesis="null")
    for stage in STAGES[:4]:
        assert second(stage) == 0, second.messages
    models = [checkpoints.load(p.config.run_directory / "best.pth")["model"] for p in (first, second)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.slow
def test_the_whole_command(tmp_path, messages):
    """bash train.bash FILE does every stage; wrong names end with 2 and a sentence."""
    pipeline = make_pipeline(tmp_path, messages)
    environment = {**os.environ, "NPROC": "1", "OMP_NUM_THREADS": "1"}

    def train(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(ROOT / "train.bash"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = train(str(pipeline.path))
    assert done.returncode == 0, done.stderr
    assert "Rank-1" in done.stdout
    assert (tmp_path / "output" / "mini-pspd" / "results.json").exists()
    for arguments, words in (
        (("deom",), "There is no configuration configs/deom.yaml"),
        ((str(pipeline.path), "psdp"), "There is no method 'psdp'"),
        ((str(pipeline.path), "--from", "tran"), "--from needs one of"),
        ((str(pipeline.path), "--forse"), "Unknown argument '--forse'"),
    ):
        wrong = train(*arguments)
        assert wrong.returncode == 2
        assert words in wrong.stderr


def test_a_warm_up_learns_matching_in_its_second_part(finished):
    events = (finished.config.captioner_directory / "metrics.jsonl").read_text("utf-8").splitlines()
    epochs = [event for event in map(json.loads, events) if event["event"] == "epoch"]
    learnt = [(event["phase"], set(event["losses"])) for event in epochs]
    assert learnt == [
        ("warm-up", {"ndf"}),
        ("warm-up-matching", {"ndf", "itm"}),
        ("pre_train", {"language"}),
    ]
    assert not list(finished.config.captioner_directory.glob("*state*"))
