"""YAML files merged left to right, then ``--set a.b=c``, then validated; and writing the result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from engine.config.fields import holds_keys_only, section_of, takes_more, takes_text
from engine.config.mistakes import ConfigError, first_problem, unknown_key
from engine.config.root import Config

# ruamel reports most mistakes as YAMLError, and lets what its constructors raise on odd scalars through.
_NOT_YAML = (
    YAMLError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RecursionError,
)


def load_config(paths: str | Path | Iterable[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Read and merge YAML files, apply ``key.path=value`` overrides, and validate.

    Args:
        paths: one file or several; later files win, key by key.
        overrides: strings such as ``"train.max_epoch=3"``; values are read as YAML.

    Raises:
        ConfigError: a file that is missing or not YAML, an unknown key, a value of the wrong kind.
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in files:
        _merge_source(merged, _read_yaml(Path(file)), str(file), origins)
    for override in overrides:
        _merge_source(merged, _parse_override(override), f"--set {override}", origins)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(first_problem(error, origins)) from None


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML, so that a result can be run again from its own folder."""
    yaml = YAML()
    yaml.default_flow_style = False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        yaml.dump(config.model_dump(mode="json"), stream)
    temporary.replace(path)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(known)}" if known else ""
        raise ConfigError(f"The configuration file {path} does not exist{hint}.") from None
    except OSError as error:
        raise ConfigError(f"The configuration file {path} can't be read: {error.strerror}.") from None
    except _NOT_YAML as error:
        raise ConfigError(f"{path} is not readable as YAML: {_reason(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} must hold sections such as 'dataset:' and 'train:', not {content!r:.60}.")
    return content


def _reason(error: Exception) -> str:
    """A parser's complaint in one line, without the advice that it gives to programmers."""
    return " ".join(str(error).split("To suppress this check")[0].split())


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set needs KEY=VALUE such as train.max_epoch=3, not {text!r}.")
    try:
        content: Any = YAML(typ="safe", pure=True).load(value)
    except _NOT_YAML as error:
        raise ConfigError(
            f"The value in --set {text!r:.200} is not valid YAML: quote it ({_reason(error):.200})."
        ) from None
    for part in reversed(parts):
        content = {part: content}
    return content


def _merge_source(
    merged: dict[str, Any], source: Mapping[str, Any], origin: str, origins: dict[str, str]
) -> None:
    try:
        _merge(merged, source, Config, origin, origins)
    except RecursionError:
        raise ConfigError(
            f"{origin:.200} is nested too deeply, or an alias in it refers to itself."
        ) from None


def _merge(
    target: dict[str, Any],
    source: Mapping[str, Any],
    model: type[BaseModel] | None,
    origin: str,
    origins: dict[str, str],
    prefix: str = "",
) -> None:
    """Merge ``source`` into ``target`` in place, refusing keys that ``model`` (None: free keys) does not have."""
    for key, value in source.items():
        path = f"{prefix}{key}"
        place = _place(source, key, origin)
        if model is not None and key not in model.model_fields and not takes_more(model):
            raise ConfigError(unknown_key(str(key), prefix, model, place))
        section = section_of(model, key)
        if isinstance(value, Mapping):
            slot = target.setdefault(str(key), {})
            if not isinstance(slot, dict):
                slot = target[str(key)] = {}
            _merge(slot, value, section, origin, origins, f"{path}.")
        elif value is None and holds_keys_only(model, key):
            continue  # a section whose lines are all commented out
        elif section is not None and value is not None and not takes_text(model, key):
            raise ConfigError(
                f"'{path}' ({place}) is a section and takes keys such as '{path}.{next(iter(section.model_fields))}', "
                f"not {value!r:.60}."
            )
        else:
            target[str(key)] = _plain(value, f"'{path}' ({place})")
        origins[path] = place


def _plain(value: Any, place: str) -> Any:
    """ruamel's round-trip types as plain Python; what a saved configuration could not hold is refused."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, place) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place} has the value {value!r}: give a finite number.")
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, ScalarBoolean):
        return bool(value)
    raise ConfigError(
        f"{place} has a value of the kind {type(value).__name__}, which no setting takes: quote it to make it a text."
    )


def _place(source: Mapping[str, Any], key: Any, origin: str) -> str:
    position = getattr(source, "lc", None)
    try:
        return f"{origin}, line {position.key(key)[0] + 1}" if position is not None else origin
    except (KeyError, TypeError, AttributeError):
        return origin
