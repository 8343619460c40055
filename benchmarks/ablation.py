"""What each part of PSPD brings, and the other methods beside it: variants times seeds, resumable, several at a time.

    python -m benchmarks.ablation                                       # all variants on the demo, seeds 0, 1, 2
    python -m benchmarks.ablation --variants pspd no-local --seeds 0
    python -m benchmarks.ablation --threads 1 --jobs 2                  # two runs side by side, one thread each

Each run starts the entry scripts as a user does and writes `output/ablation-<variant>-seed<N>` (on other data than the demo
`output/ablation-<data>-<variant>-seed<N>`). The captions of a seed are made once and shared by its variants, and so is the
warm-up that belongs to them. Finished runs are skipped; ctrl-C and SIGTERM stop all runs, which save, and the same command
goes on. Results: `benchmarks/results/ablation-<data>-cpu-<torch>.csv`;
rows of runs that are not here stay in it. Every run also records what its epoch that is best on test would have reported,
which changes nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data.errors import UserError
from engine import warm_up
from engine.building import captioner_method
from engine.config import Config, load_config
from engine.marks import CAPTION_STAGES, Mark
from engine.results import MSM, results_path
from engine.several_seeds import IF_SELECTED_ON_TEST, ROWS, is_finished, spread
from retrieval.results import METRICS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
DEMO = ROOT / "configs" / "demo.yaml"
CAPTIONS = "captions"  # the run that makes a seed's captions
RELEASED_CAPTIONS = "captions-released"  # those of released settings
ALSO = "test.also_select_on_test=true"  # of every run: neither weights nor results depend on it
USAGE = "usage.jsonl"  # in a run's folder: what each start of a stage took


@dataclass(frozen=True)
class Variant:
    """A setting that is compared: the method's and the data set's configuration, and what differs from them.

    In `settings`, {epochs} stands for as many as PSPD's rounds together, {each} for those of one round, {seed} for the run's,
    {output} for the folder of runs and {runs} for how their own begin, {data} for the data set's folder, {tag} for its name
    and {captions} for the seed's captions.

    Attributes:
        captions: whether it needs those of its seed.
        released: whether it is read with `configs/released/<method>.yaml`; its captions are released ones, too.
        after: another variant, whose run with the same seed it reads.
    """

    title: str
    method: str = "pspd"
    settings: tuple[str, ...] = ()
    stages: tuple[str, ...] = ("train", "test")
    captions: bool = True
    released: bool = False
    after: str = ""


CAPTION_TITLES = {
    CAPTIONS: "captions (stages 1 to 3)",
    RELEASED_CAPTIONS: "captions with released settings (stages 1 to 3)",
}
VARIANTS = {
    "pspd": Variant("PSPD"),
    "no-correction": Variant("without label correction", settings=("correction.enabled=false",)),
    "no-local": Variant("without the local loss", settings=("model.options.local_weight=0",)),
    "base-captions": Variant("base captions only, each twice", settings=("train.captions=[base,base]",)),
    # The warm-up learns stage A's captions; without rounds its weights are the model, whatever stage C wrote.
    "warm-up": Variant("palette captions, no rounds", settings=("train.rounds=0",)),
    "labels": Variant(
        "real captions and identities, as many epochs",
        settings=("train.supervision=labels", "train.max_epoch={epochs}"),
        captions=False,
    ),
    "tsn": Variant("TSN", method="tsn", stages=("gen_pre_train_text", "train", "test")),
    "cada": Variant("CADA, as many epochs", method="cada", captions=False),
    "ssan": Variant("SSAN, as many epochs", method="ssan", captions=False),
    "irra": Variant("IRRA, as many epochs", method="irra", captions=False),
    "rde": Variant("RDE, as many epochs", method="rde", captions=False),
    "tbps_clip": Variant("TBPS-CLIP, as many epochs", method="tbps_clip", captions=False),
    "tbps_clip-simplified": Variant(
        "TBPS-CLIP simplified, as many epochs",
        method="tbps_clip",
        settings=("model.options.simplified=true",),
        captions=False,
    ),
    "syntbpr": Variant("SynTBPR, as many epochs", method="syntbpr", captions=False),
}


@dataclass(frozen=True)
class Study:
    """Variants that are compared in one table.

    Attributes:
        name: of the table's file.
        prepare: called with PSPD's configuration and the seeds before anything runs.
        target: the configuration of the data set that it is made for.
        shares_with: the study whose runs on that data set it shares, where a variant is the same.
    """

    name: str
    variants: Mapping[str, Variant]
    description: str
    prepare: Callable[[Config, Sequence[int]], None] | None = None
    target: Path = DEMO
    shares_with: Study | None = None


ABLATION = Study("ablation", VARIANTS, __doc__)  # what studies on the demo from scratch share their runs with


@dataclass
class Run:
    """One variant with one seed, or the captions of a seed."""

    name: str
    seed: int
    files: list[Path]
    settings: list[str]
    stages: list[str]
    needs: tuple[str, ...] = ()  # other runs' labels
    prefix: str = "ablation"

    @property
    def makes_captions(self) -> bool:
        return self.name in (CAPTIONS, RELEASED_CAPTIONS)

    @property
    def label(self) -> str:
        return f"{self.name}-seed{self.seed}"

    @cached_property
    def config(self) -> Config:
        return load_config(self.files, self.settings)

    @property
    def directory(self) -> Path:
        """Where its log and what it took are kept; for a variant the run's own folder."""
        return Path(self.config.output) / f"{self.prefix}-{self.label}"

    def finished(self) -> bool:
        """Whether all its stages are done with these settings.

        Raises:
            UserError: they are done with other settings, so its results would not be those of this configuration; or
                captions are there whose warm-up is not, and runs side by side would each make it.
        """
        if self.makes_captions:
            _check_warm_up(self.config)
        marks = _marks(self.config, self.makes_captions)
        for mark in marks:
            if changed := mark.changes():
                raise UserError(
                    f"{mark.path} was finished with other settings ({'; '.join(changed[:5])}): remove {mark.path.parent} "
                    f"or run python -m benchmarks.ablation --force with the variants and seeds that are to be run again."
                )
        return all(m.changes() == [] for m in marks) if self.makes_captions else is_finished(self.config)

    def command(self, stage: str) -> list[str]:
        """How a stage of it is started."""
        script = str(ROOT / f"{stage}.py")
        return [sys.executable, script, "--config", *map(str, self.files), "--set", *self.settings]


