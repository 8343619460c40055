"""A val split for data sets that come without one, made of identities of train."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from data.errors import UserError
from data.records import PedesDataset


def hold_out_identities(dataset: PedesDataset, count: int, seed: int) -> PedesDataset:
    """The data set with `count` identities of train, and all their images, as its val split.

    Which ones follows from the seed and each identity's number alone, not from the order or number of the others.

    Raises:
        UserError: a data set that has a val split, or fewer identities than would leave half of train.
    """
    if dataset.val:
        raise UserError(
            "This data set has a val split, which the best epoch is chosen on: set train.val_identities to 0."
        )
    identities = sorted({record.identity for record in dataset.train}, key=lambda one: _draw(seed, one))
    if 2 * count > len(identities):
        raise UserError(
            f"train.val_identities={count} would leave less than half of train's {len(identities)} identities: choose fewer."
        )
    held = set(identities[:count])
    return replace(
        dataset,
        train=[record for record in dataset.train if record.identity not in held],
        val=[record for record in dataset.train if record.identity in held],
    )


def _draw(seed: int, identity: int) -> bytes:
    return hashlib.blake2b(f"{seed} {identity}".encode(), digest_size=8).digest()
