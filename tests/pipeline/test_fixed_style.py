"""TSN from images to both protocols: one fixed style in training, gallery and queries in it at test time only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from captioning.files import load_fixed_captions
from captioning.import_released import main as import_released
from captioning.store import CaptionStore
from data import load_dataset
from engine import checkpoints
from engine.several_seeds import main as several_seeds
from tests.pipeline.mini import STAGES, make_pipeline

pytestmark = pytest.mark.integration
TSN = ("--set", "model.method=tsn", "correction.enabled=false")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, messages_of_module):
    """A TSN pipeline that has run through; `said` holds what each stage said."""
    pipeline = make_pipeline(tmp_path_factory.mktemp("tsn"), messages_of_module)
    pipeline.after = {}
    for stage in STAGES:
        assert pipeline(stage, *TSN) == 0, pipeline.messages
        folder = pipeline.config.caption_directory
        pipeline.after[stage] = ({path.name for path in folder.iterdir()}, list(pipeline.messages))
    return pipeline


def run_folder(pipeline) -> Path:
    return pipeline.config.run_directory.with_name("mini-tsn")


def test_every_training_image_and_no_other_has_a_text(finished):
    dataset = load_dataset("cuhk_pedes", finished.config.dataset.root)
    texts = load_fixed_captions(finished.config.caption_directory / "fixed_captions.json")
    assert list(texts) == [record.image for record in dataset.train]
    assert all(text.startswith("The ") for text in texts.values())


def test_no_captioner_is_trained_and_gallery_texts_come_with_the_test(finished):
    for stage in ("pre_train", "gen_text"):
        assert any("no captioner is needed" in message for message in finished.after[stage][1])
    assert not (finished.config.captioner_directory / "captioner.pth").exists()
    at_test = {"fixed_gallery.jsonl", "fixed_queries.jsonl"}
    for stage in STAGES[:-1]:
        assert not at_test & finished.after[stage][0], stage
    assert at_test <= finished.after["test"][0]


def test_both_protocols_stand_in_files_of_their_own(finished):
    folder = run_folder(finished)
    plain, msm = (
        json.loads((folder / name).read_text("utf-8")) for name in ("results.json", "msm/results.json")
    )
    assert (plain["protocol"], msm["protocol"]) == ("plain", "msm")
    assert (plain["queries"], plain["gallery"]) == (msm["queries"], msm["gallery"]) == (16, 8)
    assert plain["selected_on"] == msm["selected_on"] == "val"
    assert len((folder / "msm" / "queries.jsonl").read_text("utf-8").splitlines()) == 16
    rows = [(folder / f"{name}queries.jsonl").read_text("utf-8") for name in ("", "msm/")]
    assert rows[0] != rows[1]


def test_a_second_run_asks_nothing_again(finished):
    folder = finished.config.caption_directory
    names = ("fixed_captions.jsonl", "fixed_gallery.jsonl", "fixed_queries.jsonl")
    before = {name: (folder / name).read_bytes() for name in names}
    dead = "gen_pre_train_text.options={base_url: 'http://127.0.0.1:9/v1', model: vl}"
    assert finished("gen_pre_train_text", *TSN) == 0
    assert finished.said("already finished")
    # Not even opened: this endpoint does not exist.
    assert finished("test", *TSN, "gen_pre_train_text.backend=openai", dead) == 0, finished.messages
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_without_weight_there_is_the_plain_protocol_only(finished, tmp_path):
    assert finished("test", *TSN, "test.msm_weight=0") == 0
    assert not (run_folder(finished) / "msm" / "results.json").exists()
    assert finished("test", *TSN) == 0
    assert (run_folder(finished) / "msm" / "results.json").exists()


def test_a_summary_of_seeds_keeps_the_protocols_apart(finished, capsys):
    if not (run_folder(finished) / "msm" / "results.json").exists():
        assert finished("test", *TSN) == 0
    assert several_seeds(["summary", "--config", str(finished.path), *TSN, "--seeds", "0"]) == 0
    output = finished.config.run_directory.parent
    for protocol, suffix in (("plain", ""), ("msm", "-msm")):
        content = json.loads((output / f"mini-tsn-seeds{suffix}.json").read_text("utf-8"))
        assert content["protocol"] == protocol
    assert "protocol msm" in capsys.readouterr().out


def test_a_model_of_another_method_is_refused(finished):
    checkpoint = run_folder(finished) / "best.pth"
    assert finished("test", "--checkpoint", str(checkpoint)) == 1
    assert "is a model of the method 'tsn', and the configuration's is 'pspd'" in finished.messages[-1]


def test_a_dry_run_counts_both_kinds_of_questions(pipeline, tmp_path, capsys):
    assert pipeline("gen_pre_train_text", *TSN, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "14 of 14 sampled images" in said
    assert "24 of 24 training images are still to be captioned" in said
    assert not (tmp_path / "captions" / "fixed_captions.jsonl").exists()


def test_with_pretrained_weights_only_the_fixed_style_is_asked_for(pipeline, tmp_path):
    assert pipeline("gen_pre_train_text", *TSN, "model.pretrained=somewhere.pth") == 0
    names = {path.name for path in (tmp_path / "captions").iterdir()}
    assert {"fixed_captions.json", "fixed_captions.jsonl"} <= names
    assert "pre_captions.json" not in names


def test_force_sets_the_texts_aside(pipeline, tmp_path):
    assert pipeline("gen_pre_train_text", *TSN) == 0
    before = (tmp_path / "captions" / "fixed_captions.jsonl").read_bytes()
    assert pipeline("gen_pre_train_text", *TSN, "--force") == 0
    assert (tmp_path / "captions" / "fixed_captions.jsonl.old1").read_bytes() == before


def test_other_methods_are_not_touched(pipeline, tmp_path):
    for stage in STAGES[:3]:
        assert pipeline(stage) == 0
    names = {path.name for path in (tmp_path / "captions").iterdir()}
    assert not [name for name in names if name.startswith("fixed")]


def test_both_methods_share_vocabulary_and_warm_up_whichever_comes_first(pipeline_of, tmp_path, messages):
    first = pipeline_of()
    for stage in ("gen_pre_train_text", "train"):
        assert first(stage, *TSN) == 0, first.messages
    folder = tmp_path / "captions" / "tokenizer"
    vocabulary = (folder / "vocab.txt").read_text("utf-8")
    other = make_pipeline(tmp_path / "other", messages, data=first.config.dataset.root, synthesis="null")
    for stage in STAGES[:2]:
        assert other(stage) == 0
    assert (other.config.caption_directory / "tokenizer" / "vocab.txt").read_text("utf-8") == vocabulary
    states = [
        checkpoints.load(config.captioner_directory / "warm_up.pth")["model"]
        for config in (first.config, other.config)
    ]
    shared = states[0].keys() & states[1].keys()
    assert "visual_encoder.patch_embed.proj.weight" in shared
    assert all(torch.equal(states[0][name], states[1][name]) for name in shared)


def test_released_files_are_used_instead_of_asking(pipeline, tmp_path):
    assert pipeline("gen_pre_train_text", "--dry-run") == 0  # draws the people
    dataset = load_dataset("cuhk_pedes", pipeline.config.dataset.root)
    released = "The man is wearing red shirt."
    train = [{"image_path": record.image, "generated_text": released} for record in dataset.train]
    test = [
        {
            "image_path": record.image,
            "img_gen_text": released,
            "generated_text": [f"The man wears {n}." for n, _ in enumerate(record.captions)],
        }
        for record in dataset.test
    ]
    files = []
    for name, records in (("train", train), ("test", test)):
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(records), "utf-8")
    places = ["--images", str(dataset.image_root), "--out", str(tmp_path / "captions")]
    assert import_released([*files, *places]) == 0
    for stage in ("gen_pre_train_text", "train", "test"):
        # An endpoint that does not exist: only stage A's sample for the warm-up is asked for, by palette.
        assert pipeline(stage, *TSN) == 0, pipeline.messages
    texts = load_fixed_captions(tmp_path / "captions" / "fixed_captions.json")
    assert set(texts.values()) == {released}
    assert len(CaptionStore(tmp_path / "captions" / "fixed_queries.jsonl")) == 0
    with CaptionStore(tmp_path / "captions" / "fixed_gallery.jsonl") as store:
        assert {record["model"] for record in store} == {"released: test.json"}


def test_a_shuffled_annotation_gives_the_same_model(pipeline_of, tmp_path, messages):
    """Unsupervised by construction, with the fixed style, too."""
    first = pipeline_of()
    for stage in STAGES[:4]:
        assert first(stage, *TSN) == 0, first.messages
    path = Path(first.config.dataset.root) / "CUHK-PEDES" / "reid_raw.json"
    entries = json.loads(path.read_text("utf-8"))
    shuffled = tmp_path / "shuffled" / "CUHK-PEDES"
    shuffled.mkdir(parents=True)
    (shuffled / "imgs").symlink_to((path.parent / "imgs").resolve())
    train = [entry for entry in entries if entry["split"] == "train"]
    moved = [(entry["id"], entry["captions"]) for entry in train[5:] + train[:5]]
    for entry, (identity, captions) in zip(train, moved, strict=True):
        entry["id"], entry["captions"] = identity, [f"{caption} indeed" for caption in captions]
    (shuffled / path.name).write_text(json.dumps(entries), "utf-8")
    second = make_pipeline(tmp_path / "second", messages, data=shuffled.parent, synthesis="null")
    for stage in STAGES[:4]:
        assert second(stage, *TSN) == 0, second.messages
    models = [checkpoints.load(run_folder(p) / "best.pth")["model"] for p in (first, second)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
