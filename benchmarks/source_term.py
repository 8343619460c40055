"""What the clustering's source term does to noise and clusters, on features that are made up.

    python -m benchmarks.source_term

4,000 images of 200 people: a vector of 24 numbers per person, one near it for each image and one for its caption, each half
taken to 256 numbers by a matrix of its own, which stands for a model, and brought to length 1, as PSPD's fused feature. The
source is 4,000 images of other people, by the same model or, as a file of features is from the second round on, by another.
Three seeds each; the rest as `cluster` has it. Writes benchmarks/results/source_term-PROCESSOR-TORCH.csv, where nothing is
timed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from benchmarks.measure import RESULTS, write_csv
from clustering.pseudo_labels import cluster

DIMENSION, HALF, PER_PERSON = 24, 256, 20
SPREADS = (0.3, 0.6, 0.8, 1.0)  # of a person's images around a centre of unit variance
RATIOS = {"PSPD": 0.051, "TSN": 0.01}
SEEDS = (0, 1, 2)


def model(seed: int) -> np.ndarray:
    """(2, DIMENSION, HALF): how images and how captions become features."""
    return np.random.default_rng([seed, 0]).standard_normal((2, DIMENSION, HALF))


def features(count: int, spread: float, seed: int, matrices: np.ndarray) -> np.ndarray:
    """(count, 2 HALF) of count / PER_PERSON people."""
    random = np.random.default_rng([seed, 1])
    centres = random.standard_normal((count // PER_PERSON, DIMENSION))[
        np.arange(count) % (count // PER_PERSON)
    ]
    halves = [(centres + spread * random.standard_normal((count, DIMENSION))) @ matrix for matrix in matrices]
    return np.hstack([half / np.linalg.norm(half, axis=1, keepdims=True) for half in halves])


def measure(count: int, spread: float, ratio: float) -> list[dict]:
    """A row for each kind of source: means over the seeds."""
    found: dict[str, list[tuple[float, ...]]] = {}
    people = np.arange(count) % (count // PER_PERSON)
    for seed in SEEDS:
        own = model(seed)
        images = features(count, spread, seed, own)
        sources = {
            "none": None,
            "same model": features(count, spread, 100 + seed, own),
            "another model": features(count, spread, 100 + seed, model(200 + seed)),
        }
        for name, source in sources.items():
            clusters = cluster(images, source, ratio=ratio)
            single = np.where(clusters.labels < 0, count + np.arange(count), clusters.labels)
            agreement = adjusted_rand_score(people, single)
            numbers = (100 * clusters.n_noise / count, clusters.n_clusters, agreement, clusters.eps)
            found.setdefault(name, []).append(numbers)
    rows = []
    for name, numbers in found.items():
        noise, number, agreement, eps = np.mean(numbers, axis=0)
        rows.append(
            {
                "spread": spread,
                "ratio": ratio,
                "source": name,
                "noise %": round(noise, 1),
                "noise % min": round(min(n[0] for n in numbers), 1),
                "noise % max": round(max(n[0] for n in numbers), 1),
                "clusters": round(number),
                "ARI": round(agreement, 3),
                "eps": round(eps, 4),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = [
        row
        for ratio in RATIOS.values()
        for spread in SPREADS
        for row in measure(arguments.count, spread, ratio)
    ]
    write_csv("source_term", "cpu", rows, arguments.results)


if __name__ == "__main__":
    main()
