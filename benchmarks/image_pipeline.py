"""Training images per second: from the cache with augmentation, against decoding and resizing the JPEG on every access.

The first version decodes and resizes one image after the other and does nothing else; the second also augments each image
by itself, as torchvision's transforms do (flip, padded crop, to float, normalise, erase). Ours is the feed of training:
rows of the memory-mapped cache, augmented as a batch. Source images have sizes as the data sets' crops do. Compared first:
the cache must hold what decoding gives, and both normalise alike. One thread, because a second one helps either version.

    OMP_NUM_THREADS=1 python benchmarks/image_pipeline.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import in_turns, parser_of, profile_of, rows_of, write_csv
from data.images import MEAN, STD
from data.transforms import augment, normalise
from engine.feeds import ImageFeed

IMAGE_SIZE = (384, 128)
# Height x width: Market-1501's crops in CUHK-PEDES, typical crops of CUHK-PEDES, of ICFG-PEDES and RSTPReid (MSMT17's).
SOURCES = {"128x64": (128, 64), "300x120": (300, 120), "400x160": (400, 160)}
BATCH = 48


def write_jpegs(directory: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Smooth random pictures with a little noise, which compress about as photos do (quality 90)."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        paths.append(directory / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def decoded(path: Path) -> Image.Image:
    """The picture at the model's size."""
    with Image.open(path) as image:
        return image.convert("RGB").resize(IMAGE_SIZE[::-1], Image.Resampling.BILINEAR)


def standardised(image: Image.Image) -> Tensor:
    """(3, H, W) float32 with the encoder's mean and deviation."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def augmented(path: Path, generator: torch.Generator, pad: int = 10) -> Tensor:
    """One image, one transform after the other."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    image = decoded(path)
    if draw(0, 1) < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    height, width = IMAGE_SIZE
    larger = Image.new("RGB", (width + 2 * pad, height + 2 * pad))
    larger.paste(image, (pad, pad))
    left, top = int(draw(0, 2 * pad + 1)), int(draw(0, 2 * pad + 1))
    values = standardised(larger.crop((left, top, left + width, top + height)))
    if draw(0, 1) < 0.5:
        for _ in range(10):
            area, ratio = height * width * draw(0.02, 0.4), np.exp(draw(np.log(0.3), np.log(3.3)))
            h, w = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if h < height and w < width:
                top, left = int(draw(0, height - h + 1)), int(draw(0, width - w + 1))
                values[:, top : top + h, left : left + w] = 0
                break
    return values


def compare(options: argparse.Namespace, source: str) -> list[dict[str, object]]:
    """All versions on images of one source size."""
    with tempfile.TemporaryDirectory() as name:
        paths = write_jpegs(Path(name), SOURCES[source], options.images)
        feed = ImageFeed(paths, IMAGE_SIZE, Path(name) / "cache", workers=1)
        order = np.random.default_rng(1).permutation(len(paths))
        generator = torch.Generator().manual_seed(0)
        check(feed, paths[:BATCH])

        def batches() -> list[np.ndarray]:
            return [order[at : at + BATCH] for at in range(0, len(order), BATCH)]

        def decode() -> None:
            for rows in batches():
                np.stack([np.asarray(decoded(paths[row])) for row in rows])

        def decode_and_augment() -> None:
            for rows in batches():
                torch.stack([augmented(paths[row], generator) for row in rows])

        def ours() -> None:
            for rows in batches():
                augment(feed.pixels(rows), torch.from_numpy(rows), buffers=feed.buffers)

        actions = {"decode and resize": decode, "decode and augment": decode_and_augment, "ours": ours}
        if options.profile:
            print(f"\n{source}, ours\n\n{profile_of(ours)}")
            return []
        times = in_turns(actions, options.repetitions)
    common = {"source": source, "pixels": "x".join(map(str, IMAGE_SIZE)), "images": len(paths)}
    return rows_of(times, len(paths), "images", common)


def check(feed: ImageFeed, paths: list[Path]) -> None:
    """The cache holds what decoding gives, and both normalise alike; SystemExit where not."""
    pixels = feed.pixels(np.arange(len(paths)))
    images = [decoded(path) for path in paths]
    plain = np.stack([np.asarray(image) for image in images]).astype(int)
    if np.abs(pixels.numpy() - plain).max() > 1:  # Pillow's rounding depends on its version
        raise SystemExit("The cache holds other pixels than decoding gives.")
    difference = (normalise(pixels) - torch.stack([standardised(image) for image in images])).abs().max()
    if difference > 1e-5:
        raise SystemExit(f"Normalised pixels differ by {difference:.1e}.")


def main() -> None:
    """Compares on every source size and writes the CSV."""
    parser = parser_of(__doc__, repetitions=5)
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    options = parser.parse_args()
    rows = [row for source in options.sources for row in compare(options, source)]
    if rows:
        write_csv("image_pipeline", "cpu", rows, options.results)


if __name__ == "__main__":
    main()
