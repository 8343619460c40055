"""Variations of a synthetic data set for comparisons: some captions on the wrong people, or no edited images.

A variation is a folder of its own with another `synthetic.json`; its images are the first set's, by one link.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.annotation import read_json_list
from data.errors import UserError
from data.synthetic import Synthetic
from engine.seeds import seed_of
from retrieval.results import write_atomically

Record = dict[str, Any]


def swapped(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """The records with a share of their captions, chosen at random, each on an image of another identity.

    These captions change places among each other, so that no sentence is lost or comes twice; all others stay.

    Raises:
        ValueError: one identity has more than half of the chosen captions, so that there are too few others.
    """
    places = [
        (row, number) for row, record in enumerate(records) for number in range(len(record["captions"]))
    ]
    rng = np.random.default_rng(seed_of(seed, "swapped captions"))
    chosen = rng.permutation(len(places))[: round(share * len(places))]
    identities = np.asarray([records[places[i][0]]["id"] for i in chosen], dtype=np.int64)
    # Identities side by side, in a random order: a step as long as the largest of them leads to another one everywhere.
    _, number, sizes = np.unique(identities, return_inverse=True, return_counts=True)
    order = chosen[np.argsort(rng.permutation(len(sizes))[number], kind="stable")]
    step = sizes.max(initial=0)
    if 2 * step > len(order):
        raise ValueError(f"{len(order)} captions can't all go to other people: {step} of them are of one.")
    result = [{**record, "captions": list(record["captions"])} for record in records]
    for to, source in zip(order, np.roll(order, -step), strict=True):
        (row, column), (other, other_column) = places[to], places[source]
        result[row]["captions"][column] = records[other]["captions"][other_column]
    return result


def without_edits(records: Sequence[Record]) -> list[Record]:
    """The images as they were generated; the place of each one that an editor made is taken by the pair that it was made from.

    So there are as many pairs, and steps, as with the edits. An edit whose image is not in the set is left out.

    Args:
        records: each image followed by its edits, as `gen_images.py` writes them.
    """
    kept: list[Record] = []
    for record in records:
        if not record.get("edit"):
            kept.append({**record, "captions": list(record["captions"])})
        elif kept and kept[-1]["id"] == record["id"]:
            kept[-1]["captions"].append(kept[-1]["captions"][0])
    return kept


def write_variation(source: Path, target: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    """A set beside `source` with changed records; one that is there and says the same is left alone.

    Raises:
        UserError: there is no set at `source`.
    """
    folder = Synthetic.find_folder(source)
    text = json.dumps(change(read_json_list(Synthetic.find_annotation(folder))))
    target.mkdir(parents=True, exist_ok=True)
    images, annotation = target / Synthetic.images, target / Synthetic.files[0]
    wanted = (folder / Synthetic.images).resolve()
    if images.is_symlink() and images.resolve() != wanted:
        raise UserError(f"{target} was made of another set ({images.resolve().parent}): remove it.")
    if not images.is_symlink():
        images.symlink_to(wanted, target_is_directory=True)
    if not annotation.is_file() or annotation.read_text("utf-8") != text:
        write_atomically(annotation, text)
