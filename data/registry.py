"""Data sets by name: whatever class of a file in `data/` has a `name` and a `load` is registered."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
from types import ModuleType
from typing import ClassVar, Protocol

from data.records import PedesDataset


class Dataset(Protocol):
    """What a data set's class offers; `data.annotation.Annotation` is the base of those with an annotation file."""

    name: ClassVar[str]

    @classmethod
    def load(cls, root: str | os.PathLike[str]) -> PedesDataset:
        """Read it from the disk; UserError for everything that is missing or damaged."""


def find_datasets(package: ModuleType) -> dict[str, type[Dataset]]:
    """Every class with a `name` and a `load` that a module of the package defines, by name."""
    found: dict[str, type[Dataset]] = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        spec = info.module_finder.find_spec(info.name)
        if not _names_a_class(spec.loader.get_source(info.name) or "", spec.origin):
            continue
        module = importlib.import_module(info.name)
        for candidate in vars(module).values():
            if (
                isinstance(candidate, type)
                and candidate.__module__ == module.__name__
                and hasattr(candidate, "name")
                and hasattr(candidate, "load")
            ):
                found[candidate.name] = candidate
    return dict(sorted(found.items()))


def _names_a_class(source: str, origin: str) -> bool:
    """Whether a class in this source sets its `name`: importing all of them would bring torch into every command.

    Only what may do so is parsed; parsing everything would double the time that importing this package takes.
    """
    if not re.search(r"^\s+name(: .*)? = ", source, re.MULTILINE):
        return False
    classes = [node for node in ast.parse(source, origin).body if isinstance(node, ast.ClassDef)]
    return any(_assigned(statement) == "name" for node in classes for statement in node.body)


def _assigned(statement: ast.stmt) -> str | None:
    """The plain name that a statement gives a value."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target = statement.target
    elif isinstance(statement, ast.Assign):
        target = statement.targets[0]
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None
