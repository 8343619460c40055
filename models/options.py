"""Checks that options of several methods and backbones share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def check_switch(options: Mapping[str, Any], name: str) -> None:
    """Refuses what is neither true nor false, where the option is given. Raises ValueError."""
    if not isinstance(options.get(name, True), bool):
        raise ValueError(f"{name} is {options[name]!r}: it is true or false")


def check_choice(options: Mapping[str, Any], name: str, choices: Collection[str]) -> None:
    """Refuses what is none of the choices, where the option is given. Raises ValueError."""
    if name in options and options[name] not in choices:
        raise ValueError(f"{name} is {options[name]!r}: choose {' or '.join(choices)}")
