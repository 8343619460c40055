"""A run's results: where they lie, whether they are up to date, and what they say.

    python -m engine.results --config configs/methods/pspd.yaml configs/demo.yaml

prints them again without computing anything.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import UserError
from engine.command_line import add_configuration, read_command, told_in_a_sentence
from engine.config import Config
from engine.marks import Mark
from retrieval.results import table

# MSM: the second one, of methods that learn texts in one fixed style.
PLAIN, MSM = PROTOCOLS = ("plain", "msm")


def results_path(config: Config, protocol: str = PLAIN) -> Path:
    """Where ``test.py`` writes the results of a protocol."""
    folder = config.run_directory if protocol == PLAIN else config.run_directory / protocol
    return folder / "results.json"


def are_up_to_date(config: Config) -> bool:
    """Whether the run's own last model was evaluated with these settings, and the results are still there."""
    trained, evaluated = Mark.of("train", config), Mark.of("test", config)
    if not trained.path.is_file() or evaluated.changes() != [] or not results_path(config).is_file():
        return False
    return evaluated.path.stat().st_mtime_ns >= trained.path.stat().st_mtime_ns


def told(record: Mapping[str, Any], config: Config) -> str:
    """The table of a protocol's results.json, with a line about the protocol where it is the second one."""
    if record["protocol"] == PLAIN:
        return table(record)
    weight = config.test.msm_weight
    return f"\nMSM protocol, weight {weight}: gallery captioned, queries rewritten\n{table(record)}"


def where(config: Config) -> str:
    """A sentence about the folder of all results."""
    return f"Results, per-query lists and pictures: {config.run_directory}/"


def print_results(config: Config) -> None:
    """Print what ``test.py`` found.

    Raises:
        UserError: there are no results, or their file is damaged.
    """
    paths = [path for path in (results_path(config, name) for name in PROTOCOLS) if path.is_file()]
    if not paths:
        raise UserError(f"There are no results in {config.run_directory}: evaluate the model with eval.bash.")
    for path in paths:
        try:
            print(told(json.loads(path.read_text("utf-8")), config))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error}): evaluate the model again with eval.bash."
            ) from None
    print(where(config))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_configuration(parser)
    config = read_command(parser).config
    with told_in_a_sentence():
        print_results(config)


if __name__ == "__main__":
    main()
