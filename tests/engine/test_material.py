"""What a training may learn from: never an identity or a human caption where its supervision is "pseudo"."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from captioning.files import Caption, write_captions
from data.errors import UserError
from data.records import PedesDataset, Record
from engine.building import method_class
from engine.material import (
    captioned_material,
    compact,
    generated_material,
    report_identities,
    supervised_material,
)

IMAGES = ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png"]
ROOT = Path("nowhere")


def files(*images: str) -> list[Path]:
    return [ROOT / image for image in images]


def dataset_of(records) -> PedesDataset:
    return PedesDataset("cuhk_pedes", ROOT, list(records), [], [], None)


@pytest.fixture
def dataset() -> PedesDataset:
    return dataset_of(
        Record(image, 3 * (i // 2), (f"a human caption {i}.", f"another human caption {i}."))
        for i, image in enumerate(IMAGES)
    )


@pytest.fixture
def generated(config):
    """Captions of every image but b/2.png, and of one image that is not in the training split."""
    write_captions(
        config.caption_directory / "captions.json",
        [
            Caption(
                image,
                f"a man in a red shirt {i}",
                f"the man wears blue jeans {i}",
                ("red", f"shirt{i}"),
                ("jeans",),
            )
            for i, image in enumerate([*IMAGES[:3], "test/1.png", IMAGES[4]])
        ],
    )


@pytest.mark.usefixtures("generated")
def test_generated_material_follows_the_images_and_the_kinds(config, dataset, messages):
    material = generated_material(dataset, config)
    assert material.images == files(*IMAGES[:3], IMAGES[4])
    assert [caption.text for caption in material.captions[:2]] == [
        "a man in a red shirt 0",
        "the man wears blue jeans 0",
    ]
    assert material.owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert material.cluster_texts == [f"the man wears blue jeans {i}" for i in (0, 1, 2, 4)]
    assert (material.captions[3].upper, material.captions[3].lower) == (("red", "shirt1"), ("jeans",))
    assert material.captions[0].upper == ("red", "shirt")  # a base caption's words come from the rules
    assert "1 of 5 training images have no caption" in messages[-1]
    config.train.captions = ["base"]
    only = generated_material(dataset, config)
    assert only.texts() == only.cluster_texts == [f"a man in a red shirt {i}" for i in (0, 1, 2, 4)]


@pytest.mark.usefixtures("generated")
def test_the_correction_may_read_another_caption_of_each_image(config, dataset):
    assert generated_material(dataset, config).correction_texts is None
    config.correction.captions = "base"
    material = generated_material(dataset, config)
    assert material.correction_texts == [f"a man in a red shirt {i}" for i in (0, 1, 2, 4)]
    assert material.cluster_texts == [f"the man wears blue jeans {i}" for i in (0, 1, 2, 4)]
    config.train.captions = ["base"]
    config.correction.captions = "styled"
    material = generated_material(dataset, config)
    assert material.correction_texts == [f"the man wears blue jeans {i}" for i in (0, 1, 2, 4)]


@pytest.mark.usefixtures("generated")
def test_identities_and_human_captions_change_nothing_and_are_not_even_read(config, dataset):
    plain = generated_material(dataset, config)
    shuffled = dataset_of(
        Record(image, 99 - i, ("something else entirely.",)) for i, image in enumerate(IMAGES)
    )
    bare = dataset_of(SimpleNamespace(image=image) for image in IMAGES)
    for other in (shuffled, bare):
        material = generated_material(other, config)
        assert material.captions == plain.captions
        assert material.images == plain.images
        assert material.identities.tolist() == [-1] * 4
        assert (material.owners == plain.owners).all()
    assert "human" not in " ".join([*plain.texts(), *plain.cluster_texts])


@pytest.mark.usefixtures("generated")
def test_noise_is_left_out_with_all_its_captions(config, dataset, tokenizer):
    material = generated_material(dataset, config)
    texts = tokenizer(material.texts())
    pairs = material.pairs(texts, np.array([1, -1, 0, -1]))
    assert pairs.images.tolist() == [0, 0, 2, 2]
    assert pairs.labels.tolist() == [1, 1, 0, 0]
    assert pairs.texts.ids.tolist() == texts.ids[[0, 1, 4, 5]].tolist()
    assert len(material.pairs(texts, np.full(4, -1))) == 0


def test_compact_numbers_labels_without_gaps():
    labels, count = compact(np.array([7, -1, 3, 7, -1, 900]))
    assert labels.tolist() == [1, -1, 0, 1, -1, 2]
    assert labels.dtype == np.int64
    assert count == 3
    assert compact(np.full(4, -1))[1] == 0
    assert compact(np.zeros(0, dtype=np.int64))[1] == 0


def test_missing_captions_say_which_stage_makes_them(config, dataset):
    with pytest.raises(UserError, match=r"gen_text\.py"):
        generated_material(dataset, config)
    write_captions(config.caption_directory / "captions.json", [Caption("other.png", "a b", "c d")])
    with pytest.raises(UserError, match="none of the 5 training images"):
        generated_material(dataset, config)


def test_supervised_material_uses_every_human_caption(config, dataset):
    material = supervised_material(dataset, config)
    assert material.texts()[:2] == ["a human caption 0.", "another human caption 0."]
    assert material.owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert material.identities.tolist() == [0, 0, 1, 1, 2]
    folder = dataset_of(Record(image, -1, ()) for image in IMAGES)
    with pytest.raises(UserError, match="supervised"):
        supervised_material(folder, config)


def test_captioned_material_reads_no_identity(config, dataset):
    records = [*dataset.train, Record(IMAGES[0], 99, ("a third caption.", "a human caption 0."))]
    records.append(Record("d/1.png", 5, ()))
    material = captioned_material(dataset_of(records), config)
    assert material.identities.tolist() == [-1] * 5
    assert material.images == files(*IMAGES), (
        "without captions there is nothing to learn, and no image comes twice"
    )
    assert [caption.text for caption in material.captions[:3]] == [
        "a human caption 0.",
        "another human caption 0.",
        "a third caption.",
    ]
    assert material.owners.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert material.cluster_texts[4] == "a human caption 4."
    with pytest.raises(UserError, match="supervision=pairs"):
        captioned_material(dataset_of(Record(image, -1, ()) for image in IMAGES), config)


def test_identities_for_the_report_follow_the_images(dataset):
    assert report_identities(dataset, files("c/1.png", "a/1.png", "a/2.png")).tolist() == [6, 0, 0]
    assert report_identities(dataset_of([Record("x.png", -1, ())]), files("x.png")) is None


def test_methods_are_found_by_name_or_told():
    assert method_class("pspd").supervision == "pseudo"
    assert method_class("cada").supervision == "labels"
    with pytest.raises(UserError, match="pspd"):
        method_class("pspdd")
