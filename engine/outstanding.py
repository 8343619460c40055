"""Which stages of a run are still to be done: ``train.bash`` asks once, before anything that takes seconds to load.

    python -m engine.outstanding --config configs/methods/pspd.yaml configs/demo.yaml [--from train]

Prints a line for each stage that is to be started: its name, and ``--force`` behind it where it is done again.
"""

from __future__ import annotations

import argparse

from engine import results
from engine.command_line import add_configuration, read_command
from engine.config import Config
from engine.log import LOGGER
from engine.marks import CAPTION_STAGES, IMAGE_STAGE, STAGES, Mark


def outstanding(config: Config, start: str = "") -> list[tuple[str, bool]]:
    """Stages to be started, in order, each with whether it is done again; says which are finished.

    Args:
        start: the stage from which on everything is done again; empty: none.
    """
    first = STAGES.index(start) if start else len(STAGES)
    trained = "train" in STAGES[:first] and Mark.of("train", config).changes() is not None
    todo = [(stage, False) for stage in STAGES[:first] if not _is_done(stage, config, trained)]
    again = [stage for stage in STAGES[first:] if stage != IMAGE_STAGE or config.gen_images is not None]
    return todo + [(stage, True) for stage in again]


def _is_done(stage: str, config: Config, trained: bool) -> bool:
    """Whether a stage need not be started, and said so. One that is may still find that there is nothing to do."""
    if stage == "test":
        return trained and results.are_up_to_date(config)
    if stage == IMAGE_STAGE and config.gen_images is None:
        LOGGER.info("%s: not needed, the configuration asks for no synthetic images.", stage)
        return True
    if stage in CAPTION_STAGES and learns_no_real_image(stage, config):
        return True
    # Some methods learn texts in one fixed style, beside or instead of the sample's; which, the stage itself knows.
    if stage == CAPTION_STAGES[0] and not trained and Mark.of("fixed_captions", config).changes() is None:
        return False
    if Mark.of(stage, config).is_set(stage):
        return True
    if trained:
        LOGGER.info("%s: not needed, training is finished.", stage)
    return trained


def learns_no_real_image(stage: str, config: Config) -> bool:
    """True, and said so, where a stage that captions the data set's images has none to caption: training opens none."""
    if config.train.data != "synthetic":
        return False
    LOGGER.info("%s: not needed, training learns from synthetic images and the captions of these.", stage)
    return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.outstanding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_configuration(parser)
    parser.add_argument(
        "--from", default="", choices=STAGES, dest="start", help="do this stage and all after it again"
    )
    command = read_command(parser)
    for stage, again in outstanding(command.config, command.arguments.start):
        print(f"{stage} --force" if again else stage)


if __name__ == "__main__":
    main()
