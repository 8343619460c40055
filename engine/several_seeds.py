"""Several seeds of one configuration: which runs are still to be made, and mean and spread of their results.

    python -m engine.several_seeds plan --config configs/methods/pspd.yaml configs/demo.yaml --seeds 0 1 2
    python -m engine.several_seeds summary --config configs/methods/pspd.yaml configs/demo.yaml --seeds 0 1 2

``train.bash --seeds`` and ``eval.bash --seeds`` call both; ``summary`` writes ``output/<run without seed>-seeds.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from data.errors import UserError
from engine.command_line import add_configuration
from engine.config import Config, load_config
from engine.marks import CAPTION_STAGES, IMAGE_STAGE, Mark, differences
from engine.results import MSM, PLAIN, PROTOCOLS, are_up_to_date, results_path
from retrieval.results import METRICS, ROWS, TITLES, write_atomically

IF_SELECTED_ON_TEST = "if_selected_on_test"  # beside results, where every run has it
# What all runs of a summary have in common; the rest of a results.json is what is summarised.
SHARED = ("dataset", "method", "split", "protocol", "selected_on", "queries", "gallery")
# What may differ between runs that are compared: the seed, and how and where they ran.
FREE = ("seed", "runtime", "test")  # settings of the evaluation are compared by its own mark


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan or summarise; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        configs = configs_of_seeds(options.config, options.overrides, options.seeds)
        if options.work == "plan":
            for seed, stage in plan(configs, options.start):
                print(seed, stage)
        else:
            _summarise(configs)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def configs_of_seeds(
    paths: Sequence[str | Path], overrides: Sequence[str], seeds: Sequence[int]
) -> dict[int, Config]:
    """The configuration of each seed, each with a run folder of its own.

    Raises:
        UserError: two seeds would write into one folder.
    """
    configs = {seed: load_config(paths, [*overrides, f"seed={seed}"]) for seed in dict.fromkeys(seeds)}
    folders: dict[Path, int] = {}
    for seed, config in configs.items():
        other = folders.setdefault(config.run_directory, seed)
        if other != seed:
            raise UserError(
                f"Seeds {other} and {seed} would both write {config.run_directory}: put {{seed}} into the setting "
                "'run', or leave it empty."
            )
    return configs


def is_finished(config: Config) -> bool:
    """Whether the run is trained and its own model evaluated, both with these settings."""
    return Mark.of("train", config).changes() == [] and are_up_to_date(config)


def plan(configs: Mapping[int, Config], start: str = "") -> list[tuple[int, str]]:
    """The seeds that are not finished, each with the stage from which on it is done again ("" for none).

    Args:
        start: the stage that ``--from`` names. Where seeds share their captions, only the first of them makes those
            captions again; the others train on them. So it is with synthetic images.
    """
    todo: list[tuple[int, str]] = []
    captioned: set[Path] = set()
    for seed, config in configs.items():
        again = CAPTION_STAGES[0] if start == IMAGE_STAGE and captioned else start
        again = "train" if again in CAPTION_STAGES and config.caption_directory in captioned else again
        captioned.add(config.caption_directory)
        if again or not is_finished(config):
            todo.append((seed, again))
        else:
            print(f"Seed {seed} is finished ({config.run_directory}).", file=sys.stderr)
    return todo


def summary_path(config: Config, protocol: str = PLAIN) -> Path:
    """``output/<run without its seed>-seeds.json``, another protocol in a file of its own."""
    run = config.run or f"{config.dataset.label}-{{method}}"
    name = re.sub(r"[-_.]?(?:seed)?\{seed\}", "", run).replace("{method}", config.model.method)
    suffix = "" if protocol == PLAIN else f"-{protocol}"
    return Path(config.output) / f"{name or config.model.method}-seeds{suffix}.json"


def summarise(configs: Mapping[int, Config], protocol: str = PLAIN) -> dict[str, Any]:
    """Mean, standard deviation (of the sample; null for one seed), least and greatest of every metric, in percent.

    Args:
        protocol: "plain", or "msm" for the second results of methods that have it.

    Raises:
        UserError: a seed has no results, or the runs differ in more than their seed.
    """
    results = {seed: _results(config, results_path(config, protocol)) for seed, config in configs.items()}
    _refuse_differences(configs, results)
    first = next(iter(results.values()))
    content: dict[str, Any] = {name: first[name] for name in SHARED} | {
        "seeds": list(configs),
        "runs": [str(config.run_directory) for config in configs.values()],
    }
    content["training_minutes"] = spread([training_minutes(config) for config in configs.values()])
    content |= _spreads(list(results.values()))
    best = [found.get(IF_SELECTED_ON_TEST) for found in results.values()]
    if all(best):
        content[IF_SELECTED_ON_TEST] = _spreads(best)
    return content


def _spreads(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every metric's spread over the results, features alone and re-ranked; None for what nothing is re-ranked in."""
    return {
        row: None
        if results[0][row] is None
        else {name: spread([found[row][name] for found in results]) for name in METRICS}
        for row in ROWS
    }


