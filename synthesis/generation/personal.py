"""What a personalised diffusion model was made from: a small record beside its weights, and what it may be used for.

none   the plain model: no data of anybody's
few    DreamBooth on the images of a few identities, without captions; the record says which
all    adapters and two new words, learned from all training images with their real captions: never "synthetic only"
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data.errors import UserError

RECORD = "personal.json"
NONE, FEW, ALL = SCENARIOS = ("none", "few", "all")
IDENTIFIER = "sks person"  # few: what the model calls the people that it has seen
NEW_WORDS = ("<s0>", "<s1>")  # all: what it learned the data set's look as
STYLE = f"in the style of {''.join(NEW_WORDS)}, "


@dataclass(frozen=True)
class Personalisation:
    """What a model was personalised with.

    Attributes:
        scenario: "few" or "all".
        base: the model that it started from, by its name on a hub or its folder's.
        dataset: whose training images it has seen.
        identities: of these images, in ascending order; all of the data set's in the scenario "all".
        images: how many there were.
        reads_real_captions: whether it has seen captions that people wrote.
        steps: of the training.
        seed: of the run.
    """

    scenario: str
    base: str
    dataset: str
    identities: tuple[int, ...]
    images: int
    reads_real_captions: bool
    steps: int
    seed: int


def write_record(folder: Path, record: Personalisation) -> None:
    """Lay the record beside the weights in a folder."""
    (folder / RECORD).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def read_record(folder: str | Path) -> Personalisation | None:
    """What the weights in a folder were personalised with; None for a plain model.

    Raises:
        UserError: a record that can't be understood, so that nobody knows what the weights have seen.
    """
    path = Path(folder) / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Personalisation)}
        record = Personalisation(
            **{name: value for name, value in content.items() if name in known}
            | {"identities": tuple(content["identities"])}
        )
        if record.scenario not in (FEW, ALL) or not isinstance(record.reads_real_captions, bool):
            raise ValueError(record.scenario)
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} does not say what these weights have seen: personalise again, or restore the file."
        ) from None


def check_scenario(wanted: str, folder: str | Path) -> Personalisation | None:
    """The record of the weights in a folder, if they are those of the scenario that was asked for.

    Raises:
        UserError: weights of another scenario, or a scenario that there is none of.
    """
    if wanted not in SCENARIOS:
        raise UserError(f"There is no scenario {wanted!r}: choose one of {', '.join(SCENARIOS)}.")
    record = read_record(folder)
    found = record.scenario if record else NONE
    if found != wanted:
        remedy = (
            "name the plain model"
            if wanted == NONE
            else f"make such weights with python -m engine.personalisation --set personalise.scenario={wanted}"
        )
        raise UserError(
            f"The scenario '{wanted}' is asked for, and {folder} holds weights of '{found}': {remedy}."
        )
    return record
