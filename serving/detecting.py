"""Finding persons in a frame: OpenCV's built-in detector, which needs no file, or one of torchvision's with its weights.

opencv                               histograms of oriented gradients and an SVM (Dalal & Triggs, CVPR 2005), inside OpenCV 4
torchvision                          Faster R-CNN with torchvision's own weights, fetched by torchvision
torchvision:NAME                     another of `MODELS`, fetched likewise
torchvision:FILE                     the weights of one of them in a file; which one, its tensors say
torchvision:hf:OWNER/NAME[/FILE]     the same from a hub, see `engine.hub`
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.errors import UserError
from serving.footage import opencv
from serving.tracks import Box, overlap

OPENCV, TORCHVISION = "opencv", "torchvision"
MODELS = (
    "fasterrcnn_resnet50_fpn_v2",  # the first one is what `torchvision` alone means
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
_PERSON = 1  # COCO's number of the class
_SAME = 0.5  # boxes that overlap more are one person
_HOG_SIDE = 1280  # px; a larger frame is made smaller first, its time grows with the pixels
# A window of 64 x 128 px holds a person of 96 px with 16 px around: an eighth of the height on each side. Arms and steps
# reach into the margins at the sides, so an eighth is cut off there, too.
_HOG_MARGIN = 1 / 8
_HOG_WINDOWS = 3  # a person is found by several windows beside each other, a chance likeness by one or two; OpenCV's own habit


@dataclass(frozen=True)
class Detection:
    """A person in a frame: the box in its pixels, and how sure the detector is (more is surer)."""

    box: Box
    score: float


class Detector(Protocol):
    """What finds persons. `name` tells what it is, so that another one does not go on with its work."""

    name: str

    def find(self, pixels: np.ndarray) -> list[Detection]:
        """The persons in RGB pixels (H, W, 3) uint8, surest first; boxes lie inside the frame."""
        ...


def make_detector(text: str, *, device: Any, least_score: float | None, side: int | None) -> Detector:
    """The detector of a name.

    Args:
        text: as at the top of this file.
        device: torch's, for torchvision's.
        least_score: below which a person is none; None takes 0.5, which is a distance from the SVM's plane for `opencv` and a
            probability for torchvision's.
        side: frames are brought to so many pixels on the longer side first; None takes the detector's own habit.

    Raises:
        UserError: no such detector, and weights that can't be had or are no detector's.
    """
    score = 0.5 if least_score is None else least_score
    kind, _, weights = text.partition(":")
    if kind == OPENCV and not weights:
        return HogDetector(score, side or _HOG_SIDE)
    if kind == TORCHVISION:
        return TorchvisionDetector(weights or MODELS[0], device, score, side)
    raise UserError(f"{text!r} is no detector: use opencv, torchvision or torchvision:FILE.")


class HogDetector:
    """OpenCV's people detector; it finds whole, upright persons of 96 px and more in a frame of at most `side` px."""

    def __init__(self, least_score: float, side: int) -> None:
        self._cv2 = opencv("The detector is OpenCV's")
        if not hasattr(self._cv2, "HOGDescriptor"):
            raise UserError(
                f"OpenCV {self._cv2.__version__} has no people detector any more: pip install 'opencv-python-headless<5', or "
                "use --detector torchvision."
            )
        self._hog = self._cv2.HOGDescriptor()
        self._hog.setSVMDetector(self._cv2.HOGDescriptor_getDefaultPeopleDetector())
        self._score, self._side = least_score, side
        self.name = f"{OPENCV}, {side} px, score {least_score:g}"

    def find(self, pixels: np.ndarray) -> list[Detection]:
        """See `Detector.find`."""
        high, wide = pixels.shape[:2]
        scale = min(1.0, self._side / max(high, wide))
        size = max(1, round(wide * scale)), max(1, round(high * scale))
        small = self._cv2.resize(pixels, size, interpolation=self._cv2.INTER_AREA) if scale < 1 else pixels
        if small.shape[0] < 128 or small.shape[1] < 64:  # smaller than the detector's window
            return []
        boxes, scores = self._hog.detectMultiScale(
            self._cv2.cvtColor(small, self._cv2.COLOR_RGB2BGR),
            winStride=(8, 8),
            padding=(8, 8),
            scale=1.05,
            groupThreshold=0,
        )
        windows = list(zip(np.reshape(boxes, (-1, 4)).tolist(), np.ravel(scores).tolist(), strict=True))
        found = []
        for (left, top, box_wide, box_high), score in _grouped(windows):
            x, y = left + box_wide * _HOG_MARGIN, top + box_high * _HOG_MARGIN
            right, bottom = left + box_wide * (1 - _HOG_MARGIN), top + box_high * (1 - _HOG_MARGIN)
            found.append((np.array([x, y, right, bottom]) / scale, score))
        return _distinct(found, self._score, (high, wide))


