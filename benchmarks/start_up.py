"""How long the commands take that have nothing to compute: another checkout of the project against this one.

    git worktree add ../before v0.1 && python -m benchmarks.start_up --before ../before

`--help`, a mistyped key, a query of a small index, and a training that is finished: made once, by this checkout, with the
demo's test set and next to no training; both versions then find it finished.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import RESULTS, Seconds, rows_of, write_csv

ROOT = Path(__file__).resolve().parents[1]
DEMO = ["--config", "configs/methods/pspd.yaml", "configs/demo.yaml"]
SHORT = (  # the demo's test set, and no more training than there must be
    "dataset.synthesis.train=60",
    "gen_pre_train_text.samples=120",
    "pre_train.max_epoch=1",
    "train.warm_up.max_epoch=1",
    "train.warm_up.matching_epochs=1",
    "train.rounds=0",
)
QUERY = ["search.py", "query", "--index", "{work}/index", "a woman in a red coat", "--top", "3"]
WORK = "{work}"


def commands(settings: list[str]) -> dict[str, tuple[list[str], int]]:
    """The commands by name, each with its exit code."""
    python = sys.executable
    return {
        "train.py --help": ([python, "train.py", "--help"], 0),
        "search.py --help": ([python, "search.py", "--help"], 0),
        "a mistyped key": ([python, "train.py", *DEMO, "--set", "train.max_epch=3"], 1),
        "search.py query": ([python, *QUERY], 0),
        "a finished train.bash": (["bash", "train.bash", "demo", "--set", *settings], 0),
    }


def seconds_of_command(command: list[str], code: int, checkout: Path) -> Seconds:
    """Time of a command and all that it starts, on the clock and on the CPUs."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)} in {checkout} ended with {done.returncode}:\n{done.stderr}")
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def prepare(settings: list[str], work: Path) -> None:
    """A finished training and an index of its test images, below `work`."""
    subprocess.run(["bash", "train.bash", "demo", "--set", *settings], cwd=ROOT, check=True)
    index = ["--checkpoint", work / "output/start-up/best.pth", "--out", work / "index"]
    command = [sys.executable, "search.py", "index", "--images", work / "data", *index]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    """Measures both versions in turns and writes benchmarks/results/start_up-cpu-<torch>.csv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT", help="the other version")
    parser.add_argument("--only", nargs="+", choices=commands([]), help="some of the commands")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the CSV goes")
    options = parser.parse_args()
    os.environ["NPROC"] = "1"
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        places = {"output": "output", "pre_gen_data": "captions", "dataset.root": "data"}
        settings = [*SHORT, "run=start-up", *(f"{key}={work / place}" for key, place in places.items())]
        chosen = {name: both for name, both in commands(settings).items() if name in (options.only or [name])}
        if not {"search.py query", "a finished train.bash"}.isdisjoint(chosen):
            prepare(settings, work)
        for name, (command, code) in chosen.items():
            command = [word.replace(WORK, str(work)) for word in command]
            times: dict[str, list[Seconds]] = {"before": [], "ours": []}
            for turn in range(options.repetitions + 1):
                for version, checkout in (("before", options.before), ("ours", ROOT)):
                    spent = seconds_of_command(command, code, checkout)
                    if turn:  # the first reads the files from the disk
                        times[version].append(spent)
            rows += rows_of(times, 1, "commands", {"command": name})
    write_csv("start_up", "cpu", rows, options.results)


if __name__ == "__main__":
    main()
