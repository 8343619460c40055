"""What a check of a data set found, as one sentence each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to know: an `error` makes the set unusable, a `warning` makes results differ, a `note` is for reading."""

    level: Level
    text: str