def _check_warm_up(config: Config) -> None:
    captions = config.caption_directory / "captions.json"
    weights = warm_up.warm_up_path(config, captioner_method(config))
    if captions.is_file() and warm_up.is_wanted(config) and not weights.is_file():
        raise UserError(
            f"{captions} is there and its warm-up {weights} is not: remove {captions.parent} as well, or make both again with "
            "train.bash --from pre_train."
        )


def _marks(config: Config, captions: bool) -> list[Mark]:
    return [Mark.of(stage, config) for stage in (CAPTION_STAGES if captions else ("train",))]


def config_files(target: Path, method: str, released: bool = False) -> list[Path]:
    """The files that train.bash reads for a data set and a method, later ones win.

    Args:
        released: with what the method's released code does otherwise, and what that needs on this data set.
    """
    configs, folder = ROOT / "configs", target.with_suffix("")
    files = [configs / "methods" / f"{method}.yaml", target]
    both = [folder / f"{method}.yaml"]
    if released:
        both += [configs / "released" / f"{method}.yaml", folder / "released.yaml"]
    return [*files, *(path for path in both if path.is_file())]


def prefix_of(target: Path) -> str:
    """What the folders of the runs on a data set begin with: a variant is another run on another one."""
    return "ablation" if target.stem == DEMO.stem else f"ablation-{target.stem}"


def _placeholders(plain: Config, target: Path) -> dict[str, Any]:
    """What a variant's settings may name, from PSPD's configuration of the target with a seed."""
    return {
        "epochs": plain.train.rounds * plain.train.max_epoch,
        "each": plain.train.max_epoch,
        "seed": plain.seed,
        "output": plain.output,
        "runs": f"{plain.output}/{prefix_of(target)}",
        "data": plain.dataset.root,
        "tag": plain.dataset.label,
        "captions": plain.caption_directory,
    }


def planned_runs(
    target: Path,
    names: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    threads: int,
    variants: Mapping[str, Variant] = VARIANTS,
) -> list[Run]:
    """The runs of these variants and seeds, each behind what it needs, which is planned with it."""
    wanted = dict.fromkeys(other for name in names for other in (variants[name].after, name) if other)
    runs = []
    for seed in seeds:
        common = [ALSO, *settings, f"seed={seed}", f"runtime.threads={threads}"]
        for released, captions in ((False, CAPTIONS), (True, RELEASED_CAPTIONS)):
            if any(variants[name].captions and variants[name].released == released for name in wanted):
                files = config_files(target, "pspd", released)
                stages = list(CAPTION_STAGES)
                runs.append(Run(captions, seed, files, common, stages, prefix=prefix_of(target)))
        known = _placeholders(load_config(config_files(target, "pspd"), common), target)
        for name in wanted:
            variant = variants[name]
            own = [text.format(**known) for text in variant.settings]
            captions = RELEASED_CAPTIONS if variant.released else CAPTIONS
            needs = [captions] * variant.captions + [variant.after] * bool(variant.after)
            runs.append(
                Run(
                    name,
                    seed,
                    config_files(target, variant.method, variant.released),
                    [*common, f"run={prefix_of(target)}-{name}-seed{seed}", *own],
                    list(variant.stages),
                    tuple(f"{other}-seed{seed}" for other in needs),
                    prefix_of(target),
                )
            )
    return runs


