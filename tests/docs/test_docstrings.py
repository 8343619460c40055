"""The argument lists of docstrings are compared with the signatures: what is described exists, once."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import pytest

from tests.pipeline.mini import ROOT

ROOMS = [
    "engine",
    "models",
    "losses",
    "data",
    "captioning",
    "clustering",
    "retrieval",
    "serving",
    "synthesis",
    "benchmarks",
]
Described = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
ENTRY = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*):")


def described(text: str) -> list[str] | None:
    """The names that a docstring's "Args:" describes, one entry each with deeper lines for the rest; None where it has none.

    Raises:
        ValueError: something else than entries stands there.
    """
    lines = inspect.cleandoc(text).splitlines()
    start = next((number for number, line in enumerate(lines) if re.match(r" *Args:", line)), None)
    if start is None:
        return None
    end = next((n for n in range(start + 1, len(lines)) if not lines[n].strip()), len(lines))
    if lines[start].strip() != "Args:" or end == start + 1:
        raise ValueError('"Args:" stands alone, with an entry per argument below it')
    depth = min(len(line) - len(line.lstrip()) for line in lines[start + 1 : end])
    entries = [line.strip() for line in lines[start + 1 : end] if len(line) - len(line.lstrip()) == depth]
    names: list[str] = []
    for entry in entries:
        match = ENTRY.match(entry)
        if not match:
            raise ValueError(f"this is no entry of a list of arguments: {entry!r}")
        names += [name.lstrip("*") for name in match[1].split(", ")]
    return names


def parameters(node: Described) -> list[str]:
    """The names that a function takes, or a class: those of its constructor, or a data class's fields."""
    if isinstance(node, ast.ClassDef):
        own = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
        if "__init__" in own:
            return parameters(own["__init__"])[1:]
        return [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)]
    given = node.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [argument.arg for argument in every if argument is not None]


def mistakes(source: str) -> Iterator[str]:
    """What a module's docstrings say of arguments that is not so, as "line N, name: ..."."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, Described) or not (text := ast.get_docstring(node)):
            continue
        where = f"line {node.lineno}, {node.name}"
        try:
            names = described(text)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        if names is None:
            continue
        known = parameters(node)
        if unknown := [name for name in names if name not in known]:
            yield f"{where}: there is no {', '.join(unknown)}; it takes {', '.join(known)}"
        elif len(set(names)) < len(names):
            yield f"{where}: an argument is described twice"


@pytest.mark.parametrize("room", ROOMS)
def test_what_docstrings_say_of_arguments_is_so(room: str) -> None:
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths
    found = [
        f"{path.relative_to(ROOT)}, {line}" for path in paths for line in mistakes(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_most_rooms_describe_arguments() -> None:
    """Or the search above finds none, and passes for that."""
    texts = (path.read_text("utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    lists = [
        described(text)
        for source in texts
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Described) and (text := ast.get_docstring(node))
    ]
    assert sum(names is not None for names in lists) > 80


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Args:\n        a: one\n            a line more: of it\n        b, *c: two\n\n    Raises:\n        E: never", []),
        ("Args: `a` (B, F), larger is better; `b` and `c` (B,) are given.", ['"Args:" stands alone']),
        ("Args:\n        a: one\n        d: gone", ["there is no d; it takes a, b, c"]),
        ("Args:\n        b, a: two\n        a: one", ["described twice"]),
        ("Args:\n        all of them are numbers\n", ["this is no entry of a list of arguments"]),
        ("Nothing about them.", []),
    ],
)  # fmt: skip
def test_a_wrong_list_is_found(docstring: str, expected: list[str]) -> None:
    source = f'def f(a, b, *c):\n    """Text.\n\n    {docstring}\n    """\n'
    found = list(mistakes(source))
    assert len(found) == len(expected)
    assert all(words in line for words, line in zip(expected, found, strict=True))
    assert not list(
        mistakes('class A:\n    """Text.\n\n    Args:\n        a: one\n    """\n    a: int = 0\n')
    )
