"""How models trained on one of three demo sets do on the others: three seeds of the target world, in the three formats.

    python -m benchmarks.cross_sets                                  # PSPD's losses with captions and identities, seed 0
    python -m benchmarks.cross_sets --variants labels labels-icfg    # two of the three sets

The first set is the demo itself, whose run is that of `benchmarks.adaptation`. Draws the sets, trains a model on each, evaluates each on the
others (`test.py --checkpoint`) and makes the source x target matrix of `retrieval.matrix`; runs, skips, stops and goes on as
`benchmarks.ablation` does. Writes `benchmarks/results/cross_sets-<data>-cpu-<torch>.csv` and beside the runs matrix.md,
matrix.csv and matrix.png; `python -m benchmarks.pages` puts the table on its page, `--picture FILE` draws it there, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import adaptation, study_command, study_rows
from benchmarks.study import Run, Study, Variant, config_files
from benchmarks.study_rows import csv_path
from data.errors import UserError
from engine.config import Config, load_config
from engine.results import results_path
from retrieval.matrix import cells_of, draw, markdown, table_rows
from retrieval.results import write_atomically

SETS = {  # by the variant that learns from it: the suffix of its tag, its format, the seed of its drawings
    "labels": ("", "", None),
    "labels-icfg": ("-icfg", "icfg_pedes", 1),
    "labels-rstp": ("-rstp", "rstpreid", 2),
}


def _of_set(name: str) -> tuple[str, ...]:
    """The settings of a set; none for the configured one."""
    suffix, form, seed = SETS[name]
    if seed is None:
        return ()
    return (
        f"dataset.name={form}",
        f"dataset.tag={{tag}}{suffix}",
        f"dataset.root={{data}}{suffix}",
        f"dataset.synthesis.seed={seed}",
    )


_LABELS = adaptation.VARIANTS["labels"]
VARIANTS = {
    name: Variant(
        f"{_LABELS.title}{suffix and f', on the set {suffix[1:]}'}",
        settings=(*_LABELS.settings, *_of_set(name)),
        captions=_LABELS.captions,
    )
    for name, (suffix, _, _) in SETS.items()
}
STUDY = Study("cross_sets", VARIANTS, __doc__, target=adaptation.TARGET)


@dataclass
class Crossing(Run):
    """The evaluation of one set's model on another set."""

    checkpoint: Path = Path()

    def finished(self) -> bool:
        """Whether that model was evaluated there; one that was trained again is not."""
        found = results_path(self.config)
        return (
            found.is_file()
            and self.checkpoint.is_file()
            and found.stat().st_mtime_ns >= self.checkpoint.stat().st_mtime_ns
        )

    def command(self, stage: str) -> list[str]:
        """As eval.bash starts it."""
        return [*super().command(stage), "--checkpoint", str(self.checkpoint)]


def crossings(trained: Sequence[Run]) -> list[Crossing]:
    """Every model of a seed on every other set of that seed."""
    found = []
    for source in trained:
        for target in trained:
            if source.seed != target.seed or source is target:
                continue
            name = f"{source.name}-on-{target.name}"
            settings = [text for text in target.settings if not text.startswith("run=")]
            settings += [f"run={source.prefix}-{name}-seed{source.seed}"]
            best = source.config.run_directory / "best.pth"
            needs = (source.label, target.label)  # the other one's set is drawn by then
            found.append(
                Crossing(name, source.seed, target.files, settings, ["test"], needs, source.prefix, best)
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate, and make the matrix of what is there; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        plain = load_config(config_files(options.config, "pspd"), options.overrides)
        trained = study_command.plan_of(options, STUDY, options.variants, options.seeds)
        runs = [*trained, *crossings(trained)]
        status = study_command.work(options, runs)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    there = [results_path(run.config) for run in runs if study_rows.is_there(run)]
    if there:
        _write(there, plain, options)
    return status


def _write(results: Sequence[Path], plain: Config, options: argparse.Namespace) -> None:
    """The matrix: files beside the runs, its table in the folder of results."""
    cells = cells_of(results)
    folder = Path(plain.output) / f"matrix-{plain.dataset.label}"
    folder.mkdir(parents=True, exist_ok=True)
    text, rows = markdown(cells), table_rows(cells)
    path = csv_path(options.results, STUDY, plain)
    write_atomically(folder / "matrix.md", text)
    for table in (folder / "matrix.csv", path):
        write_atomically(table, rows)
    for picture in filter(None, (folder / "matrix.png", options.picture)):
        draw(cells, picture)
    print(f"{text}\n{path}")


def _parser() -> argparse.ArgumentParser:
    parser = study_command.parser_of(STUDY)
    parser.set_defaults(seeds=[0])
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where the matrix is drawn, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
