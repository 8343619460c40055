"""Methods by name, and weights from one model to another.

A method is one file in `models/methods` (and its YAML): whatever class of that package has a `name` is registered. Its file
is imported when it is asked for: one method's backbone needs packages that take seconds to load and others do without.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections import ChainMap
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import Tensor

import models.methods
import models.untrained
from models.methods.base import Method


class ModelError(ValueError):
    """A method, an option or a set of weights that does not fit; the message says what to change."""


class Methods(Mapping[str, type[Method]]):
    """Every class with a `name` that a file of a package defines, by name.

    The names are read from the sources; a class comes with the import of its file.
    """

    def __init__(self, package: ModuleType) -> None:
        self._places: dict[str, tuple[str, str]] = {}  # name -> module, class
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            source = info.module_finder.find_spec(info.name).loader.get_source(info.name)
            for name, kind in _named_classes(source):
                self._places[name] = info.name, kind
        self._places = dict(sorted(self._places.items()))

    def __getitem__(self, name: str) -> type[Method]:
        module, kind = self._places[name]
        return getattr(importlib.import_module(module), kind)

    def __contains__(self, name: object) -> bool:
        return name in self._places  # without the import

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _named_classes(source: str) -> Iterator[tuple[str, str]]:
    """The names that classes of a module give themselves, as in `name = "pspd"`, each with its class."""
    for node in ast.parse(source).body:
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            match statement:
                case (
                    ast.Assign(targets=[ast.Name("name")], value=ast.Constant(str(name)))
                    | ast.AnnAssign(target=ast.Name("name"), value=ast.Constant(str(name)))
                ):
                    yield name, node.name


METHODS = Methods(models.methods)
# What a model can be of: a method, or a backbone that was not trained here.
KINDS: Mapping[str, type[Method]] = ChainMap(METHODS, Methods(models.untrained))


def build_model(method: str, **options: Any) -> Method:
    """The model of a method, freshly initialised.

    Args:
        method: a key of `KINDS`.
        options: of the backbone (size, image_size, tokenizer, dropout, ...) and of the method; see its class.

    Raises:
        ModelError: no such method, or an option that neither the method nor its backbone has.
    """
    check_options(method, options)
    return KINDS[method](**options)


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuses what is no option of a method or its backbone, and values that they know to be wrong, before anything is built.

    A method or a backbone that knows some has a class method `check_values(options)`, which raises ValueError.

    Raises:
        ModelError: no such method, or no such option; the message lists those that there are.
        ValueError: a value that can't be; the message says which can.
    """
    if method not in KINDS:
        raise ModelError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    known = _option_names(KINDS[method])
    unknown = sorted(set(options) - known)
    if unknown:
        raise ModelError(
            f"Method {method!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}."
        )
    for base in KINDS[method].__mro__:
        if "check_values" in vars(base):
            base.check_values(options)


def _option_names(kind: type[Method]) -> set[str]:
    """Keyword arguments of a class and of the bases it passes the rest of its arguments to."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"}
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return names


def load_weights(model: Method, state: Mapping[str, Tensor]) -> None:
    """Load the weights of a trained model of the same method, whole or not at all.

    Weights that belong to one round of training only (`Method.round_keys`, such as a classifier over that round's pseudo
    classes) are taken if they fit and left alone if not: retrieval does not use them.

    Raises:
        ModelError: keys are missing, unexpected or of another shape; the message names them.
    """
    own = model.state_dict()
    lasting = {key: value for key, value in state.items() if not _of_round(model, key)}
    missing = [key for key in own if key not in lasting and not _of_round(model, key)]
    unexpected = [key for key in lasting if key not in own]
    reshaped = [
        f"{key} is {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in lasting.items()
        if key in own and own[key].shape != value.shape
    ]
    if missing or unexpected or reshaped:
        differences = [
            _listed(verb, keys)
            for verb, keys in (("it lacks", missing), ("it has extra", unexpected))
            if keys
        ]
        raise ModelError(
            f"The checkpoint is not one of a {model.name!r} model with these options: "
            f"{'; '.join(differences + reshaped[:3])}. "
            "Use the method, size, image size and vocabulary that it was trained with."
        )
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)


def _of_round(model: Method, key: str) -> bool:
    return key.startswith(model.round_keys)


def _listed(verb: str, keys: list[str]) -> str:
    """Keys by module, so that a whole head is one entry and not a screenful."""
    modules: dict[str, list[str]] = {}
    for key in keys:
        modules.setdefault(key.split(".")[0], []).append(key)
    entries = [
        members[0] if len(members) == 1 else f"{module}.* ({len(members)} tensors)"
        for module, members in modules.items()
    ]
    return f"{verb} {', '.join(entries)}"
