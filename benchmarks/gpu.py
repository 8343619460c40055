"""Everything worth measuring on one machine with one GPU, in about ten minutes; without a GPU it says so and does nothing.

    bash benchmarks/run.bash gpu                  # all parts
    python -m benchmarks.gpu training matching    # some of them
    python -m benchmarks.gpu --minutes 30 --force # all, again

Every part writes `gpu_<part>-<card>-<torch version>.csv` when it is done and is skipped from then on, so the same command
goes on where it was stopped. No part is begun after `--minutes`. One that fails says why, and the others go on.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks import gpu_parts
from benchmarks.gpu_parts import Row, Setting
from benchmarks.measure import RESULTS, csv_path, write_csv

Part = Callable[[Setting], list[Row]]
# What says most comes first, what may take minutes last.
PARTS: dict[str, Part] = {
    "training": gpu_parts.training,
    "matching": gpu_parts.matching,
    "encoding": gpu_parts.encoding,
    "captions": gpu_parts.captions,
    "clustering": gpu_parts.clustering,
    "precision": gpu_parts.precision,
    "training_compiled": gpu_parts.training_compiled,
    "clustering_large": gpu_parts.clustering_large,
}


def measure(
    parts: Mapping[str, Part], setting: Setting, card: str, results: Path, minutes: float, force: bool = False
) -> list[str]:
    """Runs the parts that have no table yet; returns those that failed or were not begun."""
    started, open_parts = time.monotonic(), []
    for name, part in parts.items():
        path = csv_path(f"gpu_{name}", card, results)
        if path.exists() and not force:
            print(f"{name}: already measured, {path}", flush=True)
            continue
        if time.monotonic() - started > 60 * minutes:
            print(f"{name}: not begun after {minutes:g} minutes; the same command goes on here.", flush=True)
            open_parts.append(name)
            continue
        print(f"== {name}: {part.__doc__.splitlines()[0]}", flush=True)
        begun = time.monotonic()
        try:
            write_csv(f"gpu_{name}", card, part(setting), results)
        except Exception:  # a part that fails must not cost the others, on a machine that is lent for minutes
            traceback.print_exc()
            open_parts.append(name)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return open_parts


def slug(name: str) -> str:
    """A card's name as it stands in a file's: "NVIDIA A100-SXM4-40GB" -> "nvidia-a100-sxm4-40gb"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures on the GPU, if there is one; 1 where a part is still open."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default all"
    )
    parser.add_argument("--minutes", type=float, default=10, help="no part is begun after them")
    parser.add_argument("--force", action="store_true", help="measure again what has a table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables go")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}: give some of {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        print("There is no GPU that torch could use, so there is nothing to measure.")
        return 0
    chosen = {name: PARTS[name] for name in options.parts or PARTS}
    card = slug(torch.cuda.get_device_name())
    left = measure(chosen, Setting(), card, options.results, options.minutes, options.force)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
