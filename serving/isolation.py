"""The project's rooms under a name of their own, for programs that have packages called `data` or `models` themselves.

The rooms import each other by short names, which belong to the scripts' own world. Here they are loaded as
`person_search_rooms.data`, `person_search_rooms.models` and so on: every module gets an `__import__` that turns the short names of
rooms into these, so that imports inside functions, which come later, find their way, too. `sys.path` and what others have
imported stay as they are. This file imports no room: `hubconf.py` loads it by its path.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "person_search_rooms"
ROOMS = (
    "captioning",
    "clustering",
    "data",
    "engine",
    "losses",
    "models",
    "retrieval",
    "serving",
    "synthesis",
)


def room_module(root: Path, name: str) -> ModuleType:
    """A module of a room, such as "serving.person_search", of the project at `root`.

    Raises ValueError where rooms of another copy of the project have been loaded in this process.
    """
    place = str(root.resolve())
    package = sys.modules.get(NAME)
    if package is None:
        package = ModuleType(NAME)
        package.__path__ = [place]
        sys.modules[NAME] = package
        sys.meta_path.insert(0, _Finder())
    elif list(package.__path__) != [place]:
        raise ValueError(
            f"This process has loaded the project from {package.__path__[0]} already: start another for {place}."
        )
    return importlib.import_module(f"{NAME}.{name}")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules below `NAME`, and nothing else."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parts = name.split(".")
        if parts[0] != NAME or len(parts) < 2 or parts[1] not in ROOMS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module with builtins whose `__import__` knows the rooms by their long names. Functions keep their module's."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` for modules of rooms."""
    if level or name.split(".")[0] not in ROOMS:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    found = builtins.__import__(f"{NAME}.{name}", globals, locals, fromlist or (), 0)
    # `import a.b` binds a, which is here the room and not the package that holds all of them.
    return found if fromlist else sys.modules[f"{NAME}.{name.split('.')[0]}"]
