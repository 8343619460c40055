"""What keeps an index' features: faiss in files beside Milvus (milvus-lite, inside the process), through the stores of search.py.

Recall@10 against exact search, the time of a query, of the first filling, and of the next run's reading of what is there, and the
most memory, each store in a process of its own. Features and queries are those of `search_index.py`. Clocks stand beside CPU time,
which other processes disturb less.

    OMP_NUM_THREADS=1 python benchmarks/search_stores.py --images 10000 30000 100000 --queries 50
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import RESULTS, Seconds, seconds_of, write_csv
from benchmarks.search_index import WIDTH, make_features, measure
from benchmarks.training_memory import resident
from serving.catalogue import CATALOGUE, LIVE, NEW, Catalogue, Entry, Stamp
from serving.index import FORMAT, SearchIndex
from serving.store import Summary
from serving.stores import named_store, open_store

STORES = {"faiss": "faiss", "milvus": "milvus:{folder}/gallery.db"}
_BLOCK = 2000  # features that are made sure of at once


def fill(directory: Path, header: dict[str, object], features: np.ndarray) -> None:
    """What `search.py index` does with encoded images."""
    entries = [Entry(row, f"{row:06d}.jpg", Stamp(1, 1), "") for row in range(len(features))]
    store = open_store(directory, header)
    store.claim(header, header)
    with Catalogue(directory / CATALOGUE) as catalogue:
        catalogue.set_header(header)
        for start in range(0, len(features), _BLOCK):
            part = slice(start, start + _BLOCK)
            store.write(entries[part], features[part], None, {})
            store.commit()
            catalogue.add(entries[part], ())
        store.publish(np.arange(len(features)), Summary(len(features)))
        catalogue.set_state(dict.fromkeys(catalogue.rows(NEW), LIVE))
    store.close()


def read_again(directory: Path, header: dict[str, object]) -> None:
    """What every later run begins with."""
    store = open_store(directory, header)
    store.claim(header, header)
    with Catalogue(directory / CATALOGUE) as catalogue:
        store.mirror(catalogue)
    store.close()


def measured(name: str, count: int, queries: int) -> list[dict[str, object]]:
    """One row per kind of query."""
    images, asked = make_features(count, queries)
    exact = {kind: np.argsort(-(values @ images.T), axis=1)[:, :10] for kind, values in asked.items()}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "index"
        directory.mkdir()
        header = {"format": FORMAT, "checkpoint": "none", "images": folder, "features": WIDTH, "tokens": None}
        header |= named_store(STORES[name].format(folder=folder))
        before = resident("VmRSS")
        filled, _ = seconds_of(lambda: fill(directory, header, images))
        again, _ = seconds_of(lambda: read_again(directory, header))
        opened, index = seconds_of(lambda: SearchIndex(directory))
        try:
            rows = [{"queries": kind, **_asked(index, values, exact[kind])} for kind, values in asked.items()]
        finally:
            index.close()
    common = {"store": name, "images": count}
    memory = {"before_mib": before, "peak_mib": resident("VmHWM"), "threads": faiss.omp_get_max_threads()}
    times = {**_told("fill", filled), **_told("again", again), **_told("open", opened)}
    return [{**common, **row, **times, **memory} for row in rows]


def _asked(index: SearchIndex, values: np.ndarray, exact: np.ndarray) -> dict[str, object]:
    def search(query: np.ndarray) -> np.ndarray:
        return np.array([one.row for one, _ in index.nearest(query, 10)])

    spent, figures = seconds_of(lambda: measure(search, values, exact))
    return {**figures, "cpu_ms": f"{1000 * spent.cpu / len(values):.2f}"}


def _told(what: str, spent: Seconds) -> dict[str, str]:
    return {f"{what}_s": f"{spent.wall:.1f}", f"{what}_cpu_s": f"{spent.cpu:.1f}"}


def main() -> None:
    """Runs all and writes benchmarks/results/search_stores-<processor>-<pymilvus>.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--queries", type=int, default=50, help="of each kind")
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=list(STORES))
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the CSV goes")
    options = parser.parse_args()
    lines = []
    # A process for each, one after the other: what one store has taken says nothing about the next.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for count in options.images:
            for name in options.stores:
                lines += processes.submit(measured, name, count, options.queries).result()
                print(lines[-1], flush=True)
    write_csv("search_stores", "cpu", lines, options.results, version=version("pymilvus"))


if __name__ == "__main__":
    main()
