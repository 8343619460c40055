"""What the fields of a section take, read from their annotations."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel


def takes_more(model: type[BaseModel]) -> bool:
    """Whether a section takes keys that it does not name."""
    return model.model_config.get("extra") == "allow"


def _annotation_of(model: type[BaseModel] | None, key: str) -> Any:
    """What a field takes; None for free keys."""
    field = None if model is None else model.model_fields.get(key)
    return None if field is None else field.annotation


def holds_keys_only(model: type[BaseModel] | None, key: str) -> bool:
    """True for a field that is a section or free keys and can't be None."""
    annotation = _annotation_of(model, key)
    return get_origin(annotation) is dict or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def takes_text(model: type[BaseModel], key: str) -> bool:
    """True for a field that may be a text in the place of a section."""
    return str in get_args(model.model_fields[key].annotation)


def section_of(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The section class behind a field (also behind ``Section | None``), or None for plain values."""
    annotation = _annotation_of(model, key)
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def known_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a section and of those in it, with dots, as ``train.warm_up.max_epoch``."""
    paths = []
    for name in model.model_fields:
        paths.append(prefix + name)
        section = section_of(model, name)
        if section is not None:
            paths.extend(known_paths(section, f"{prefix}{name}."))
    return paths
