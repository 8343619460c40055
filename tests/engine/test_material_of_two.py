"""What is learnt from two sources: the data set's images and a synthetic set's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import UserError
from data.records import PedesDataset, Record
from engine.building import check_model
from engine.material import Material, joined, materials_of, supervised_material, synthetic_material

REAL = [("a/1.png", 4), ("a/2.png", 4), ("b/1.png", 0), ("c/1.png", 900)]
MADE = [("p/1.jpg", 0), ("p/2.jpg", 4), ("p/3.jpg", 0)]  # the same numbers, other people


@pytest.fixture
def dataset() -> PedesDataset:
    records = [Record(image, identity, (f"real {image}.", "again.")) for image, identity in REAL]
    return PedesDataset("cuhk_pedes", Path("nowhere"), records, [], [], None)


@pytest.fixture
def choose(config, tmp_path):
    """choose(data, supervision) -> the configuration of a run that has a synthetic set of MADE."""
    records = [
        {"split": "train", "file_path": image, "id": identity, "captions": [f"made {image}."]}
        for image, identity in MADE
    ]
    records.append({"split": "test", "file_path": "p/9.jpg", "id": 77, "captions": ["never trained on."]})
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "synthetic.json").write_text(json.dumps(records), "utf-8")

    def chosen(data: str, supervision: str = "labels"):
        config.gen_images = {"root": str(folder)}
        config.train.data, config.train.supervision = data, supervision
        return config

    return chosen


def pairs_of(material: Material, labels: np.ndarray) -> list[tuple[str, str, int]]:
    """File, caption and label of every pair, by a plain loop."""
    return [
        (str(material.images[owner]), caption.text, int(labels[owner]))
        for owner, caption in zip(material.owners, material.captions, strict=True)
    ]


def test_mixed_is_one_after_the_other_with_identities_that_never_meet(choose, dataset):
    config = choose("mixed")
    both, before = materials_of(dataset, config)
    real, made = supervised_material(dataset, config), synthetic_material(config)
    assert before is None
    assert both.unlabelled == 0
    expected = pairs_of(real, real.labels())
    people = len({identity for _, identity in REAL})
    expected += [(file, text, label + people) for file, text, label in pairs_of(made, made.labels())]
    assert pairs_of(both, both.labels()) == expected
    assert len(np.unique(both.labels())) == people + len({identity for _, identity in MADE})
    assert both.texts() == [*real.texts(), *made.texts()]
    assert both.source == "demo + people (synthetic)"
    assert [path.parts[0] for path in both.images[:4]] == ["nowhere"] * 4
    assert both.images[4].name == "1.jpg"
    assert both.images[4].parent.parent.name == "imgs"


def test_labels_that_are_found_never_meet_identities_either(choose, dataset):
    both, _ = materials_of(dataset, choose("mixed", "pairs"))
    assert both.unlabelled == 4
    assert both.labels(np.array([2, -1, 0, 2])).tolist() == [2, -1, 0, 2, 3, 4, 3]
    assert both.labels(np.full(4, -1)).tolist() == [-1, -1, -1, -1, 0, 1, 0]
    assert both.labels(np.arange(4)).tolist() == [0, 1, 2, 3, 4, 5, 4]


def test_synthetic_alone_reads_nothing_of_the_data_set(choose):
    own, before = materials_of(None, choose("synthetic", "method"))
    assert before is None
    assert [caption.text for caption in own.captions] == [f"made {image}." for image, _ in MADE]
    assert own.labels().tolist() == [0, 1, 0]
    assert own.source == "people (synthetic)"


def test_a_set_that_real_images_had_a_part_in_says_so(choose):
    config = choose("mixed")
    config.gen_images.scenario = "few"
    assert synthetic_material(config).source == "people (synthetic, generator tuned on real images)"


def test_one_after_the_other_share_a_vocabulary_and_nothing_else(choose, dataset):
    config = choose("synthetic_then_real")
    own, before = materials_of(dataset, config)
    real, made = supervised_material(dataset, config), synthetic_material(config)
    assert pairs_of(own, own.labels()) == pairs_of(real, real.labels())
    assert pairs_of(before, before.labels()) == pairs_of(made, made.labels())
    assert own.texts() == [*before.texts(), *real.texts()]
    assert own.tokenizer_directory == config.run_directory / "tokenizer"
    assert own.source == "people (synthetic), then demo"


def test_joining_shifts_by_what_the_first_has(choose, dataset):
    config = choose("mixed")
    made = synthetic_material(config)
    twice = joined(made, made)
    assert twice.identities.tolist() == [0, 1, 0, 2, 3, 2]
    assert twice.owners.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_set_without_captions_is_told(choose, dataset):
    config = choose("mixed")
    path = Path(config.gen_images.root) / "synthetic.json"
    path.write_text(json.dumps([{**record, "captions": []} for record in json.loads(path.read_text())]))
    with pytest.raises(UserError, match=r"no training image with a caption: make it with gen_images\.py"):
        materials_of(dataset, config)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gen_images": None}, r"set gen_images\.root"),
        ({"supervision": "zero-shot"}, r"Nothing is trained"),
        ({"gen_images": {"scenario": "all"}, "data": "synthetic"}, "has read real captions"),
        ({"val_identities": 1, "data": "synthetic", "supervision": "labels"}, "opens none"),
        ({"rounds": 0, "supervision": "pseudo"}, r"Without rounds nothing is learnt"),
        (
            {"rounds": 0, "supervision": "pairs", "data": "synthetic_then_real"},
            r"train\.data=synthetic_then_real",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(choose, settings, told):
    config = choose("mixed")
    config.model.pretrained = config.model.tokenizer = "there.pth"
    for name, value in settings.items():
        setattr(config if name == "gen_images" else config.train, name, value)
    with pytest.raises(UserError, match=told):
        check_model(config)


@pytest.mark.parametrize("data", ["real", "synthetic", "synthetic_then_real", "mixed"])
@pytest.mark.parametrize("supervision", ["pseudo", "pairs", "labels"])
def test_every_other_choice_is_taken(choose, data, supervision):
    check_model(choose(data, supervision))