def training_minutes(config: Config) -> float:
    """Minutes of the run's epochs: without captions, warm-up (runs share them), labelling and evaluation."""
    path = config.run_directory / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    epochs = [event for event in map(json.loads, lines) if event["event"] == "epoch"]
    return round(sum(epoch["seconds"] for epoch in epochs if epoch["phase"] != "warm-up") / 60, 2)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for a single value), minimum, maximum, and the values."""
    return {
        "mean": round(statistics.fmean(values), 4),
        "std": round(statistics.stdev(values), 4) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def table(content: Mapping[str, Any]) -> str:
    """A summary for people."""
    head = (
        f"{content['dataset']}, {content['method']}, {len(content['seeds'])} seeds "
        f"({' '.join(map(str, content['seeds']))}), {content['split']} split, protocol {content['protocol']}, "
        f"selected on {content['selected_on']}, {content['queries']} queries, {content['gallery']} images"
    )
    on_test = content.get(IF_SELECTED_ON_TEST) or {}
    rows = [(title, content[row]) for row, title in ROWS.items() if content[row]]
    rows += [(f"chosen on test: {title}", on_test[row]) for row, title in ROWS.items() if on_test.get(row)]
    width = max(20, *(len(title) + 1 for title, _ in rows))
    lines = [head, " " * (width + 20) + "".join(TITLES[name].rjust(9) for name in METRICS)]
    for title, metrics in rows:
        for key, words in (
            ("mean", "mean"),
            ("std", "standard deviation"),
            ("min", "least"),
            ("max", "greatest"),
        ):
            label = title if key == "mean" else ""
            values = (metrics[name][key] for name in METRICS)
            numbers = "".join("        -" if value is None else f"{value:9.2f}" for value in values)
            lines.append(f"{label:<{width}}{words:<20}{numbers}")
    return "\n".join(lines)


def _summarise(configs: Mapping[int, Config]) -> None:
    """Write the file and print the table."""
    first = next(iter(configs.values()))
    if first.dataset.name == "folder" and not any(
        results_path(config).is_file() for config in configs.values()
    ):
        print("A bare folder has no captions to query with, so there are no results to compare.")
        return
    for protocol in PROTOCOLS:
        if protocol == MSM and not any(results_path(config, MSM).is_file() for config in configs.values()):
            continue
        content = summarise(configs, protocol)
        path = summary_path(first, protocol)
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        print(table(content))
        print(f"Mean and spread: {path}")


def _results(config: Config, path: Path) -> dict[str, Any]:
    if not path.is_file() or Mark.of("test", config).changes() is None:
        raise UserError(
            f"Seed {config.seed} has no results of its own model in {path.parent}: run the same command "
            "again, or evaluate it with eval.bash."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}): evaluate that seed again with eval.bash.") from None


def _refuse_differences(configs: Mapping[int, Config], results: Mapping[int, Mapping[str, Any]]) -> None:
    """A spread over runs that differ in more than their seed would mean nothing."""
    settings = {seed: _settings(config) for seed, config in configs.items()}
    (first, expected), *others = settings.items()
    for seed, found in others:
        different = differences(expected, found)
        different += differences(*({name: results[s][name] for name in SHARED} for s in (first, seed)))
        if different:
            raise UserError(
                f"Seeds {first} and {seed} were run with different settings ({'; '.join(different[:5])}): their spread "
                "would mean nothing. Run one of them again with --force."
            )


def _settings(config: Config) -> dict[str, Any]:
    """What a run was trained and evaluated with, less what may differ."""
    path = config.run_directory / "config.yaml"
    if not path.is_file():
        raise UserError(f"There is no {path}: seed {config.seed} was not trained here.")
    trained = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    evaluated = json.loads(Mark.of("test", config).path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in trained.items() if name not in FREE}
    return kept | {"test": evaluated["test"]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.several_seeds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("work", choices=("plan", "summary"))
    add_configuration(parser)
    parser.add_argument("--seeds", nargs="+", type=int, required=True, metavar="N")
    parser.add_argument(
        "--from", default="", metavar="STAGE", dest="start", help="do this stage and later ones again"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
