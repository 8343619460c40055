"""What a backbone says about tensors that it recognises as its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Released:
    """How to build the model of released weights: its backbone's name, size and options, and (height, width) in pixels."""

    backbone: str
    size: str
    options: dict[str, Any]
    image_size: tuple[int, int]


def layers(names: Iterable[str], prefix: str) -> int:
    """How many numbered layers have names that begin so."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    return len({found[1] for found in map(pattern.match, names) if found})
