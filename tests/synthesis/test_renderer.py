"""Pictures show what the record says: colours where they belong, things where they can be seen."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from synthesis.drawn.attributes import Garment, Thing, sample_people
from synthesis.drawn.camera import CAMERAS, encode_jpeg, expose, sample_shot
from synthesis.drawn.colours import ANCHORS, Colour
from synthesis.drawn.renderer import ProceduralRenderer


def _shot(view: str, **changes):
    """Even light, centred, nothing in the way."""
    shot = sample_shot(CAMERAS[0], view, random.Random(0))
    plain = {
        "size": (72, 160), "height": 0.94, "left": 0.5, "top": 0.03, "cast": (1.0, 1.0, 1.0), "gain": 1.0, "gamma": 1.0,
        "slope": 0.0, "blur": 0.0, "noise": 0.0, "occluded": False, "crowded": False,
    }  # fmt: skip
    return replace(shot, **(plain | changes))


def _dressed(term: str, shade: str, **changes):
    colour = Colour(term, shade, ANCHORS[term, shade])
    person = sample_people(1, seed=1)[0]
    upper = Garment("sweater", colour, sleeves="long")
    lower = Garment("trousers", Colour("grey", "", ANCHORS["grey", ""]))
    kept = {"upper": upper, "lower": lower, "bag": None, "scarf": None, "hair_style": "short", "hat": None}
    return replace(person, **(kept | changes))


@pytest.mark.parametrize(("term", "shade"), list(ANCHORS))
@pytest.mark.parametrize("view", ["front", "back"])
def test_the_torso_has_the_named_colour(term, shade, view):
    picture = ProceduralRenderer().render(_dressed(term, shade), _shot(view), "t")
    pixels = np.asarray(picture.image, dtype=float)
    mean = pixels[52:78, 30:42].mean(axis=(0, 1))
    nearest = min(ANCHORS, key=lambda other: np.abs(np.array(ANCHORS[other]) - mean).sum())
    assert nearest[0] == term
    assert np.abs(mean - ANCHORS[term, shade]).max() < 30


def test_equal_arguments_give_equal_pixels_and_the_seed_matters():
    person, shot = _dressed("red", ""), _shot("front", noise=3.0)
    first, again, other = (ProceduralRenderer().render(person, shot, seed).image for seed in ("a", "a", "b"))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_backpack_fills_the_back_and_shows_its_straps_in_front():
    pack = Thing("backpack", Colour("red", "", ANCHORS["red", ""]))
    person = _dressed("grey", "", bag=pack)
    renderer = ProceduralRenderer()
    back = renderer.render(person, _shot("back"), "p").visible
    front = renderer.render(person, _shot("front"), "p").visible
    assert back["bag"] > 0.06
    assert 0.003 < front["bag"] < 0.4 * back["bag"]


@pytest.mark.parametrize("kind", ["shoulder bag", "handbag", "suitcase"])
def test_other_bags_are_seen_from_somewhere(kind):
    person = _dressed("grey", "", bag=Thing(kind, Colour("red", "", ANCHORS["red", ""])))
    shares = [
        ProceduralRenderer().render(person, _shot(view), "p").visible.get("bag", 0)
        for view in ("front", "back", "left")
    ]
    assert sum(share > 0.007 for share in shares) >= 2


def test_faces_and_open_jackets_are_seen_from_the_front_only():
    inner = Colour("white", "", ANCHORS["white", ""])
    jacket = Garment(
        "jacket", Colour("black", "", ANCHORS["black", ""]), sleeves="long", is_open=True, inner=inner
    )
    person = _dressed("black", "", upper=jacket)
    front = ProceduralRenderer().render(person, _shot("front"), "f").visible
    back = ProceduralRenderer().render(person, _shot("back"), "f").visible
    assert front["inner"] > 0.02
    assert back.get("inner", 0) == 0
    assert front["face"] > 2 * back.get("face", 0)


def test_stripes_show_both_colours():
    striped = Garment(
        "t-shirt",
        Colour("red", "", ANCHORS["red", ""]),
        "horizontal stripes",
        Colour("white", "", ANCHORS["white", ""]),
        sleeves="short",
    )
    image = ProceduralRenderer().render(_dressed("red", "", upper=striped), _shot("back"), "s").image
    rows = np.asarray(image, dtype=float)[50:84, 32:40].mean(axis=1)
    assert rows[:, 1].max() > 170
    assert rows[:, 1].min() < 80


def test_feet_below_the_crop_are_not_visible():
    person = _dressed("blue", "")
    whole = ProceduralRenderer().render(person, _shot("front"), "c").visible
    cut = ProceduralRenderer().render(person, _shot("front", height=1.3), "c").visible
    assert whole["shoes"] > 0.003
    assert "shoes" not in cut


def test_occluders_cover_and_are_counted():
    person = _dressed("blue", "")
    for seed in range(6):
        shares = ProceduralRenderer().render(person, _shot("front", occluded=True), str(seed)).visible
        assert shares["occluder"] > 0
        assert shares["upper"] > 0.03


def test_sampled_crops_have_the_promised_sizes():
    rng = random.Random(5)
    for _ in range(100):
        columns, rows = sample_shot(CAMERAS[1], "left", rng).size
        assert 128 <= rows <= 200
        assert 0.4 < columns / rows < 0.54


def test_exposure_is_neutral_when_everything_is_off_and_jpeg_opens():
    picture = np.full((130, 60, 3), 90, dtype=np.float32)
    shot = _shot("front", size=(60, 130))
    image = expose(picture, shot, seed=1)
    assert np.abs(np.asarray(image, dtype=int) - 90).max() <= 1
    assert Image.open(io.BytesIO(encode_jpeg(image, shot))).size == (60, 130)


def test_darker_gain_darkens():
    picture = np.full((130, 60, 3), 90, dtype=np.float32)
    assert np.asarray(expose(picture, _shot("front", gain=0.7), 1)).mean() < 70
