"""Time and memory of the pseudo labels.

    python -m benchmarks.pseudo_labels compare     # beside the dense procedure, N = 1,000 to 8,000
    python -m benchmarks.pseudo_labels scale       # alone, N = 34,054 (CUHK-PEDES) and 68,000

Every measurement is a process of its own, so that its peak memory is its own. `compare` runs both versions of a
case in turn, three times, and keeps the fastest of each: take the ratio, and where other work shares the cores, the
ratio of CPU seconds. The dense version takes its distances from one matrix product, as the released code does, not in
the slow definite order that the tests use. Writes benchmarks/results/pseudo_labels-MODE-PROCESSOR-TORCH.csv.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

WIDTH = 512
DIMENSION = 24
# Of the members of a cluster around a centre of unit variance.
SPREADS = {"separated": 0.3, "overlapping": 1.0}
PER_CLUSTER = 20
REPEATS = 3
SIZES = {"compare": (1000, 2000, 4000, 8000), "scale": (34054, 68000)}


def features_like_identities(count: int, kind: str, seed: int = 0) -> np.ndarray:
    """(count, 512) float32 unit vectors of intrinsic dimension 24, in clusters of 20."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((math.ceil(count / PER_CLUSTER), DIMENSION))
    points = centres[np.arange(count) % len(centres)] + SPREADS[kind] * random.standard_normal(
        (count, DIMENSION)
    )
    points = points @ random.standard_normal((DIMENSION, WIDTH))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def measure(which: str, count: int, kind: str, labels_file: str) -> dict:
    """Run one version in this process; the labels go to a file."""
    features = features_like_identities(count, kind)
    if which == "dense":
        from benchmarks.dense_pseudo_labels import dense_cluster

        start, cpu = time.perf_counter(), time.process_time()
        found = dense_cluster(features, ordered=False)
    elif which == "sparse":
        from clustering.pseudo_labels import cluster

        start, cpu = time.perf_counter(), time.process_time()
        found = cluster(features)
    else:
        return {"seconds": product_seconds(features)}
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    np.save(labels_file, found.labels)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "eps": found.eps,
        "clusters": int(found.labels.max()) + 1,
        "noise": int((found.labels < 0).sum()),
    }


def product_seconds(features: np.ndarray) -> float:
    """The blocked matrix product of all pairs in float32, from a sixteenth of the rows: what N^2 work costs at least."""
    import torch

    table = torch.from_numpy(features)
    share = max(1, len(table) // 16)
    block = max(1, 2**24 // len(table))
    start = time.perf_counter()
    for row in range(0, share, block):
        torch.mm(table[row : min(row + block, share)], table.T)
    return (time.perf_counter() - start) * len(table) / share


def in_own_process(which: str, count: int, kind: str, labels_file: str = "") -> dict:
    command = [sys.executable, "-m", "benchmarks.pseudo_labels", "one", which, str(count), kind, labels_file]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def fastest(runs: list[dict]) -> dict:
    """The least wall time and, on its own, the least CPU time: what other work on the machine added is not ours."""
    return {**runs[0], **{name: min(run[name] for run in runs) for name in ("seconds", "cpu")}}


def compare(count: int, kind: str) -> dict:
    """Both versions of one case, and whether their labels agree."""
    with tempfile.TemporaryDirectory() as folder:
        files = {which: str(Path(folder) / f"{which}.npy") for which in ("sparse", "dense")}
        runs = [
            [in_own_process(which, count, kind, file) for which, file in files.items()]
            for _ in range(REPEATS)
        ]
        equal = bool((np.load(files["sparse"]) == np.load(files["dense"])).all())
    sparse, dense = (fastest(list(column)) for column in zip(*runs, strict=True))
    return {
        "features": kind,
        "N": count,
        "dense s": round(dense["seconds"], 2),
        "sparse s": round(sparse["seconds"], 2),
        "times faster": round(dense["seconds"] / sparse["seconds"], 1),
        "dense CPU s": round(dense["cpu"], 2),
        "sparse CPU s": round(sparse["cpu"], 2),
        "CPU times less": round(dense["cpu"] / sparse["cpu"], 1),
        "dense GiB": round(dense["gib"], 2),
        "sparse GiB": round(sparse["gib"], 2),
        "labels equal": "yes" if equal else "NO",
        "eps difference": f"{abs(sparse['eps'] - dense['eps']):.0e}",
        "clusters": sparse["clusters"],
        "noise": sparse["noise"],
    }


def scale(count: int, kind: str) -> dict:
    """The sparse version alone, beside the matrix product that finds the neighbours."""
    with tempfile.TemporaryDirectory() as folder:
        sparse = in_own_process("sparse", count, kind, str(Path(folder) / "labels.npy"))
    return {
        "features": kind,
        "N": count,
        "seconds": round(sparse["seconds"], 2),
        "CPU s": round(sparse["cpu"], 2),
        "product s": round(in_own_process("product", count, kind)["seconds"], 2),
        "GiB": round(sparse["gib"], 2),
        "eps": round(sparse["eps"], 4),
        "clusters": sparse["clusters"],
        "noise": sparse["noise"],
    }


def with_slopes(rows: list[dict]) -> list[dict]:
    """Add the log-log slopes of time and memory to the row before of the same features."""
    before = {}
    for row in rows:
        last = before.get(row["features"])
        for name in ("sparse CPU s", "dense CPU s", "CPU s", "sparse GiB", "GiB"):
            if name in row:
                slope = (
                    math.log(row[name] / last[name]) / math.log(row["N"] / last["N"]) if last else math.nan
                )
                row[f"{name}: slope"] = "" if math.isnan(slope) else round(slope, 2)
        before[row["features"]] = row
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    for name in SIZES:
        mode = modes.add_parser(name)
        mode.add_argument("--sizes", type=int, nargs="+", default=SIZES[name])
        mode.add_argument("--features", nargs="+", choices=SPREADS, default=list(SPREADS))
    one = modes.add_parser("one", help="a single measurement, as the other modes start it")
    one.add_argument("which", choices=("sparse", "dense", "product"))
    one.add_argument("count", type=int)
    one.add_argument("kind", choices=SPREADS)
    one.add_argument("labels_file", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.mode == "one":
        print(json.dumps(measure(arguments.which, arguments.count, arguments.kind, arguments.labels_file)))
        return
    run = {"compare": compare, "scale": scale}[arguments.mode]
    rows = []
    for kind in arguments.features:
        for count in arguments.sizes:
            rows.append(run(count, kind))
            print(rows[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    rows = with_slopes(rows)
    # After the measurement: it brings torch, which would count as memory.
    from benchmarks.measure import write_csv

    write_csv(f"pseudo_labels-{arguments.mode}", "cpu", rows, version=version("torch"))


if __name__ == "__main__":
    main()
