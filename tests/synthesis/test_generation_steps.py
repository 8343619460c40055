"""Steps: they go on where they stopped, make nothing twice, and end in the same bytes on any number of processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from captioning.backends.palette import PaletteBackend
from data.errors import UserError
from synthesis.generation import export, report, steps
from synthesis.generation.captions import caption, question
from synthesis.generation.drawn_editor import DrawnEditor
from synthesis.generation.drawn_generator import DrawnGenerator
from synthesis.generation.folder import SetFolder
from synthesis.generation.parts import Person
from synthesis.generation.recipe import Recipe, cropped_path, planned_edits, planned_images
from synthesis.generation.sheet import contact_sheet

RECIPE = Recipe(prompts=3, per_prompt=2, edits={"background": 1, "weather": 1, "posture": 1}, batch_size=2)
IMAGES = planned_images(RECIPE.all_prompts(), RECIPE.per_prompt)


class Killed(Exception):
    pass


class Counting:
    """A real generator or editor that notes what it makes, and fails before the n-th batch."""

    def __init__(self, part, fails_at: int = -1) -> None:
        self.part, self.name, self.fails_at = part, part.name, fails_at
        self.batches, self.made = 0, []

    def _next(self, keys: list) -> None:
        if self.batches == self.fails_at:
            raise Killed
        self.batches += 1
        self.made += keys

    def generate(self, prompts, seeds):
        self._next(list(seeds))
        return self.part.generate(prompts, seeds)

    def edit(self, images, prompts, edits, seeds):
        self._next(list(zip(map(str, edits), seeds, strict=True)))
        return self.part.edit(images, prompts, edits, seeds)


class Finder:
    """Says of the n-th image that it sees what it is told to."""

    name = "told"

    def __init__(self, told) -> None:
        self.told, self.seen = list(told), 0

    def people(self, images):
        found = self.told[self.seen : self.seen + len(images)]
        self.seen += len(images)
        return found


def whole(box=(3.4, 5.0, 40.2, 90.0), without=()) -> Person:
    points = np.ones((17, 3))
    points[list(without), 2] = 0.2
    return Person(box, 0.9, points)


def finished(folder: SetFolder, recipe: Recipe = RECIPE) -> dict[str, bytes]:
    """Everything up to the annotation on one process; all files by name."""
    images = planned_images(recipe.all_prompts(), recipe.per_prompt)
    steps.generate(folder, images, DrawnGenerator(), batch_size=recipe.batch_size)
    kept = steps.kept_images(folder, images, filtered=False)
    edits = planned_edits(kept, images, recipe.edits)
    steps.edit(folder, edits, DrawnEditor(), batch_size=recipe.batch_size)
    entries = export.entries_of(kept, images, edits)
    caption(folder, [entry.path for entry in entries], PaletteBackend(), recipe.captions, recipe.seed)
    assert export.write_annotation(folder, entries, recipe) == len(entries)
    return outcome(folder)


def outcome(folder: SetFolder) -> dict[str, bytes]:
    files = [path for path in folder.root.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    assert not [path for path in files if path.name.startswith(".")]
    return {str(path.relative_to(folder.root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory):
    folder = SetFolder(tmp_path_factory.mktemp("whole"))
    return folder, finished(folder)


@pytest.mark.parametrize("moment", range(3))
def test_generating_goes_on_where_it_failed_and_makes_nothing_twice(moment, tmp_path, whole_set) -> None:
    folder, first = SetFolder(tmp_path), Counting(DrawnGenerator(), fails_at=moment)
    with pytest.raises(Killed):
        steps.generate(folder, IMAGES, first, batch_size=2)
    second = Counting(DrawnGenerator())
    steps.generate(folder, IMAGES, second, batch_size=2)
    assert first.made + second.made == [image.seed for image in IMAGES]
    assert finished(folder) == whole_set[1]
    third = Counting(DrawnGenerator())
    steps.generate(folder, IMAGES, third, batch_size=2)
    assert not third.made


@pytest.mark.parametrize("moment", [0, 1, 4])
def test_editing_goes_on_where_it_failed_and_makes_nothing_twice(moment, tmp_path, whole_set) -> None:
    folder = SetFolder(tmp_path)
    steps.generate(folder, IMAGES, DrawnGenerator(), batch_size=4)
    edits = planned_edits(steps.kept_images(folder, IMAGES, filtered=False), IMAGES, RECIPE.edits)
    first, second = Counting(DrawnEditor(), fails_at=moment), Counting(DrawnEditor())
    with pytest.raises(Killed):
        steps.edit(folder, edits, first, batch_size=3)
    steps.edit(folder, edits, second, batch_size=5)
    assert first.made + second.made == [(str(entry.edit), entry.origin.seed) for entry in edits]
    assert finished(folder) == whole_set[1]


def test_an_image_whose_file_is_gone_is_made_again(tmp_path, whole_set) -> None:
    folder = SetFolder(tmp_path)
    finished(folder)
    lost = sorted((tmp_path / "imgs").rglob("*.jpg"))[::3]
    for path in lost:
        path.unlink()
    assert finished(folder) == whole_set[1]


def test_two_processes_make_what_one_makes(tmp_path, whole_set) -> None:
    folder = SetFolder(tmp_path)
    for rank in (1, 0):
        steps.generate(folder, IMAGES, DrawnGenerator(), batch_size=2, rank=rank, world_size=2)
    kept = steps.kept_images(folder, IMAGES, filtered=False)
    edits = planned_edits(kept, IMAGES, RECIPE.edits)
    for rank in (1, 0):
        steps.edit(folder, edits, DrawnEditor(), batch_size=2, rank=rank, world_size=2)
    for rank in (1, 0):
        caption(
            folder,
            [entry.path for entry in export.entries_of(kept, IMAGES, edits)],
            PaletteBackend(),
            "variable",
            0,
            rank=rank,
            world_size=2,
        )
    with folder.manifest("generated") as generated, folder.manifest("captions") as captions:
        assert (len(generated), generated.duplicates) == (6, 0)
        assert (len(captions), captions.duplicates) == (24, 0)
    assert finished(folder) == whole_set[1]


def test_progress_is_told_once_a_batch_is_on_disk(tmp_path) -> None:
    folder, told = SetFolder(tmp_path), []

    def progress(step: str, done: int, total: int) -> None:
        with folder.manifest("generated") as store:
            assert len(store) == done
        told.append((step, done, total))

    steps.generate(folder, IMAGES, DrawnGenerator(), batch_size=4, progress=progress)
    assert told == [("images", 4, 6), ("images", 6, 6)]


def test_the_filter_keeps_crops_of_one_whole_person_and_says_why_not_of_the_others(tmp_path) -> None:
    folder = SetFolder(tmp_path)
    steps.generate(folder, IMAGES, DrawnGenerator(), batch_size=6)
    told = [
        [whole()],
        [],
        [whole(), whole()],
        [whole(without=range(5))],
        [whole((-4, -2, 999, 999))],
        [whole(without=range(13, 17))],
    ]
    finder = Finder(told)
    steps.keep_whole_people(folder, IMAGES, finder, batch_size=4)
    kept = steps.kept_images(folder, IMAGES, filtered=True)
    assert list(kept) == [IMAGES[0].path, IMAGES[4].path]
    assert folder.open_image(kept[IMAGES[0].path]).size == (38, 85)
    assert folder.open_image(kept[IMAGES[4].path]).size == folder.open_image(IMAGES[4].path).size
    with folder.manifest("people") as store:
        reasons = [store.get(cropped_path(image.path)).get("reason") for image in IMAGES]
    assert reasons == [None, "none", "several", "head", None, "lower"]
    steps.keep_whole_people(folder, IMAGES, finder, batch_size=4)
    assert finder.seen == 6  # refused ones are not looked at again
    entries = export.entries_of(kept, IMAGES, [])
    caption(folder, [entry.path for entry in entries], PaletteBackend(), "constant", 0)
    content = report.quality_report(folder, IMAGES, kept, entries, filtered=True)
    assert content["left out"] == {"head": 1, "lower": 1, "none": 1, "several": 1}
    assert (content["generated"], content["kept"], content["images"]) == (6, 2, 2)
    assert "6 images, 2 kept (left out: 1 head, 1 lower, 1 none, 1 several)" in report.told(content)
    assert contact_sheet(folder, IMAGES, entries).size == (3 * 150, 3 * 262)


def test_identities_are_images_or_prompts_and_edits_keep_them(whole_set, tmp_path) -> None:
    folder, _ = whole_set
    records = json.loads(folder.annotation.read_text("utf-8"))
    assert len(records) == 6 * 4
    assert [record["id"] for record in records] == [n for n in range(6) for _ in range(4)]
    assert all(record["split"] == "train" and len(record["captions"]) == 1 for record in records)
    assert {record["generator"] for record in records} == {"drawn"}
    for record in records:
        assert (record["edit"] != "") == record["file_path"].startswith("edited/")
        assert folder.path(record["file_path"]).is_file()
    by_prompt = Recipe(prompts=3, per_prompt=2, edits=RECIPE.edits, identity="prompt")
    other = SetFolder(tmp_path)
    finished(other, by_prompt)
    ids = [record["id"] for record in json.loads(other.annotation.read_text("utf-8"))]
    assert ids == [n for n in range(3) for _ in range(8)]
    assert len({record["prompt"] for record in records}) == 3


def test_an_editor_that_changes_the_size_is_refused(tmp_path) -> None:
    class Shrinking:
        name = "shrinking"

        def edit(self, images, prompts, edits, seeds):
            return [image.resize((8, 8)) for image in images]

    folder = SetFolder(tmp_path)
    steps.generate(folder, IMAGES, DrawnGenerator(), batch_size=6)
    edits = planned_edits({IMAGES[0].path: IMAGES[0].path}, IMAGES, {"weather": 1})
    with pytest.raises(ValueError, match="The editor 'shrinking' made"):
        steps.edit(folder, edits, Shrinking(), batch_size=2)
    with folder.manifest("edited") as store:
        assert not len(store)


def test_a_damaged_image_is_named(tmp_path) -> None:
    folder = SetFolder(tmp_path)
    folder.save_image("generated/0.jpg", Image.new("RGB", (4, 4)))
    folder.path("generated/0.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UserError, match="remove it, and the same command makes it again"):
        folder.open_image("generated/0.jpg")


def test_a_folder_keeps_what_it_was_begun_with(tmp_path) -> None:
    folder = SetFolder(tmp_path / "set")
    folder.claim({"seed": 0, "colours": False})
    folder.claim({"seed": 0, "colours": False})
    with pytest.raises(UserError, match=r"begun with other settings \(colours\)"):
        folder.claim({"seed": 0, "colours": True})


def test_near_duplicates_are_those_of_a_plain_comparison(tmp_path) -> None:
    folder, rng = SetFolder(tmp_path), np.random.default_rng(0)
    names, kept = [], np.zeros((102, 48, 3), np.uint8)
    for number in range(40):
        if number % 4 == 3:  # a copy of the one before, a little lighter
            colours = np.clip(kept.astype(int) + 5, 0, 255).astype(np.uint8)
        else:
            colours = np.asarray(
                Image.fromarray(rng.integers(0, 255, (17, 8, 3), np.uint8)).resize((48, 102))
            )
        kept = colours
        names.append(f"generated/{number:02d}.jpg")
        folder.save_image(names[-1], Image.fromarray(colours))
    found = report.near_duplicates(folder, names)
    small = [folder.open_image(name).resize((8, 17), Image.Resampling.BOX) for name in names]
    grey = [np.asarray(image.convert("L"), dtype=int) for image in small]
    colour = [np.asarray(image, dtype=int) for image in small]
    expected = [
        (names[a], names[b])
        for a in range(40)
        for b in range(a + 1, 40)
        if ((grey[a][1:] > grey[a][:-1]) != (grey[b][1:] > grey[b][:-1])).sum() <= report.ALIKE_BITS
        and np.abs(colour[a] - colour[b]).mean() <= report.ALIKE_LEVELS
    ]
    assert found == expected
    assert set(found) >= {(names[n - 1], names[n]) for n in range(3, 40, 4)}


def test_captions_of_one_kind_are_asked_alike_and_of_the_other_by_template() -> None:
    images = [f"generated/{n}.jpg" for n in range(300)]
    assert len({question(image, "constant", 0) for image in images}) == 1
    assert 100 < len({question(image, "variable", 0) for image in images}) <= 150
    assert [question(i, "variable", 0) for i in images] != [question(i, "variable", 1) for i in images]
