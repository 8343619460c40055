"""The light of a camera from many of its pictures: found, the same however the work is cut up, and never taken from strangers."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from captioning.backends import BackendError, Request, make_backend
from captioning.fixed import caption_images
from captioning.palette.colours import NEUTRAL
from captioning.palette.light import ENOUGH, FEWEST, light_of, lights
from captioning.pipeline import caption_sample
from captioning.prompts import base_prompt
from captioning.store import CaptionStore
from synthesis.drawn.attributes import sample_people
from synthesis.drawn.camera import CAMERAS, sample_shot
from synthesis.drawn.renderer import ProceduralRenderer

CAST = np.array([1.2, 1.0, 0.76])


def draw(folder: Path, cast, count: int) -> list[Path]:
    """Pictures of one camera, of as many people."""
    folder.mkdir()
    camera = replace(CAMERAS[1], cast=tuple(cast))
    paths = []
    for index, person in enumerate(sample_people(count, 5)):
        shot = sample_shot(camera, "front", random.Random(index))
        paths.append(folder / f"{index}.png")
        ProceduralRenderer().render(person, shot, str(index)).image.save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> dict[str, list[Path]]:
    root = tmp_path_factory.mktemp("street")
    plain, tinted = draw(root / "plain", (1.0, 1.0, 1.0), FEWEST), draw(root / "tinted", CAST, FEWEST)
    return {"plain": plain, "tinted": tinted, "few": draw(root / "few", CAST, FEWEST - 1)}


def test_a_cameras_cast_is_found_and_each_camera_has_its_own(street):
    found = lights([path for paths in street.values() for path in paths])
    plain, tinted = (np.array(found[street[name][0].parent]) for name in ("plain", "tinted"))
    ratio = plain / tinted * np.mean(1 / CAST)
    assert np.allclose(ratio / ratio.mean(), CAST / CAST.mean(), atol=0.06)
    assert street["few"][0].parent not in found


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(0, 255)))
def test_a_light_is_bounded_and_bright_on_the_average_as_before(colours):
    light = np.array(light_of(list(colours)))
    assert light.mean() == pytest.approx(1)
    assert light.max() / light.min() <= 1.5**2 + 1e-9


@given(st.floats(30, 200))
def test_grey_is_neutral_and_a_cast_is_taken_off(level):
    assert light_of([np.full(3, level)]) == pytest.approx(NEUTRAL)
    seen = level * CAST / CAST.mean()
    corrected = seen * light_of([seen])
    assert np.allclose(corrected, corrected.mean())


def test_no_colours_are_refused():
    with pytest.raises(ValueError, match="no colours"):
        light_of([])


def test_an_image_that_does_not_open_says_nothing(street, tmp_path):
    folder = street["tinted"][0].parent
    before = lights(street["tinted"])
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    assert lights([*street["tinted"], broken, folder / "missing.png"]) == before


def test_only_so_many_are_opened_and_only_those_that_are_named(tmp_path, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(Path(path)) or real(path))
    folder = tmp_path / "camera"
    folder.mkdir()
    for index in range(3 * ENOUGH):
        Image.new("RGB", (4, 8), (200, 100, 50)).save(folder / f"{index:03d}.png")
    named = sorted(folder.iterdir())[: 2 * ENOUGH]
    assert lights(named)[folder][2] > lights(named)[folder][0]
    assert len(opened) == 2 * ENOUGH
    assert set(opened) <= set(named)


def test_no_picture_is_opened_before_one_is_asked_about(street, tmp_path, monkeypatch):
    """All that a second run of the stage, with nothing left to ask, has to do."""
    root = street["tinted"][0].parent.parent
    images = [str(path.relative_to(root)) for path in street["tinted"]]
    with CaptionStore(tmp_path / "captions.jsonl") as store:
        caption_sample(images, root, make_backend("palette", cameras=True), store)
        monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was opened"))
        report = caption_sample(images, root, make_backend("palette", cameras=True), store)
    assert (report.asked, report.ready) == (0, len(images))


def ask(backend, image: Path) -> str:
    (reply,) = backend.answer([Request("x", image, base_prompt())])
    return reply.text


def test_the_backend_reads_colours_in_a_cameras_light_where_it_is_told_to(street):
    plain, knowing = make_backend("palette"), make_backend("palette", cameras=True)
    images = [*street["plain"], *street["tinted"]]
    for backend in (plain, knowing):
        backend.look_over(images)
    assert [ask(plain, image) for image in images] == [ask(make_backend("palette"), i) for i in images]
    same = [
        sum(ask(backend, one) == ask(backend, other) for one, other in zip(*pairs, strict=True))
        for backend in (plain, knowing)
        for pairs in [(street["plain"], street["tinted"])]
    ]
    assert same[1] > same[0], "the same people, seen by two cameras"
    with pytest.raises(BackendError, match=r"no option 'camera'.*cameras"):
        make_backend("palette", camera=True)


def test_captions_are_the_same_after_a_stop_and_in_several_processes(street, tmp_path):
    root = street["tinted"][0].parent.parent
    images = [str(path.relative_to(root)) for name in ("plain", "tinted") for path in street[name]]

    def captioned(name: str, *parts: dict) -> list[str]:
        with CaptionStore(tmp_path / f"{name}.jsonl") as store:
            for part in parts:
                caption_sample(images, root, make_backend("palette", cameras=True), store, **part)
            return [store.get(image)["base_caption"] for image in images]

    whole = captioned("whole", {})
    assert captioned("halves", {"rank": 1, "world_size": 2}, {"rank": 0, "world_size": 2}) == whole
    # What is stored is not asked again, and the rest is seen in the light of all.
    with CaptionStore(tmp_path / "stopped.jsonl") as store:

        def stop(step: str, answered: int, asked: int) -> None:
            if answered == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            caption_sample(images, root, make_backend("palette", cameras=True), store, progress=stop)
        store.flush()
    assert captioned("stopped", {}) == whole


def test_texts_in_the_fixed_style_are_read_in_that_light_too(street, tmp_path):
    root = street["tinted"][0].parent.parent
    images = [str(path.relative_to(root)) for path in street["tinted"]]
    texts = []
    for cameras in (False, True):
        with CaptionStore(tmp_path / f"{cameras}.jsonl") as store:
            caption_images(images, root, make_backend("palette", cameras=cameras), store)
            texts.append([store.get(image).get("fixed_caption") for image in images])
    assert texts[0] != texts[1]
