"""What DBSCAN compares, rows of the distance matrix or distances, and what that does to noise and clusters on made-up features.

    python -m benchmarks.cluster_metric

The features of `benchmarks.source_term` without a source: 4,000 images of 200 people, three seeds. `profile` with its automatic
radius is the default, `jaccard` with 0.6 what is usual where distances are compared (docs/fidelity.md). Writes
benchmarks/results/cluster_metric-PROCESSOR-TORCH.csv, where nothing is timed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from benchmarks.measure import RESULTS, write_csv
from benchmarks.source_term import PER_PERSON, SEEDS, SPREADS, features, model
from clustering.pseudo_labels import cluster

KINDS: dict[str, float | str] = {"profile": "auto", "jaccard": 0.6}


def measure(count: int, spread: float) -> list[dict]:
    """A row for each metric: means over the seeds, and each seed's ARI."""
    people = np.arange(count) % (count // PER_PERSON)
    rows = []
    for metric, eps in KINDS.items():
        numbers = []
        for seed in SEEDS:
            found = cluster(features(count, spread, seed, model(seed)), metric=metric, eps=eps)
            single = np.where(found.labels < 0, count + np.arange(count), found.labels)
            agreement = adjusted_rand_score(people, single)
            numbers.append((100 * found.n_noise / count, found.n_clusters, agreement))
        noise, clusters, agreement = np.mean(numbers, axis=0)
        rows.append(
            {
                "spread": spread,
                "metric": metric,
                "eps": eps,
                "noise %": round(noise, 1),
                "clusters": round(clusters),
                "ARI": round(agreement, 3),
                "ARI by seed": " ".join(f"{one[2]:.3f}" for one in numbers),
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
    rows = [row for spread in SPREADS for row in measure(arguments.count, spread)]
    write_csv("cluster_metric", "cpu", rows, arguments.results)


if __name__ == "__main__":
    main()
