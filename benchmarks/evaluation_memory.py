"""Peak memory of evaluating a gallery of ICFG-PEDES' size (19,848 images, as many queries) at base size.

The evaluation is the real one: token file, mapped blocks, re-ranking, metrics. Only the model's outputs are simulated:
the image encoder returns random tokens, and `match` computes the real thing for the first batches (so that weights
and activations count) and random logits after. Each run is a process of its own; its peak is the kernel's ru_maxrss.

    python benchmarks/evaluation_memory.py            # about 6 GB in the temporary directory (TMPDIR), removed after
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import RESULTS, WORDS, peak_gb, tokenizer_of, write_csv
from models.backbones.blip.retrieval import BlipRetrieval
from models.texts import TextBatch
from retrieval.evaluate import evaluate

REAL_MATCHES = 3
LIMIT_GB = 8.0


class Simulated(BlipRetrieval):
    """A real model whose outputs are random, save those of the first `match` calls."""

    matches = 0

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self.image_size
        tokens = 1 + (height // self.size.patch) * (width // self.size.patch)
        shape = (len(images), tokens, self.size.vision_width)
        return torch.rand(shape), torch.randn(len(images), self.size.embed_dim)

    def encode_texts(self, texts: TextBatch) -> tuple[Tensor, Tensor]:
        return torch.empty(0), torch.randn(len(texts), self.size.embed_dim)

    def match(self, texts: TextBatch, image_tokens: Tensor, image_index: Tensor | None = None) -> Tensor:
        self.matches += 1
        if self.matches <= REAL_MATCHES:
            return super().match(texts, image_tokens, image_index)
        return torch.randn(len(texts), 2)


def measure(images: int, k_test: int, size: str) -> dict[str, object]:
    """One evaluation in this process; peak memory in GB before it (libraries, weights) and in all."""
    rng = np.random.default_rng(0)
    captions = [" ".join(rng.choice(WORDS, length)) for length in rng.integers(20, 55, images)]
    with tempfile.TemporaryDirectory() as directory:
        model = Simulated(size, tokenizer=tokenizer_of())
        ids = np.arange(images) // 5
        height, width = model.image_size
        batches = (torch.zeros(min(64, images - at), 3, height, width) for at in range(0, images, 64))
        before = peak_gb()
        started = time.perf_counter()
        found = evaluate(model, batches, captions, ids, ids, k_test=k_test, directory=directory)
        seconds = time.perf_counter() - started
    tokens = (
        images * (1 + (height // model.size.patch) * (width // model.size.patch)) * model.size.vision_width
    )
    return {
        "size": size,
        "images": images,
        "queries": found.queries,
        "k_test": k_test,
        "tokens_gb": round(2 * tokens / 1e9, 2),
        "peak_before_gb": round(before, 2),
        "peak_gb": round(peak_gb(), 2),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measures a small gallery and the full one, and writes benchmarks/results/evaluation_memory-cpu-<torch>.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 19848])
    parser.add_argument("--k-test", type=int, default=32)
    parser.add_argument("--size", default="base")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the CSV goes")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.k_test, options.size)))
        return
    rows = []
    for images in options.images:
        command = [sys.executable, __file__, "--measure", str(images), "--size", options.size]
        output = subprocess.run(
            [*command, "--k-test", str(options.k_test)], check=True, capture_output=True, text=True
        )
        rows.append(json.loads(output.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    write_csv("evaluation_memory", "cpu", rows, options.results)
    if rows[-1]["peak_gb"] > LIMIT_GB:
        raise SystemExit(f"The peak of {rows[-1]['peak_gb']} GB is above {LIMIT_GB} GB.")


if __name__ == "__main__":
    main()
