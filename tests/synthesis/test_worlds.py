"""The worlds: what two of them must not share, what makes people of the target alike, and that today's demo is what it was."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from synthesis.demo import DemoError, main, make_demo
from synthesis.drawn.attributes import SHARES, combination, sample_people, share_of
from synthesis.drawn.camera import sample_shot
from synthesis.drawn.captions import LONG, SHORT, describe
from synthesis.drawn.renderer import Picture, ProceduralRenderer
from synthesis.drawn.sentences import SOURCE_STARTS
from synthesis.drawn.worlds import SOURCE, STREET, TARGET, WORLDS, World

SIZES = {"train": 2, "val": 1, "test": 1, "images": 6}
EVERYTHING = dict.fromkeys(
    ("upper", "lower", "inner", "hair", "shoes", "bag", "hat", "scarf", "glasses", "print", "face"), 0.05
)


def _captions(world: World, count: int, view: str = "front", seed: int = 0) -> list[str]:
    picture = Picture(None, view, True, EVERYTHING)
    people = sample_people(count, seed, world.fashion)
    return [
        describe(person, picture, random.Random(f"{world.name}{seed}{index}"), SHORT, world.wording).text
        for index, person in enumerate(people)
    ]


def _sentences(captions: list[str]) -> set[str]:
    return {sentence for caption in captions for sentence in re.split(r"(?<=\.) ", caption)}


def test_source_and_target_share_no_combination_and_no_identity():
    assert not SOURCE.fashion.shares & TARGET.fashion.shares
    assert SOURCE.fashion.shares | TARGET.fashion.shares == set(range(SHARES))
    for seed, other in ((0, 0), (0, 1)):
        source = sample_people(1200, seed, SOURCE.fashion)
        target = sample_people(600, other, TARGET.fashion)
        assert not {combination(person) for person in source} & {combination(person) for person in target}
        assert not {person.description() for person in source} & {person.description() for person in target}


def test_the_share_of_a_combination_is_the_same_everywhere():
    person = next(person for person in sample_people(20, 0) if person.lower)
    upper = replace(person.upper, kind="jacket", colour=replace(person.upper.colour, term="red"))
    lower = replace(person.lower, kind="jeans", colour=replace(person.lower.colour, term="blue"))
    # printf 'jacket/red/jeans/blue' | gzip -c | tail -c8 | head -c4 | od -An -tu4
    assert share_of(replace(person, upper=upper, lower=lower)) == 1806587736 % SHARES


def test_source_and_target_share_no_sentence():
    views = ("front", "back", "left")
    source = _sentences([text for view in views for text in _captions(SOURCE, 600, view)])
    target = _sentences([text for view in views for text in _captions(TARGET, 600, view)])
    assert not source & target
    # By construction: a source caption is one sentence with a start that no target sentence has.
    assert {sentence.split()[0].strip(":") for sentence in source} <= set(SOURCE_STARTS)
    assert not {sentence.split()[0] for sentence in target} & set(SOURCE_STARTS)
    assert all(text.count(".") == 1 for text in _captions(SOURCE, 200))


def test_the_source_has_read_every_word_of_the_target():
    def words(world: World) -> set[str]:
        views = ("front", "back", "left")
        return {word for view in views for text in _captions(world, 1200, view) for word in _words(text)}

    assert not words(TARGET) - words(SOURCE)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z'-]+", text.lower())


@pytest.mark.parametrize("world", [SOURCE, TARGET], ids=lambda world: world.name)
def test_captions_of_a_world_are_sentences(world):
    texts = _captions(world, 500)
    for text in texts:
        assert text[0].isupper()
        assert text.endswith(".")
        assert "  " not in text
        assert "{" not in text
        assert not re.search(r"\ba [aeio]\w|\ban [^aeiou]", text), text
    counts = [len(text.split()) for text in texts]
    assert 17 < sum(counts) / len(counts) < 32
    assert max(counts) <= 48
    assert len(set(texts)) == len(texts)


def test_captions_of_one_person_differ_by_view_in_the_target_world():
    people = [person for person in sample_people(300, 0, TARGET.fashion) if person.glasses]

    def told(view: str) -> float:
        picture = Picture(None, view, True, EVERYTHING)
        texts = [
            describe(person, picture, random.Random(f"{view}{index}"), SHORT, TARGET.wording).text
            for index, person in enumerate(people * 8)
        ]
        return sum("shoes" in text or "trainers" in text or "sneakers" in text for text in texts) / len(texts)

    assert told("left") > 1.3 * told("back")


def _differences(first, second) -> int:
    parts = (
        "gender",
        "upper",
        "lower",
        "shoes",
        "bag",
        "hat",
        "scarf",
        "glasses",
        "beard",
        "hair",
        "hair_style",
    )
    return sum(_named(getattr(first, part)) != _named(getattr(second, part)) for part in parts)


def _named(value):
    """A thing by its names: a shade of the same name is no difference."""
    return re.sub(r"'?rgb'?=\([^)]*\)", "", repr(value))


def test_people_of_the_target_look_alike_and_those_of_the_source_do_not():
    def alike(people) -> float:
        close = [_differences(a, b) <= 2 for a, b in itertools.pairwise(people)]
        return sum(close) / len(close)

    assert 0.1 < alike(sample_people(600, 0, TARGET.fashion)) < 0.25
    assert alike(sample_people(600, 0, SOURCE.fashion)) < 0.01


@pytest.mark.parametrize("world", [SOURCE, TARGET], ids=lambda world: world.name)
def test_patterns_and_linings_of_a_world_can_be_told_from_the_cloth(world):
    for person in sample_people(500, 3, world.fashion):
        for garment in (person.upper, person.lower):
            if garment is not None:
                assert garment.second is None or garment.second.term != garment.colour.term
        assert person.upper.inner is None or person.upper.inner.term != person.upper.colour.term


def test_cameras_of_source_and_target_differ_in_name_place_and_cast():
    assert not {camera.name for camera in SOURCE.cameras} & {camera.name for camera in TARGET.cameras}
    scenes = [{scene for camera in world.cameras for scene in camera.scenes} for world in (SOURCE, TARGET)]
    assert not scenes[0] & scenes[1]

    def cast(world: World) -> float:
        return max(max(camera.cast) - min(camera.cast) for camera in world.cameras)

    assert cast(SOURCE) < 0.1 < cast(TARGET)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_every_camera_of_a_world_takes_pictures(world):
    person = sample_people(1, 1, world.fashion)[0]
    for camera in world.cameras:
        for scene in camera.scenes:
            only = replace(camera, scenes=(scene,))
            shot = sample_shot(only, "front", random.Random(scene), world.optics)
            picture = ProceduralRenderer(world).render(person, shot, scene)
            assert picture.image.size == shot.size
            assert len(picture.image.getcolors(maxcolors=10**6)) > 300


def test_todays_demo_is_the_default_and_says_nothing_of_worlds(tmp_path):
    sizes = SIZES | {"images": 2}
    default = make_demo(tmp_path / "default", **sizes)
    assert _digest(default) == _digest(make_demo(tmp_path / "street", **sizes, world="street"))
    assert "world" not in json.loads((default / "spec.json").read_text())


def test_todays_demo_is_drawn_and_told_as_in_version_0_1():
    """Everything but the pixels, which depend on libraries, too: people, shots and captions, by a digest of that version's."""
    told = []
    for index, person in enumerate(sample_people(300, 0)):
        view = ("front", "back", "left", "right")[index % 4]
        shot = sample_shot(STREET.cameras[index % 2], view, random.Random(f"shot{index}"))
        picture = Picture(None, view, index % 3 > 0, EVERYTHING)
        words = LONG if index % 5 == 0 else SHORT
        caption = describe(person, picture, random.Random(f"caption{index}"), words)
        told.append([person.record(), asdict(shot), caption.text, caption.mistake])
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    assert digest == "95d4944b607c2a752ccb0b044ad1ceeded80c84a91d42b81b43d13d5951c4eee"


def test_a_set_of_another_world_is_another_set(tmp_path):
    folder = make_demo(tmp_path, **SIZES, world="target")
    assert json.loads((folder / "spec.json").read_text())["world"] == "target"
    records = json.loads((folder / "reid_raw.json").read_text())
    assert {record["file_path"].split("/")[0] for record in records} == {"cam_e", "cam_f", "cam_g"}
    assert make_demo(tmp_path, **SIZES, world="target") == folder
    with pytest.raises(DemoError, match="differs in world"):
        make_demo(tmp_path, **SIZES)
    with pytest.raises(DemoError, match="unknown world 'mars'; choose one of street, source, target"):
        make_demo(tmp_path / "elsewhere", **SIZES, world="mars")


def test_the_command_draws_as_many_images_of_a_person_as_the_world_has(tmp_path):
    sizes = ["--train", "1", "--val", "0", "--test", "1", "--workers", "1"]
    assert main(["--root", str(tmp_path), "--world", "target", *sizes]) == 0
    assert len(json.loads((tmp_path / "CUHK-PEDES" / "reid_raw.json").read_text())) == 2 * TARGET.images


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
