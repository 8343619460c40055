"""The drawn generator and editor: bytes by seed alone, every word drawn, and the same person after every edit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthesis.drawn.places import PLACES
from synthesis.drawn.renderer import ProceduralRenderer
from synthesis.generation import prompts
from synthesis.generation.drawn_editor import POSTURES, DrawnEditor
from synthesis.generation.drawn_generator import DrawnGenerator
from synthesis.generation.effects import EFFECTS
from synthesis.generation.parts import EDITS, Edit, Prompt
from synthesis.generation.registry import EDITORS, GENERATORS, make

FIVE = prompts.plain_prompts(list(range(5)), seed=1)
ALL_EDITS = [Edit(kind, name) for kind, names in EDITS.items() for name in names]


@pytest.fixture(scope="module")
def five():
    return DrawnGenerator().generate(FIVE, [prompt.seed for prompt in FIVE])


def same(first, second) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


def test_equal_seeds_give_equal_bytes_in_any_batch(five) -> None:
    again = DrawnGenerator()
    for prompt, picture in reversed(list(zip(FIVE, five, strict=True))):
        assert same(again.generate([prompt], [prompt.seed])[0], picture)
    assert len({picture.tobytes() for picture in five}) == 5
    other = again.generate(FIVE, [prompt.seed + 1 for prompt in FIVE])
    assert not any(same(a, b) for a, b in zip(five, other, strict=True))
    assert all(picture.mode == "RGB" for picture in five)


def test_every_word_of_every_slot_is_drawn() -> None:
    generator, template = DrawnGenerator(), dict(FIVE[1].attributes)
    slots = {
        "upper": prompts.UPPERS,
        "upper style": prompts.UPPER_STYLES,
        "sleeves": prompts.SLEEVES,
        "shoes": prompts.SHOES,
        "extra": prompts.EXTRAS,
        "angle": prompts.ANGLES,
        "age": prompts.AGES,
        "hair": prompts.HAIR,
        "lower": tuple(prompts.LOWERS),
    }
    template |= {"gender": "woman", "upper style": "striped", "angle": "walking towards the camera"}
    for slot, words in slots.items():
        drawn = [
            generator.generate([Prompt(0, "", template | {slot: word})], [5])[0].tobytes() for word in words
        ]
        # Prints differ by no more than their colour, and two kinds of trousers are drawn alike.
        assert len(set(drawn)) > len(words) / 2, slot
    for colour in prompts.COLOURS:
        generator.generate([Prompt(0, "", template | {f"{s} colour": colour for s in prompts.COLOURED})], [5])


def test_a_prompt_without_attributes_is_drawn_too() -> None:
    for attributes in (
        {},
        {"gender": "man"},
        {"gender": "woman", "age": "old", "hair": "long", "extra": "bag"},
    ):
        assert DrawnGenerator().generate([Prompt(0, "text", attributes)], [3])[0].size[1] > 100


def test_a_colour_that_is_named_is_the_one_that_is_drawn() -> None:
    attributes = dict(FIVE[0].attributes) | {
        "upper": "T-shirt", "upper style": "plain", "upper colour": "red", "lower": "trousers", "lower style": "straight",
        "lower colour": "blue", "angle": "walking away", "extra": "phone",
    }  # fmt: skip
    picture = np.asarray(DrawnGenerator().generate([Prompt(0, "", attributes)], [2])[0], dtype=int)
    height, width, _ = picture.shape
    chest = picture[int(0.33 * height) : int(0.4 * height), int(0.45 * width) : int(0.55 * width)].mean(
        (0, 1)
    )
    assert chest[0] > 2 * chest[1]
    assert chest[0] > 2 * chest[2]
    thighs = picture[int(0.6 * height) : int(0.65 * height), int(0.42 * width) : int(0.58 * width)].mean(
        (0, 1)
    )
    assert thighs[2] > thighs[0]


def test_edits_keep_the_size_and_change_the_picture(five) -> None:
    editor, count = DrawnEditor(), len(ALL_EDITS)
    edited = editor.edit([five[2]] * count, [FIVE[2]] * count, ALL_EDITS, [FIVE[2].seed] * count)
    assert all(picture.size == five[2].size and picture.mode == "RGB" for picture in edited)
    assert len({five[2].tobytes(), *(picture.tobytes() for picture in edited)}) == count + 1
    for entry, picture in zip(ALL_EDITS, edited, strict=True):
        assert same(DrawnEditor().edit([five[2]], [FIVE[2]], [entry], [FIVE[2].seed])[0], picture), entry


def test_the_tables_of_edits_are_whole() -> None:
    assert {name for kind, name in EFFECTS if kind == "weather"} == set(EDITS["weather"])
    assert {name for kind, name in EFFECTS if kind == "style"} == set(EDITS["style"])
    assert set(PLACES) == set(EDITS["background"])
    assert set(POSTURES) == set(EDITS["posture"])
    assert len(ALL_EDITS) == 19


def test_another_place_or_pose_shows_the_same_person_in_the_same_light(five, monkeypatch) -> None:
    seen = []
    render = ProceduralRenderer.render

    def noting(self, person, shot, seed, posed=None):
        seen.append((person, replace(shot, camera=replace(shot.camera, scenes=())), seed))
        return render(self, person, shot, seed, posed)

    monkeypatch.setattr(ProceduralRenderer, "render", noting)
    for prompt, picture in zip(FIVE, five, strict=True):
        seen.clear()
        DrawnGenerator().generate([prompt], [prompt.seed])
        redrawn = [entry for entry in ALL_EDITS if entry.kind in ("background", "posture")]
        for entry in redrawn:
            DrawnEditor().edit([picture], [prompt], [entry], [prompt.seed])
        assert len(seen) == 1 + len(redrawn)
        assert all(entry == seen[0] for entry in seen)


def test_a_new_place_leaves_the_pixels_of_the_person_alone(five) -> None:
    """In the middle of the chest, where no background is: up to what JPEG adds."""
    for name in ("desert", "lake"):
        edited = DrawnEditor().edit([five[0]], [FIVE[0]], [Edit("background", name)], [FIVE[0].seed])[0]
        width, height = five[0].size
        chest = (int(0.45 * width), int(0.3 * height), int(0.55 * width), int(0.42 * height))
        before, after = (np.asarray(p.crop(chest), dtype=int) for p in (five[0], edited))
        assert np.abs(before - after).mean() < 6


def test_foreign_images_are_refused(five) -> None:
    cropped = five[0].crop((0, 0, 40, 80))
    with pytest.raises(ValueError, match="uncropped: set gen_images"):
        DrawnEditor().edit([cropped], [FIVE[0]], [Edit("posture", "sitting")], [FIVE[0].seed])


@pytest.mark.parametrize(
    ("table", "name", "options", "words"),
    [
        (GENERATORS, "drawn", {"wrld": "street"}, "no option wrld; it has world"),
        (GENERATORS, "drawn", {"world": "mars"}, "no world 'mars'; choose one of street"),
        (EDITORS, "drwn", {}, "no backend 'drwn' here; choose one of drawn"),
    ],
)
def test_a_wrong_name_or_option_is_told(table, name, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        make(table, name, options, device="cpu", half=False)
    assert make(GENERATORS, "drawn", {"world": "target"}, device="cpu").world.name == "target"
