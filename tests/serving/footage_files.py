"""Small videos and folders of frames with drawn people in them, and torchvision's detector without any training."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from serving.crop_table import TABLE, Origin
from serving.footage import opencv
from synthesis.drawn.attributes import sample_people
from synthesis.drawn.camera import CAMERAS, sample_shot
from synthesis.drawn.renderer import ProceduralRenderer

SIZE = (360, 480)  # height, width of a frame
RATE = 25.0
PICTURE = (150, 300)  # width, height of a drawn person with what stands behind
FIGURE = (25, 36, 100, 225)  # about where the person stands in it


@cache
def drawn(number: int, view: str = "front") -> np.ndarray:
    """One of the people that OpenCV's detector finds, as a picture (300, 150, 3)."""
    person = sample_people(12, 1)[number]
    plain = {"gain": 1.0, "gamma": 1.0, "blur": 0.0, "noise": 1.0, "occluded": False, "crowded": False}
    shot = sample_shot(CAMERAS[0], view, random.Random(0))
    shot = replace(shot, size=PICTURE, height=0.75, left=0.5, top=0.12, **plain)
    return np.asarray(ProceduralRenderer().render(person, shot, f"{number}/{view}").image)


@dataclass(frozen=True)
class Stands:
    """A person in a frame: who, seen from where, and the left edge of the picture."""

    number: int
    left: int
    view: str = "front"

    @property
    def box(self) -> tuple[int, int, int, int]:
        return (self.left + FIGURE[0], 30 + FIGURE[1], FIGURE[2], FIGURE[3])


def frame(*people: Stands) -> np.ndarray:
    """RGB pixels (360, 480, 3) with these people on grey."""
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    for one in people:
        pixels[30 : 30 + PICTURE[1], one.left : one.left + PICTURE[0]] = drawn(one.number, one.view)
    return pixels


def write_video(path: Path, frames: Sequence[np.ndarray], codec: str = "MJPG", rate: float = RATE) -> Path:
    """A video of RGB frames, written by OpenCV."""
    cv2 = opencv("A test's video is written by OpenCV")
    high, wide = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (wide, high))
    assert writer.isOpened()
    for pixels in frames:
        writer.write(np.ascontiguousarray(pixels[:, :, ::-1]))
    writer.release()
    return path


def write_frames(folder: Path, frames: Sequence[np.ndarray], first: int = 0) -> Path:
    """The same as images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(frames, first):
        Image.fromarray(pixels).save(folder / f"frame{number}.png")
    return folder


def walk(steps: int = 12) -> list[np.ndarray]:
    """Somebody stands, then turns round, then another one comes."""
    third = steps // 3
    waiting = [Stands(4, 20 + 4 * step) for step in range(third)]
    turned = [Stands(4, 20 + 4 * (third + step), "back") for step in range(third)]
    late = [(turned[-1], Stands(10, 300 - 6 * step)) for step in range(steps - 2 * third)]
    return [*map(frame, waiting), *map(frame, turned), *(frame(*both) for both in late)]


def write_detector(path: Path, name: str = "fasterrcnn_mobilenet_v3_large_320_fpn") -> Path:
    """Torchvision's detector with random weights that take most of what they look at for a person."""
    from torchvision.models import detection

    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 5.0
    torch.save(model.state_dict(), path)
    return path


def write_table(crops: Path) -> dict[str, Origin]:
    """A table over all but one of the crops: even ones are of a door, odd ones of a gate, ten seconds apart."""
    images = sorted(path.relative_to(crops).as_posix() for path in crops.rglob("*.jpg"))
    origins, lines = {}, []
    for number, image in enumerate(images[:-1]):
        source = ("door", "gate")[number % 2]
        origins[image] = Origin(source, 10.0 * number, 250 * number, (number, 2, 30, 80))
        person = {
            "file": image,
            "box": [number, 2, 30, 80],
            "score": 1.0,
            "track": number,
            "fingerprint": "0" * 16,
        }
        lines.append({"source": source, "frame": 250 * number, "seconds": 10.0 * number, "persons": [person]})
    (crops / TABLE).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return origins
