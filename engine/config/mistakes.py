"""What is told about a configuration that can't be used: which setting, where it stands, what it should be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from data.errors import UserError
from engine.config.fields import known_paths
from engine.config.root import Config


class ConfigError(UserError):
    """A configuration that can't be used; the message names the file, the key and the remedy."""


def unknown_key(key: str, prefix: str, model: type[BaseModel], place: str) -> str:
    """What a key that ``model`` does not have was probably meant to be: one of its keys, or one of another section."""
    nearest = difflib.get_close_matches(key, list(model.model_fields), n=1, cutoff=0.5)
    if nearest:
        hint = f"did you mean '{prefix}{nearest[0]}'?"
    else:
        elsewhere = [path for path in known_paths(Config) if path.split(".")[-1] == key]
        here = ", ".join(sorted(model.model_fields))
        hint = f"did you mean '{elsewhere[0]}'?" if elsewhere else f"known here: {here}."
    return f"Unknown key '{prefix}{key}' ({place}): {hint}"


def first_problem(error: ValidationError, origins: Mapping[str, str]) -> str:
    """The first setting that is wrong: its value, where it stands, and what it should be."""
    problems = error.errors()
    path = _written_path(problems[0], origins)
    if not path:
        return f"'{'.'.join(map(str, problems[0]['loc']))}': {problems[0]['msg']}."
    # A setting of several kinds ("auto" or a number) has one problem for each of them.
    wanted = [_message(problem) for problem in problems if _written_path(problem, origins) == path]
    message = " or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in wanted))
    return f"'{path}' ({origins[path]}) has the value {problems[0]['input']!r:.80}: {message}."


def _message(problem: Mapping[str, Any]) -> str:
    """What is wrong; of a check of our own what it says, without pydantic's "Value error" before it."""
    return str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]


def _written_path(problem: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The longest part of a problem's path that somebody wrote; empty where nobody did."""
    path = ""
    for part in problem["loc"]:  # which of several kinds a setting is taken for stands among the keys
        longer = f"{path}.{part}".strip(".")
        path = longer if longer in origins else path
    return path
