"""Small galleries of coloured pictures with a model that tells them apart without any training, in any store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from data.folder import find_images
from serving import indexing
from serving.indexing import IndexWriter, Report
from serving.opening import decoder
from serving.stores import named_store

SIZE = (16, 8)
WIDTH = 12


class Colours(nn.Module):
    """Features are a fixed projection of the colours of eight fields; nothing is matched."""

    has_matching = False

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.projection = nn.Parameter(torch.randn(24, width, generator=generator), requires_grad=False)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = avg_pool2d(images, 4).flatten(1) @ self.projection
        return features[:, None], features


def draw(folder: Path, name: str, seed: int) -> None:
    """A picture of eight fields in random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 2, 3), np.uint8)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path)


def draw_all(folder: Path, count: int) -> Path:
    """Pictures 000.png, 001.png and so on."""
    for number in range(count):
        draw(folder, f"{number:03d}.png", number)
    return folder


def features_of(folder: Path, images: list[str]) -> np.ndarray:
    """The pictures' features (N, WIDTH), computed at once."""
    pixels = torch.stack([decoder(SIZE)(folder / image) for image in images])
    return normalize(Colours().encode_images(pixels)[1], dim=1).numpy()


def update(
    index: Path,
    folder: Path,
    kept_in: Mapping[str, str] | None = None,
    checkpoint: str = "digest",
    width: int = WIDTH,
) -> tuple[Report, list[str]]:
    """What `search.py index` does: the report, and which pictures were encoded."""
    encoded: list[str] = []

    def watched(path: Path) -> Tensor:
        encoded.append(path.relative_to(folder).as_posix())
        return decoder(SIZE)(path)

    model = Colours(width)
    with IndexWriter(index) as writer:
        writer.claim(model, SIZE, checkpoint, folder, kept_in)
        plan = writer.plan(find_images(folder, "no"))
        writer.encode(plan, model, watched, batch_size=8, workers=1)
        return writer.publish(plan), sorted(encoded)


if __name__ == "__main__":  # tests/serving/test_milvus_kills.py ends this process at a place of its choice
    indexing.SAVE_SECONDS = 1e9  # how fast this machine is decides nothing
    update(Path(sys.argv[1]), Path(sys.argv[2]), named_store(sys.argv[3]))