@dataclass
class Started:
    """A stage that is running."""

    run: Run
    stage: str
    process: subprocess.Popen
    since: float = field(default_factory=time.monotonic)


class Scheduler:
    """Runs what is not finished, `jobs` stages at a time, each run's stages in order."""

    def __init__(self, runs: Iterable[Run], jobs: int, threads: int, force: bool) -> None:
        self.waiting = list(runs)
        self.left = {run.label: list(run.stages) for run in self.waiting}
        self.jobs, self.threads = jobs, threads
        self.force = {run.label for run in self.waiting if force and not run.makes_captions}
        self.unfinished = set(self.left)  # labels that others wait for
        self.failed: set[str] = set()
        self.running: dict[int, Started] = {}

    def work(self) -> set[str]:
        """Returns the labels of the runs that failed, those included whose captions did.

        Raises:
            KeyboardInterrupt: a signal came; every stage has saved and ended by then.
        """
        try:
            while self.waiting or self.running:
                self._start_ready()
                if self.running:
                    self._wait()
        except KeyboardInterrupt:
            for started in self.running.values():
                started.process.send_signal(signal.SIGTERM)
            while self.running:
                self._wait()
            raise
        return self.failed

    def _start_ready(self) -> None:
        for run in list(self.waiting):
            if failed := self.failed.intersection(run.needs):
                self.waiting.remove(run)
                self._fail(run, f"what it needs ({', '.join(sorted(failed))}) failed")
            elif len(self.running) < self.jobs and not self.unfinished.intersection(run.needs):
                self.waiting.remove(run)
                self._start(run)

    def _start(self, run: Run) -> None:
        stage = self.left[run.label][0]
        command = run.command(stage)
        run.directory.mkdir(parents=True, exist_ok=True)
        if run.label in self.force and stage == "train":
            command.append("--force")
            (run.directory / USAGE).unlink(missing_ok=True)  # what the run before took
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with (run.directory / "ablation.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **threads},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.running[process.pid] = Started(run, stage, process)
        print(f"{run.label}: {stage} ({len(self.waiting)} runs waiting)", flush=True)

    def _wait(self) -> None:
        """Take note of the next stage that ends, and start the run's next one."""
        pid, status, usage = os.wait4(-1, 0)
        started = self.running.pop(pid)
        code = started.process.returncode = os.waitstatus_to_exitcode(status)
        record = {
            "stage": started.stage,
            "code": code,
            "seconds": round(time.monotonic() - started.since, 2),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
            "peak_mib": round(usage.ru_maxrss / 1024, 1),
        }
        with (started.run.directory / USAGE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        run, left = started.run, self.left[started.run.label]
        if code:
            self._fail(run, f"{started.stage} ended with {code}, see {run.directory / 'ablation.log'}")
            return
        left.pop(0)
        if left:
            self.waiting.insert(0, run)
        else:
            self.unfinished.discard(run.label)
            print(f"{run.label}: finished", flush=True)

    def _fail(self, run: Run, why: str) -> None:
        self.failed.add(run.label)
        self.unfinished.discard(run.label)
        print(f"{run.label}: {why}", file=sys.stderr, flush=True)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """A finished run as rows of the CSV: one per protocol, or one without metrics for captions."""
    usage = [json.loads(line) for line in (run.directory / USAGE).read_text("utf-8").splitlines()]
    row: dict[str, Any] = {
        "variant": run.name,
        "seed": run.seed,
        "minutes": round(sum(record["seconds"] for record in usage) / 60, 2),
        "cpu_minutes": round(sum(record["cpu_seconds"] for record in usage) / 60, 2),
        "peak_mib": max(record["peak_mib"] for record in usage),
    }
    if run.makes_captions:
        return [row]
    rows = []
    for path in (results_path(run.config), results_path(run.config, MSM)):
        if path.is_file():
            found = json.loads(path.read_text("utf-8"))
            told = {name: found[name] for name in ("method", "split", "protocol", "selected_on")}
            scores = {f"{kind}_{name}": found[kind][name] for kind in ROWS if found[kind] for name in METRICS}
            computed = found.get("computed", {})  # results of version 0.1 lack it
            where = {name: computed.get(name, "") for name in ("processor", "precision", "linear")}
            where["processor_features"] = " ".join(computed.get("features", ()))
            rows.append({**row, **told, **scores, **_if_selected_on_test(found), **where})
    return rows


def _if_selected_on_test(found: Mapping[str, Any]) -> dict[str, float]:
    """What the run's epoch that is best on test would have reported, under names that can't be taken for results."""
    best = found.get(IF_SELECTED_ON_TEST) or {}
    return {
        f"{ON_TEST}{kind}_{name}": best[kind][name]
        for kind in ROWS
        if best.get(kind)
        for name in ("r1", "mAP")
    }


ON_TEST = f"{IF_SELECTED_ON_TEST}_"
COLUMNS = [
    "variant",
    "seed",
    "method",
    "split",
    "protocol",
    "selected_on",
    *(f"{kind}_{name}" for kind in ROWS for name in METRICS),
    *(f"{ON_TEST}{kind}_{name}" for kind in ROWS for name in ("r1", "mAP")),
    "minutes",
    "cpu_minutes",
    "peak_mib",
    *("processor", "processor_features", "precision", "linear"),
]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file, numbers as numbers; none where there is no file. Columns that it lacks are empty."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as stream:
        return [
            dict.fromkeys(COLUMNS, "") | {name: _value(text) for name, text in row.items()}
            for row in csv.DictReader(stream)
        ]


def _value(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def merged(
    old: Iterable[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], variants: Iterable[str]
) -> list[Mapping[str, Any]]:
    """New rows, and those of runs that they say nothing about, which were made elsewhere: by seed, then as `variants` are."""
    known = {(row["variant"], row["seed"]) for row in new}
    rows = [*(row for row in old if (row["variant"], row["seed"]) not in known), *new]
    order = {name: place for place, name in enumerate((*CAPTION_TITLES, *variants))}
    return sorted(rows, key=lambda row: (row["seed"], order.get(row["variant"], len(order))))


def table(rows: Sequence[Mapping[str, Any]], variants: Mapping[str, Variant] = VARIANTS) -> str:
    """Mean and spread over the seeds, as a Markdown table."""
    lines = [
        "| variant | protocol | seeds | Rank-1, features alone | Rank-1, re-ranked | mAP, re-ranked | minutes | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row.get("protocol", "")), []).append(row)
    for (name, protocol), found in groups.items():
        metrics = [spread_text([row.get(key) for row in found]) for key in ("itc_r1", "itm_r1", "itm_mAP")]
        title = variants[name].title if name in variants else CAPTION_TITLES.get(name, name)
        seeds = " ".join(str(row["seed"]) for row in found)
        minutes = sum(row["minutes"] for row in found) / len(found)
        peak = max(row["peak_mib"] for row in found)
        cells = [f"{title} (`{name}`)", protocol, seeds, *metrics, f"{minutes:.1f}", f"{peak:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread_text(values: Sequence[float | str | None]) -> str:
    """ "31.20 ± 0.80 (30.50 to 32.10)"; empty without values."""
    known = [value for value in values if value not in (None, "")]
    if not known:
        return ""
    found = spread(known)
    if found["std"] is None:
        return f"{found['mean']:.2f}"
    return f"{found['mean']:.2f} ± {found['std']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def on_test_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """What runs would have reported as Rank-1 with their epochs chosen on test, and what the same runs do report.

    "33.38 instead of 33.00 (seeds 0 2)", by the ranking that chooses epochs; empty where no run recorded it.
    """
    known = [row for row in rows if row.get(f"{ON_TEST}itc_r1", "") != ""]
    if not known:
        return ""
    kind = "itc" if any(row["itm_r1"] == "" for row in known) else "itm"
    chosen, honest = (
        sum(row[f"{prefix}{kind}_r1"] for row in known) / len(known) for prefix in (ON_TEST, "")
    )
    seeds = " ".join(str(row["seed"]) for row in known)
    return f"{chosen:.2f} instead of {honest:.2f} (seed{'s' * (len(known) > 1)} {seeds})"


def main(arguments: Sequence[str] | None = None, study: Study = ABLATION) -> int:
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


def csv_path(results: Path, study: Study, config: Config) -> Path:
    """The study's table about a configuration's data set, on this kind of device with this torch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    version = torch.__version__.split("+")[0]
    return results / f"{study.name}-{config.dataset.label}-{device}-{version}.csv"


def is_there(run: Run) -> bool:
    """Whether a run is finished here with these settings."""
    try:
        return (run.directory / USAGE).is_file() and run.finished()
    except UserError:
        return False


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


if __name__ == "__main__":
    sys.exit(main())
