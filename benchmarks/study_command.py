"""The command line of a study: run what is not finished, write the CSV, print the table."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scheduler import Scheduler
from benchmarks.study import Run, Study, config_files, planned_runs, prefix_of
from benchmarks.study_rows import RESULTS, csv_path, is_there, merged, read_csv, rows_of, table, write_csv
from data.errors import UserError
from engine.config import load_config


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
    """Run, write the CSV, print the table; returns the exit status."""
    options = parser_of(study).parse_args(arguments)
    try:
        plain = load_config(config_files(options.config, "pspd"), options.overrides)
        if study.prepare is not None:
            study.prepare(plain, options.seeds)
        status = work(options, plan_of(options, study, options.variants, options.seeds))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    # All that is there, so that a run of one variant or seed does not lose the others' rows.
    folders = Path(plain.output).glob(f"{prefix_of(options.config)}-*-seed[0-9]*")
    seeds = sorted({int(path.name.rpartition("seed")[2]) for path in folders})
    every = plan_of(options, study, list(study.variants), seeds)
    rows = [row for run in every if is_there(run) for row in rows_of(run)]
    if rows:
        path = csv_path(options.results, study, plain)
        rows = merged(read_csv(path), rows, study.variants)
        write_csv(path, rows)
        print(f"{table(rows, study.variants)}\n\n{path}")
    return status


def plan_of(
    options: argparse.Namespace, study: Study, names: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """`planned_runs` of a study by its command line."""
    return planned_runs(options.config, names, seeds, options.overrides, options.threads, study.variants)


def work(options: argparse.Namespace, runs: Sequence[Run]) -> int:
    """Do what is not finished of these runs; returns the exit status, 130 after a signal.

    Raises:
        UserError: a run is finished with other settings.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as ctrl-C: raises KeyboardInterrupt
    try:
        todo = [run for run in runs if (options.force and not run.makes_captions) or not run.finished()]
        print(f"{len(runs) - len(todo)} runs are finished, {len(todo)} to do.", flush=True)
        return int(bool(Scheduler(todo, options.jobs, options.threads, options.force).work()))
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def parser_of(study: Study) -> argparse.ArgumentParser:
    """The command line of a study."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{study.name}",
        description=study.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = list(study.variants)
    parser.add_argument("--variants", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--force", action="store_true", help="do the chosen runs again, not their captions")
    parser.add_argument("--config", type=Path, default=study.target, help="of the data set")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV")
    return parser
