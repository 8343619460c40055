"""People with their key points by a YOLO pose model of ultralytics, as SynTBPR finds them (YOLOv8x-pose).

Ultralytics and its weights are AGPL-3.0: no requirement of this project, used where its user has installed it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.errors import UserError
from synthesis.generation.parts import Person


class UltralyticsFilter:
    """Finds people and COCO's 17 points of each; a point's confidence is the model's own.

    Args:
        model: a file of weights of a pose model; ultralytics fetches one that is not there.
        score: a detection below it is no person.
        overlap: of two boxes that overlap more (intersection over union) the surer one is kept; SynTBPR's value.
        batch: images at a time.
        device: where to compute.
        half: in half precision, on a GPU.

    Raises:
        UserError: ultralytics is not installed, or the model finds no key points.
    """

    def __init__(
        self,
        model: str = "yolov8x-pose.pt",
        score: float = 0.25,
        overlap: float = 0.1,
        batch: int = 16,
        device: torch.device | str = "cpu",
        half: bool = False,
    ) -> None:
        try:
            # No import statement: it is not to become a requirement.
            package = importlib.import_module("ultralytics")
        except ImportError:
            raise UserError(
                "The filter 'ultralytics' needs a package of that name, which is not installed. It is AGPL-3.0, so installing it "
                "is left to you (pip install ultralytics); the filter 'torchvision' needs nothing more."
            ) from None
        self._network = package.YOLO(model)
        if self._network.task != "pose":
            raise UserError(
                f"{model} finds no key points (it is made for '{self._network.task}'): name a pose model."
            )
        device = torch.device(device)
        self._options: dict[str, Any] = {
            "conf": score,
            "iou": overlap,
            "device": str(device),
            "half": half and device.type == "cuda",
            "verbose": False,
        }
        self._batch = batch
        self.name = f"{Path(model).name}, score {score:g}, overlap {overlap:g}"

    def people(self, images: Sequence[Image.Image]) -> list[list[Person]]:
        """The people in each image, the surest first; see `PersonFilter`."""
        found: list[list[Person]] = []
        for start in range(0, len(images), self._batch):
            part = [image.convert("RGB") for image in images[start : start + self._batch]]
            found += [_people(result) for result in self._network(part, **self._options)]
        return found


def _people(result: Any) -> list[Person]:
    if result.boxes is None or not len(result.boxes):
        return []
    boxes, scores = result.boxes.xyxy.cpu().tolist(), result.boxes.conf.cpu().tolist()
    points = result.keypoints.data.cpu().numpy().astype(np.float64)
    people = [
        Person(tuple(box), score, points[n]) for n, (box, score) in enumerate(zip(boxes, scores, strict=True))
    ]
    return sorted(people, key=lambda person: -person.score)
