"""Finding persons: OpenCV's detector on drawn people, torchvision's with random weights, and what is no detector."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data.errors import UserError
from engine.detector_weights import shapes_of
from serving import detecting
from serving.detecting import MODELS, make_detector
from serving.tracks import overlap
from tests.serving.footage_files import Stands, frame, write_detector

CPU = torch.device("cpu")


def detector(text: str, score: float | None = None, side: int | None = None):
    return make_detector(text, device=CPU, least_score=score, side=side)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("detector") / "mobilenet_320.pth")


def test_opencv_finds_every_drawn_person_where_they_stand():
    pytest.importorskip("cv2", reason="pip install -r requirements-search.txt")
    people = (Stands(4, 20), Stands(10, 300))
    found = detector("opencv").find(frame(*people))
    assert len(found) == 2
    for person in people:
        assert max(overlap(person.box, each.box) for each in found) > 0.6
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert detector("opencv").find(frame()) == []


def test_opencv_gives_boxes_of_a_large_frame_in_its_own_pixels():
    pytest.importorskip("cv2", reason="pip install -r requirements-search.txt")
    small = frame(Stands(4, 20))
    large = np.repeat(np.repeat(small, 4, 0), 4, 1)  # 1440 x 1920: more than is looked at
    (found,) = detector("opencv").find(large)
    assert overlap(tuple(value * 4 for value in Stands(4, 20).box), found.box) > 0.6


@pytest.mark.parametrize("size", [(1, 1), (127, 400), (400, 63), (1, 5000)])
def test_a_frame_smaller_than_the_window_holds_nobody(size):
    pytest.importorskip("cv2", reason="pip install -r requirements-search.txt")
    assert detector("opencv").find(np.zeros((*size, 3), np.uint8)) == []


def test_torchvision_finds_boxes_inside_the_frame_and_each_person_once(weights):
    pixels = frame(Stands(4, 20), Stands(10, 300))
    found = detector(f"torchvision:{weights}", 0.05, 96).find(pixels)
    assert found
    for each in found:
        left, top, wide, high = each.box
        assert 0 <= left < left + wide <= 480
        assert 0 <= top < top + high <= 360
        assert 0.05 <= each.score <= 1
        assert all(overlap(each.box, other.box) <= 0.5 for other in found if other is not each)
    assert detector(f"torchvision:{weights}", 0.05, 96).find(pixels) == found
    assert detector(f"torchvision:{weights}", 1.1, 96).find(pixels) == []


def test_torchvision_answers_as_its_own_model_does(weights):
    """The surest person is the surest box of class 1 of the model as torchvision builds it."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    pixels = frame(Stands(4, 20))
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, min_size=96, max_size=96, box_score_thresh=0.05
    )
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        answer = model.eval()([torch.from_numpy(pixels).permute(2, 0, 1) / 255])[0]
    best = answer["boxes"][answer["labels"] == 1][0].round().int().tolist()
    left, top, wide, high = detector(f"torchvision:{weights}", 0.05, 96).find(pixels)[0].box
    assert [left, top, left + wide, top + high] == best


def test_safetensors_and_other_sizes_are_known_by_their_tensors(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    save_file(state, tmp_path / "model.safetensors")
    torch.save({"model": state, "epoch": 3}, tmp_path / "training.pth")
    for file in (tmp_path / "model.safetensors", tmp_path / "training.pth"):
        assert detector(f"torchvision:{file}", 0.05, 96).find(frame(Stands(4, 20)))
    from torchvision.models import detection

    with torch.device("meta"):
        for name in MODELS[:3]:
            shapes = shapes_of(getattr(detection, name)(weights=None, weights_backbone=None))
            assert detecting._model_of(shapes, "weights.pth") == name
            assert detecting._model_of(shapes, "with_320.pth") == (MODELS[3] if "mobilenet" in name else name)


def test_what_is_no_detector_is_told(tmp_path, weights):
    def told(text: str) -> str:
        with pytest.raises(UserError) as error:
            detector(text)
        return str(error.value)

    assert "'yolo' is no detector: use opencv, torchvision" in told("yolo")
    assert "'opencv:x' is no detector" in told("opencv:x")
    assert f"There is no {tmp_path / 'no.pth'}: name a file of weights" in told(
        f"torchvision:{tmp_path / 'no.pth'}"
    )
    (tmp_path / "text.pth").write_text("no weights")
    assert "no PyTorch checkpoint" in told(f"torchvision:{tmp_path / 'text.pth'}")
    (tmp_path / "text.safetensors").write_bytes(b"\xff" * 100)
    assert "no safetensors file" in told(f"torchvision:{tmp_path / 'text.safetensors'}")
    (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:10_000])
    assert "no PyTorch checkpoint" in told(f"torchvision:{tmp_path / 'cut.pth'}")
    contents = {
        "no detector that is known here": {"a": torch.zeros(2)},
        "a list, not the named weights": [1],
        "no tensors": {"model": 3},
    }
    for number, (words, content) in enumerate(contents.items()):
        torch.save(content, tmp_path / f"{number}.pth")
        assert f"holds {words}" in told(f"torchvision:{tmp_path / f'{number}.pth'}")
    (tmp_path / "empty").mkdir()
    assert "holds 0 files of weights" in told(f"torchvision:{tmp_path / 'empty'}")
    assert "is no name on a hub" in told("torchvision:hf:nothing")


def test_an_opencv_without_the_detector_is_named(monkeypatch):
    monkeypatch.setattr(detecting, "opencv", lambda _: SimpleNamespace(__version__="5.0.0"))
    with pytest.raises(UserError, match=r"OpenCV 5\.0\.0 has no people detector any more: pip install"):
        detector("opencv")


def test_without_opencv_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"not installed: pip install -r requirements-search\.txt"):
        detector("opencv")


def test_released_weights_that_can_not_be_fetched_name_the_way_by_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"can't be had .*: fetch https://\S+\.pth by hand into"):
        detector("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn")


def refuse(*_: object, **__: object) -> None:
    raise OSError("no network")