def _grouped(windows: list[tuple[list[int], float]]) -> list[tuple[list[float], float]]:
    """The mean of every group of overlapping windows (left, top, width, height), with the score of its surest.

    OpenCV's own grouping depends on the order of the windows, which its threads find in any; here the same frame gives the same.
    """
    left = sorted(windows, key=lambda window: (-window[1], window[0]))
    groups = []
    while left:
        near = [window for window in left if overlap(tuple(left[0][0]), tuple(window[0])) > _SAME]
        if len(near) >= _HOG_WINDOWS:
            groups.append((np.mean([box for box, _ in near], axis=0).tolist(), left[0][1]))
        left = [window for window in left if window not in near]
    return groups


class TorchvisionDetector:
    """Faster R-CNN as torchvision has it, trained on COCO (91 classes).

    `weights` is a name of `MODELS`, a file or a hub's name.
    """

    def __init__(self, weights: str, device: Any, least_score: float, side: int | None) -> None:
        sizes = {} if side is None else {"min_size": side, "max_size": side}  # both: the longer side decides
        model = _built(weights, {**sizes, "box_score_thresh": least_score})
        self._model, self._device, self._score = model.eval().to(device), device, least_score
        self.name = f"{TORCHVISION}:{Path(weights).name}, {side or 'its own'} px, score {least_score:g}"

    def find(self, pixels: np.ndarray) -> list[Detection]:
        """See `Detector.find`."""
        import torch

        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).to(self._device).float() / 255
        with torch.inference_mode():
            (answer,) = self._model([image])
        is_person = answer["labels"] == _PERSON
        boxes = answer["boxes"][is_person].cpu().numpy().astype(np.float64)
        found = list(zip(boxes, answer["scores"][is_person].tolist(), strict=True))
        return _distinct(found, self._score, pixels.shape[:2])


def _distinct(
    found: list[tuple[np.ndarray, float]], least_score: float, size: tuple[int, int]
) -> list[Detection]:
    """Detections from corners (left, top, right, bottom): cut at the frame's edge, surest first, each person once."""
    high, wide = size
    kept: list[Detection] = []
    for corners, score in sorted(found, key=lambda pair: -pair[1]):
        if score < least_score or not np.isfinite(corners).all():
            continue
        left, right = np.clip(np.round(corners[[0, 2]]), 0, wide).astype(int).tolist()
        top, bottom = np.clip(np.round(corners[[1, 3]]), 0, high).astype(int).tolist()
        box = (left, top, right - left, bottom - top)
        if box[2] > 0 and box[3] > 0 and all(overlap(box, other.box) <= _SAME for other in kept):
            kept.append(Detection(box, round(score, 4)))
    return kept


def _built(weights: str, options: dict[str, Any]) -> Any:
    from torchvision.models import detection

    from engine.detector_weights import detector_weights

    tensors = detector_weights(weights, MODELS, "behind torchvision:")
    name = _model_of({key: tuple(tensor.shape) for key, tensor in tensors.items()}, weights)
    if name is None:
        raise UserError(
            f"{weights} holds no detector that is known here ({', '.join(MODELS)}, each with COCO's 91 classes): name another file."
        )
    # The backbone's own weights are among them, so ImageNet's are not asked for.
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options)
    model.load_state_dict(tensors)
    return model


def _model_of(shapes: dict[str, tuple[int, ...]], file: str) -> str | None:
    """Which of `MODELS` has tensors of these names and shapes."""
    import torch
    from torchvision.models import detection

    from engine.detector_weights import shapes_of

    # Two of them have the same tensors and differ in the size of the image: the file's name tells.
    order = sorted(MODELS, key=lambda name: ("320" in name) != ("320" in Path(file).name))
    for name in order:
        with torch.device("meta"):
            model = getattr(detection, name)(weights=None, weights_backbone=None)
        if shapes == shapes_of(model):
            return name
    return None
