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


Range = tuple[float, float]


@dataclass(frozen=True)
class Optics:
    """How the images of a world are taken: ranges that a shot's numbers are drawn from, and shares of all shots.

    Attributes:
        rows: height of the crop in pixels; `aspect` its width as a share of that.
        body: the body's height as a share of the crop's; `cut` of shots have `cut_body` instead, which leaves no room
            for the feet.
        offset: standard deviation of the body's place across the crop.
        cast: how far each colour's gain may be from the camera's own.
        gain, gamma, slope: light; `dark` of shots have `dark_gain` instead.
        blur: in pixels; `blurred` of shots have `strong_blur` instead.
        noise: a standard deviation in grey levels; `quality` is JPEG's.
        occluded, crowded: shares of shots with something in front of, or somebody behind the person.
    """

    rows: tuple[int, int] = (128, 200)
    aspect: Range = (0.42, 0.52)
    body: Range = (0.88, 0.98)
    cut: float = 0.06
    cut_body: Range = (1.02, 1.1)
    offset: float = 0.045
    cast: float = 0.03
    gain: Range = (0.86, 1.1)
    dark: float = 0.08
    dark_gain: Range = (0.68, 0.82)
    gamma: Range = (0.92, 1.1)
    slope: float = 0.1
    blur: Range = (0.0, 0.7)
    blurred: float = 0.1
    strong_blur: Range = (0.8, 1.3)
    noise: Range = (1.0, 5.5)
    quality: tuple[int, int] = (70, 93)
    occluded: float = 0.09
    crowded: float = 0.08


STREET_OPTICS = Optics()


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


def sample_shot(camera: Camera, view: str, rng: random.Random, optics: Optics = STREET_OPTICS) -> Shot:
    """Draw the circumstances of one image; with today's optics one in eight is dark, blurred or cut."""
    rows = rng.randint(*optics.rows)
    columns = round(rows * rng.uniform(*optics.aspect))
    body = rng.uniform(*optics.body)
    top = rng.uniform(0.012, max(0.014, 0.99 - body))
    if rng.random() < optics.cut:
        body, top = rng.uniform(*optics.cut_body), 0.01
    return Shot(
        camera=camera,
        view=view,
        size=(columns, rows),
        height=body,
        left=0.5 + rng.gauss(0, optics.offset),
        top=top,
        cast=tuple(channel * rng.uniform(1 - optics.cast, 1 + optics.cast) for channel in camera.cast),
        gain=rng.uniform(*optics.gain) if rng.random() > optics.dark else rng.uniform(*optics.dark_gain),
        gamma=rng.uniform(*optics.gamma),
        slope=rng.uniform(-optics.slope, optics.slope),
        blur=rng.uniform(*optics.blur) if rng.random() > optics.blurred else rng.uniform(*optics.strong_blur),
        noise=rng.uniform(*optics.noise),
        quality=rng.randint(*optics.quality),
        occluded=rng.random() < optics.occluded,
        crowded=rng.random() < optics.crowded,
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
