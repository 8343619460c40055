"""Cameras and what they do to a picture: framing, light, colour cast, blur, noise and JPEG."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Camera:
    """A fixed place: its colour cast, how steeply it looks down (slope) and the scenes behind people there."""

    name: str
    cast: tuple[float, float, float]
    pitch: float
    scenes: tuple[str, ...]


CAMERAS: tuple[Camera, ...] = (
    Camera("cam_a", (1.03, 1.0, 0.96), 0.05, ("wall", "street")),
    Camera("cam_b", (0.97, 1.0, 1.03), 0.12, ("street", "park", "wall")),
)


@dataclass(frozen=True)
class Shot:
    """How one image is taken: crop size in pixels, where the body stands in it, and the camera's defects.

    `height` is the body's height as a share of the crop's, (`left`, `top`) the position of the middle of the head's
    top as shares of the crop's width and height; `gain`, `gamma` and `slope` describe the light, `blur` is in pixels,
    `noise` a standard deviation in grey levels.
    """

    camera: Camera
    view: str
    size: tuple[int, int]
    height: float
    left: float
    top: float
    cast: tuple[float, float, float]
    gain: float
    gamma: float
    slope: float
    blur: float
    noise: float
    quality: int
    occluded: bool
    crowded: bool


def sample_shot(camera: Camera, view: str, rng: random.Random) -> Shot:
    """Draw the circumstances of one image; most are moderate, one in eight is dark, blurred or cut."""
    rows = rng.randint(128, 200)
    columns = round(rows * rng.uniform(0.42, 0.52))
    body = rng.uniform(0.88, 0.98)
    top = rng.uniform(0.012, max(0.014, 0.99 - body))
    if rng.random() < 0.06:
        body, top = rng.uniform(1.02, 1.1), 0.01  # cut at the feet
    return Shot(
        camera=camera,
        view=view,
        size=(columns, rows),
        height=body,
        left=0.5 + rng.gauss(0, 0.045),
        top=top,
        cast=tuple(channel * rng.uniform(0.97, 1.03) for channel in camera.cast),
        gain=rng.uniform(0.86, 1.1) if rng.random() > 0.08 else rng.uniform(0.68, 0.82),
        gamma=rng.uniform(0.92, 1.1),
        slope=rng.uniform(-0.1, 0.1),
        blur=rng.uniform(0.0, 0.7) if rng.random() > 0.1 else rng.uniform(0.8, 1.3),
        noise=rng.uniform(1.0, 5.5),
        quality=rng.randint(70, 93),
        occluded=rng.random() < 0.09,
        crowded=rng.random() < 0.08,
    )


def expose(picture: np.ndarray, shot: Shot, seed: int) -> Image.Image:
    """Apply light, blur and noise.

    Args:
        picture: (H, W, 3) float32 in 0..255.
        shot: the circumstances.
        seed: of the noise.
    """
    height, width, _ = picture.shape
    light = 1 + shot.slope * np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    light = light * np.asarray(shot.cast, dtype=np.float32) * shot.gain
    tones = np.power(np.arange(256, dtype=np.float32) / 255, shot.gamma) * 255
    image = Image.fromarray(tones[np.clip(picture * light, 0, 255).astype(np.uint8)].astype(np.uint8))
    if shot.blur > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(shot.blur))
    noise = np.random.default_rng(seed).standard_normal((height, width, 3), dtype=np.float32) * shot.noise
    return Image.fromarray(np.clip(np.asarray(image) + noise + 0.5, 0, 255).astype(np.uint8))


def encode_jpeg(image: Image.Image, shot: Shot) -> bytes:
    """The picture as the camera stores it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=shot.quality)
    return buffer.getvalue()
