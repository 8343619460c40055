"""What docs/guarantees.md says can be relied on names tests, and these exist and are collected under these names."""

from __future__ import annotations

import ast
import re

from tests.pipeline.mini import ROOT


def promises() -> list[str]:
    """The rows of the page's table."""
    page = (ROOT / "docs/guarantees.md").read_text("utf-8")
    return [line for line in page.splitlines() if line.startswith("| ")][1:]


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test_that_exists():
    rows = promises()
    assert len(rows) > 8
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, test in named:
            assert test.startswith("test_")
            assert test in functions_of(path), f"{path}::{test}"
