"""The index of search.py: time of a query and recall@10 against exact search, on features in random clusters.

Two kinds of queries: `near` ones lie where a cluster's images lie; `far` ones lie apart from all images, as sentences do in
a space that images and texts share (cosines about 0.3), and are the harder ones. Beside ours: faiss' flat index in full
precision, inverted lists of which a search reads half, and a graph (HNSW).

    OMP_NUM_THREADS=2 python benchmarks/search_index.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import write_csv
from models import build_model
from models.backbones.blip.tokenizer import BlipTokenizer
from retrieval.encode import encode_queries
from serving import vectors

WIDTH = 256  # BLIP's features
Search = Callable[[np.ndarray], np.ndarray]  # a query (256,) -> the rows (10,) that it finds
CLUSTER = 20  # images of a person
SENTENCE = (
    "a woman with long dark hair wears a red coat, blue jeans and white shoes and carries a black backpack"
)


def normalised(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def make_features(count: int, queries: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features (count, 256) of images in clusters of 20, and queries (Q, 256) of both kinds."""
    rng = np.random.default_rng(0)
    centres = normalised(rng.standard_normal((count // CLUSTER + 1, WIDTH), np.float32))

    def around(owners: np.ndarray, spread: float) -> np.ndarray:
        noise = rng.standard_normal((len(owners), WIDTH), np.float32) * (spread / WIDTH**0.5)
        return normalised(centres[owners] + noise)

    images = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 1 << 16):
        stop = min(count, start + (1 << 16))
        images[start:stop] = around(np.arange(start, stop) // CLUSTER, 0.7)
    chosen = rng.integers(0, len(centres) - 1, queries)
    gap = normalised(rng.standard_normal((1, WIDTH), np.float32))
    return images, {"near": around(chosen, 0.7), "far": normalised(around(chosen, 1.5) + 1.2 * gap)}


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """The share of the exact ten nearest (Q, 10) among those found (Q, 10)."""
    return (
        float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True)]))
        / exact.shape[1]
    )


def measure(search: Search, queries: np.ndarray, exact: np.ndarray) -> dict[str, str]:
    """One query after the other, as a page asks them; the first one, which warms up, is not counted."""
    found, spent = [], []
    for query in queries:
        started = time.perf_counter()
        rows = search(query)
        spent.append(1000 * (time.perf_counter() - started))
        found.append(rows)
    return {
        "recall_at_10": f"{recall(np.stack(found), exact):.4f}",
        "median_ms": f"{np.median(spent[1:]):.2f}",
        "slowest_ms": f"{max(spent[1:]):.2f}",
    }


def build(name: str, images: np.ndarray) -> tuple[Search, float]:
    """An index of all images, and the seconds that building it took; `ours` is what search.py makes."""
    started = time.perf_counter()
    if name == "ours":
        index = vectors.brought_up_to(None, np.arange(len(images)), lambda rows: images[rows], WIDTH)

        def search(query: np.ndarray) -> np.ndarray:
            return vectors.nearest(index, query, 10, lambda rows: images[rows])[0]

        return search, time.perf_counter() - started
    lists = round(len(images) ** 0.5)
    factory = {"flat": "Flat", "hnsw": "HNSW32,Flat", "lists": f"IVF{lists},Flat"}[name]
    other = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
    if name == "hnsw":
        other.hnsw.efSearch = 256
    if name == "lists":
        other.nprobe = lists // 2
        other.train(images[:: max(1, len(images) // (64 * lists))])
    other.add(images)
    return lambda query: other.search(query[None], 10)[1][0], time.perf_counter() - started


def run(count: int, names: list[str], queries: int) -> list[dict[str, object]]:
    """One row per index and kind of query."""
    images, asked = make_features(count, queries)
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(images)
    exact = {kind: flat.search(values, 10)[1] for kind, values in asked.items()}
    lines = []
    for name in names:
        search, seconds = build(name, images)
        for kind, values in asked.items():
            figures = measure(search, values, exact[kind])
            lines.append(
                {"index": name, "images": count, "queries": kind, **figures,
                 "build_s": f"{seconds:.1f}", "threads": faiss.omp_get_max_threads()}
            )  # fmt: skip
            print(lines[-1], flush=True)
    return lines


def text_encoder(queries: int) -> dict[str, object]:
    """The time in which BLIP base turns a sentence into a feature: the other part of a query."""
    with tempfile.TemporaryDirectory() as directory:
        words = BlipTokenizer.train([SENTENCE] * 10, directory, vocab_size=300)
    model = build_model("pspd", size="base", tokenizer=words).eval()
    spent = []
    for _ in range(queries):
        started = time.perf_counter()
        encode_queries(model, [SENTENCE])
        spent.append(1000 * (time.perf_counter() - started))
    return {
        "index": "text encoder, base",
        "queries": "one sentence",
        "median_ms": f"{np.median(spent[1:]):.2f}",
        "slowest_ms": f"{max(spent[1:]):.2f}",
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Runs all and writes benchmarks/results/search_index-<processor>-<faiss>.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument(
        "--compare",
        type=int,
        default=200_000,
        help="images of the comparison with HNSW, which takes long to build",
    )
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    lines = run(vectors.EXACT_BELOW - 1, ["ours"], options.queries)
    lines += run(options.compare, ["ours", "lists", "hnsw"], options.queries)
    lines += run(options.images, ["ours", "flat", "lists"], options.queries)
    lines.append(text_encoder(20))
    write_csv("search_index", "cpu", lines, version=faiss.__version__)


if __name__ == "__main__":
    main()
