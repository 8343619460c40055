"""Draw what each step brings from a pre-trained start: the start, captions alone, rounds, and what labels would.

    python -m benchmarks.demo_steps --picture docs/images/demo_steps.png

Reads the results of `benchmarks.adaptation`: Rank-1 on the test set, mean over the seeds, each seed a dot.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks import adaptation
from benchmarks.pages import UNKNOWN, read_study

STEPS = {
    "start": "start\nno training here",
    "own-classes": "+ captions\neach image its own class",
    "pspd": "+ rounds\nPSPD, no labels",
    "labels": "real captions\nand identities",
}
KINDS = {"itc_r1": ("features alone", "#9fb4d6"), "itm_r1": ("re-ranked", "#27467f")}
_WIDTH = 0.36


def draw(rows: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """A group of two bars for each step that has results.

    Raises:
        ValueError: there is none.
    """
    steps = {name: [row for row in rows if row["variant"] == name] for name in STEPS}
    steps = {name: found for name, found in steps.items() if found}
    if not steps:
        raise ValueError(f"No step has results ({UNKNOWN}): run python -m benchmarks.adaptation first.")
    figure, axes = plt.subplots(figsize=(7.2, 3.4), dpi=110, layout="constrained")
    for side, (column, (title, colour)) in enumerate(KINDS.items()):
        _bars(axes, list(steps.values()), column, title, colour, (side - 0.5) * _WIDTH)
    axes.set_xticks(range(len(steps)), [STEPS[name] for name in steps])
    axes.set_ylabel("Rank-1 on the test set, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(picture)
    plt.close(figure)


def _bars(
    axes: Axes,
    groups: Sequence[Sequence[Mapping[str, Any]]],
    column: str,
    title: str,
    colour: str,
    shift: float,
) -> None:
    for place, rows in enumerate(groups):
        values = [row[column] for row in rows]
        mean = sum(values) / len(values)
        axes.bar(place + shift, mean, _WIDTH, color=colour, label=title if place == 0 else None)
        if len(set(values)) > 1:
            axes.scatter([place + shift] * len(values), values, s=12, color="black", zorder=3)
        axes.text(place + shift, max(values) + 2, f"{mean:.1f}", ha="center", fontsize=9)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    try:
        draw(read_study(adaptation.STUDY), options.picture)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
