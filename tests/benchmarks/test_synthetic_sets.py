"""Sets with wrong captions and without edits: what changes, and that nothing else does."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.synthetic_sets import swapped, without_edits, write_variation
from data import load_dataset
from data.errors import UserError
from tests.synthetic_set import write_synthetic_set


def records_of(people: int, images: int = 3, captions: int = 2) -> list[dict]:
    return [
        {
            "split": "train",
            "file_path": f"{person}/{image}.jpg",
            "id": 10 * person,
            "captions": [f"person {person}, view {image}, sentence {number}" for number in range(captions)],
            "edit": "" if image == 0 else "weather: snowy",
        }
        for person in range(people)
        for image in range(images)
    ]


def person_in(caption: str) -> int:
    return 10 * int(caption.split()[1].rstrip(","))


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_share_is_exact_and_every_chosen_caption_is_on_another_person(share, seed):
    records = records_of(20)
    changed = swapped(records, share, seed)
    wrong = 0
    for before, after in zip(records, changed, strict=True):
        assert {**after, "captions": None} == {**before, "captions": None}
        for own, found in zip(before["captions"], after["captions"], strict=True):
            assert found == own or person_in(found) != before["id"]
            wrong += found != own
    assert wrong == round(share * 120)
    sentences = [Counter(text for record in one for text in record["captions"]) for one in (records, changed)]
    assert sentences[0] == sentences[1]
    assert swapped(records, share, seed) == changed
    assert swapped(records, share, seed + 100) != changed


def test_nothing_is_swapped_where_nothing_is_asked_for():
    records = records_of(5)
    assert swapped(records, 0.0, 0) == records


def test_all_persons_are_reached():
    """Not always the same neighbour: the captions of one person go to several."""
    changed = swapped(records_of(30), 1.0, 0)
    pairs = {(record["id"], person_in(text)) for record in changed for text in record["captions"]}
    assert len(pairs) >= 30
    assert len({swapped(records_of(30), 1.0, seed)[0]["captions"][0] for seed in range(8)}) > 4


@pytest.mark.parametrize("people", [1, 2])
def test_too_few_people_are_told(people):
    with pytest.raises(ValueError, match="other people"):
        swapped([*records_of(people), *records_of(1, images=30)], 1.0, 0)


def test_a_variation_shares_the_images_and_is_written_once(tmp_path):
    root = write_synthetic_set(tmp_path / "people")
    before = load_dataset("synthetic", root)
    target = tmp_path / "sets" / "half"
    write_variation(root, target, lambda records: swapped(records, 0.5, 1))
    after = load_dataset("synthetic", target)
    assert [record.image for record in after.train] == [record.image for record in before.train]
    assert sum(a.captions != b.captions for a, b in zip(after.train, before.train, strict=True)) == 6
    assert after.path(after.train[0]).read_bytes() == before.path(before.train[0]).read_bytes()
    written = (target / "synthetic.json").stat().st_mtime_ns
    write_variation(root, target, lambda records: swapped(records, 0.5, 1))
    assert (target / "synthetic.json").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"gen_images\.py"):
        write_variation(tmp_path / "absent", target, list)
    other = write_synthetic_set(tmp_path / "others")
    with pytest.raises(UserError, match="made of another set"):
        write_variation(other, target, list)


def test_the_place_of_edits_is_taken_by_what_they_were_made_from():
    kept = without_edits(records_of(4, captions=1))
    assert [record["file_path"] for record in kept] == [f"{person}/0.jpg" for person in range(4)]
    assert kept[1]["captions"] == ["person 1, view 0, sentence 0"] * 3
    lost = without_edits(records_of(4, captions=1)[1:])
    assert [record["id"] for record in lost] == [10, 20, 30], "the edits of an image that is not there"
