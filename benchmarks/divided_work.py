"""Labelling and evaluation by several processes against one, with as many threads in all, and the memory of each process.

What is measured is the engine's own: `pseudo_labels` (encoding, clustering, matching of candidates, correction) and
`evaluate_split` (encoding, re-ranking, metrics), from the first image to the result, after everything is loaded. Images and
captions are invented; the model is PSPD's with random weights. Both must come to the same labels and metrics, and to the
same scores within 1e-5. Versions take turns; processes are started anew for each.

    OMP_WAIT_POLICY=passive python benchmarks/divided_work.py                              # 1 x 2 threads, 2 x 1 thread
    python benchmarks/divided_work.py --device cuda --processes 8 --threads 64 --size base --images 34054
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import RESULTS, Seconds, captions_of, peak_gb, rows_of, seconds_of, write_csv
from benchmarks.training_step import make_model
from engine import distributed
from engine.config import RuntimeConfig, load_config
from engine.evaluation import Split, evaluate_split
from engine.feeds import ImageFeed
from engine.labels import pseudo_labels
from engine.machine import Machine, make_machine
from retrieval.division import Division
from retrieval.verbs import inference

ROOT = Path(__file__).resolve().parents[1]
IMAGES_OF_A_PERSON = 4
TOLERANCE = 1e-5
GB = 1e9


def people(count: int, size: tuple[int, int], seed: int) -> ImageFeed:
    """`count` images of invented persons: a coarse pattern each, and noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    persons = -(-count // IMAGES_OF_A_PERSON)
    patterns = rng.integers(0, 256, (persons, 3, -(-height // 12), -(-width // 12)), np.uint8)
    planes = np.empty((count, 3, height, width), np.uint8)
    for row, image in enumerate(planes):
        pattern = np.kron(patterns[row // IMAGES_OF_A_PERSON], np.ones((1, 12, 12), np.uint8))
        noise = rng.integers(-40, 40, image.shape, np.int16)
        image[:] = np.clip(pattern[:, :height, :width] + noise, 0, 255)
    feed = ImageFeed([Path(f"{row}.jpg") for row in range(count)], size, None)
    feed.array = planes.transpose(0, 2, 3, 1)  # as an image cache gives them
    return feed


def made(options: argparse.Namespace, machine: Machine) -> dict[str, Callable[[], Any]]:
    """The two parts, each an action that leaves its result in the folder; progress notes how many pairs are this process's."""
    overrides = [f"output={options.folder}", f"runtime.device={options.device}", "correction.k_tests=26"]
    config = load_config(ROOT / "configs/demo.yaml", [*overrides, "correction.k=20", "cluster.ratio=0.01"])
    model = machine.place(make_model(options.size, 0.0))
    feed, captions = people(options.images, model.image_size, 0), captions_of(options.images)
    gallery, queries = people(options.gallery, model.image_size, 1), captions_of(options.queries, 1)
    query_ids = np.arange(options.queries) % (-(-options.gallery // IMAGES_OF_A_PERSON))
    gallery_ids = np.arange(options.gallery) // IMAGES_OF_A_PERSON
    split = Split("test", [str(path) for path in gallery.paths], gallery_ids, queries, query_ids, gallery)
    pairs: list[int] = []
    with inference(model):
        one_image = model.encode_images(next(feed.batches(1, machine.device)))[0].numel() * 2
    options.tokens = one_image * len(Division(len(feed), config.test.batch_size, machine.processes).rows())

    def labelling() -> None:
        labels = pseudo_labels(
            model, feed, captions, config, machine, None, lambda _, total: pairs.append(total)
        )
        options.pairs = pairs[-1]
        if labels is not None:
            np.savez(options.folder / "labels.npz", labels.before, labels.after)

    def evaluation() -> None:
        found = evaluate_split(model, split, config, machine, options.k_test)
        if distributed.is_main():
            values = np.array([*found.itc.values(), *found.itm.values()])
            np.savez(options.folder / "evaluation.npz", values, found.best.indices, found.best.scores)

    return {"labelling": labelling, "evaluation": evaluation}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both parts on this process, one of several or the only one."""
    machine = make_machine(RuntimeConfig(device=options.device))
    found: dict[str, Any] = {}
    actions = made(options, machine)
    before = peak_gb()
    for part, action in actions.items():
        distributed.barrier()
        found[part], _ = seconds_of(action, options.device)
    found |= {"pairs": options.pairs, "tokens_gb": options.tokens / GB}
    found |= {"before_gb": before, "peak_gb": peak_gb()}
    distributed.stop()
    return found


def run(options: argparse.Namespace, processes: int, folder: Path) -> list[dict[str, Any]]:
    """What each of `processes` processes measured."""
    folder.mkdir()
    runner = [sys.executable]
    if processes > 1:
        runner += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    chosen = ("images", "gallery", "queries", "k_test", "size", "device", "threads", "folder")
    values = {**vars(options), "threads": threads_each(options, processes), "folder": folder}
    arguments = [f"--{name.replace('_', '-')}={values[name]}" for name in chosen]
    environment = {**os.environ, "OMP_NUM_THREADS": str(values["threads"])}
    subprocess.run([*runner, __file__, *arguments], env=environment, check=True)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


def threads_each(options: argparse.Namespace, processes: int) -> int:
    """Threads of each process, as many in all whatever the number of processes."""
    return max(1, options.threads // processes)


def check_same(one: Path, other: Path) -> None:
    """Ends the run unless both came to the same labels, metrics and lists, and to the same scores within the tolerance.

    One process has more threads and sums in another order: images whose scores are that close may have changed places.
    """
    labels, evaluation = (
        (np.load(one / name), np.load(other / name)) for name in ("labels.npz", "evaluation.npz")
    )
    for what, (first, second) in (("labels", labels), ("metrics", evaluation)):
        names = first.files if what == "labels" else first.files[:1]
        if not all(np.array_equal(first[name], second[name]) for name in names):
            raise SystemExit(f"The {what} of the versions differ.")
    (_, lists, scores), (_, other_lists, other_scores) = (
        [found[name] for name in found.files] for found in evaluation
    )
    apart = float(np.abs(scores - other_scores).max())
    gaps = np.abs(np.diff(scores, axis=1, prepend=np.inf, append=-np.inf))
    # Nothing beside it that it could change places with.
    alone = np.minimum(gaps[:, :-1], gaps[:, 1:]) > 2 * TOLERANCE
    alone[:, -1] = False  # what follows the last one is not known
    if apart > TOLERANCE or (alone & (lists != other_lists)).any():
        raise SystemExit(f"The lists of the versions differ; their scores by {apart:.2e}.")


def rows_of_part(
    part: str, measured: dict[str, list[list[dict[str, Any]]]], options: argparse.Namespace
) -> list[dict[str, object]]:
    """The rows of one part, or of all parts together."""
    parts = ["labelling", "evaluation"] if part == "both" else [part]

    def spent(turn: list[dict[str, Any]]) -> Seconds:
        """On the clock the slowest process counts, CPU time is that of all."""
        wall = sum(max(process[name][0] for process in turn) for name in parts)
        return Seconds(wall, sum(process[name][1] for process in turn for name in parts))

    common = {name: getattr(options, name) for name in ("size", "images", "gallery", "queries", "k_test")}
    times = {name: [spent(turn) for turn in turns] for name, turns in measured.items()}
    rows = rows_of(times, options.images, "images", {"part": part, **common})
    for row, turns in zip(rows, measured.values(), strict=True):
        every = [process for turn in turns for process in turn]
        pairs = [process["pairs"] for process in turns[0]]
        row |= {"processes": len(pairs), "threads": threads_each(options, len(pairs))}
        row |= {"pairs_of_the_busiest": f"{max(pairs) * len(pairs) / sum(pairs):.3f}"}  # 1: even
        row |= {
            f"{name}_gb": f"{max(process[f'{name}_gb'] for process in every):.3f}"
            for name in ("tokens", "before", "peak")
        }
    return rows


def main() -> None:
    """Measures both versions in turns and writes benchmarks/results/divided_work-<device>-<torch>.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", help="tiny, base or large")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of all processes together")
    parser.add_argument("--images", type=int, default=2000, help="that are labelled")
    parser.add_argument("--gallery", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--k-test", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the CSV goes")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a process that is measured
    options = parser.parse_args()
    if options.folder:
        found = measure(options)
        (options.folder / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
        return
    versions = {"one process": 1, "divided": options.processes}
    measured: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as directory:
        for turn in range(options.repetitions):
            folders = {name: Path(directory) / f"{turn}-{name}" for name in versions}
            for name in list(versions) if turn % 2 else list(versions)[::-1]:
                measured[name].append(run(options, versions[name], folders[name]))
            check_same(*folders.values())
    rows = [
        row for part in ("labelling", "evaluation", "both") for row in rows_of_part(part, measured, options)
    ]
    write_csv("divided_work", options.device, rows, options.results)


if __name__ == "__main__":
    main()
