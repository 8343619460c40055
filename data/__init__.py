"""Datasets on disk, and the views and pixels that the rest of the project takes from them."""

from __future__ import annotations

import os
import sys

from data.errors import UserError
from data.records import PedesDataset, Record
from data.registry import find_datasets

DATASETS = find_datasets(sys.modules[__name__])

__all__ = ["DATASETS", "PedesDataset", "Record", "UserError", "load_dataset"]


def load_dataset(name: str, root: str | os.PathLike[str]) -> PedesDataset:
    """Read the dataset `name` (a key of `DATASETS`).

    `root` is the folder that holds the dataset's folder, or that folder itself; for `folder` the directory of crops.
    Raises UserError for an unknown name and for everything that is missing or damaged; image files are not opened
    (`python -m data.validate` does that).
    """
    if name not in DATASETS:
        raise UserError(f"There is no dataset {name!r}: set dataset.name to one of {', '.join(DATASETS)}.")
    return DATASETS[name].load(root)
