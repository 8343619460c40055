"""The filter that its user brings the package for: told where it is missing, read right where it is there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from data.errors import UserError
from synthesis.generation.registry import FILTERS, make


def test_a_missing_package_is_told_with_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(UserError, match=r"not installed\. It is AGPL-3\.0.*'torchvision' needs nothing more"):
        make(FILTERS, "ultralytics", {}, device="cpu", half=False)


@pytest.fixture
def asked(monkeypatch):
    """A stand-in for the package, whose licence keeps the real one out of the tests; what it was asked."""
    calls = []
    box = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    points = torch.arange(2 * 17 * 3).reshape(2, 17, 3).float()
    someone = SimpleNamespace(
        boxes=type("Boxes", (), {"xyxy": box, "conf": torch.tensor([0.5, 0.75]), "__len__": lambda _: 2})(),
        keypoints=SimpleNamespace(data=points),
    )
    nobody = SimpleNamespace(boxes=type("Boxes", (), {"__len__": lambda _: 0})(), keypoints=None)

    class YOLO:
        def __init__(self, model: str) -> None:
            self.task = "detect" if "detect" in model else "pose"

        def __call__(self, images, **options):
            calls.append((len(images), options))
            return [someone if image.getpixel((0, 0)) == (255, 0, 0) else nobody for image in images]

    monkeypatch.setitem(sys.modules, "ultralytics", SimpleNamespace(YOLO=YOLO))
    return calls


def test_people_the_surest_first_in_batches(asked):
    finder = make(FILTERS, "ultralytics", {"batch": 2}, device=torch.device("cpu"), half=True)
    images = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "red")]
    found = finder.people(images)
    assert [[person.score for person in people] for people in found] == [[0.75, 0.5], [], [0.75, 0.5]]
    assert found[0][0].box == (5.0, 6.0, 7.0, 8.0)
    assert found[0][0].keypoints[0].tolist() == [51.0, 52.0, 53.0], "its own points, not the other's"
    assert [count for count, _ in asked] == [2, 1]
    assert asked[0][1] == {"conf": 0.25, "iou": 0.1, "device": "cpu", "half": False, "verbose": False}


def test_a_model_without_key_points_is_refused(asked):
    with pytest.raises(UserError, match="made for 'detect'"):
        make(FILTERS, "ultralytics", {"model": "detect.pt"}, device="cpu", half=False)
