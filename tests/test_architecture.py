"""The directions of imports (docs/architecture.md), read from the source of every room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ALLOWED: dict[str, set[str]] = {  # room -> what it may import: a room, or one module of it
    "scripts": {"engine", "serving"},
    "serving": {"engine", "data", "retrieval"},
    "engine": {"models", "data", "captioning", "clustering", "retrieval", "synthesis"},
    "models": {"losses"},
    "losses": set(),
    "data": set(),
    "clustering": set(),
    "captioning": {"data.errors"},
    "retrieval": {"data.errors"},
    "synthesis": {"data.errors", "captioning"},
}
ROOMS = [room for room in ALLOWED if room != "scripts"]
OUTSIDE = {"tests", "benchmarks", "scripts"}  # may import any room; no room may import them
STAGES = ["gen_images.py", "gen_pre_train_text.py", "pre_train.py", "gen_text.py", "train.py", "test.py"]
ENTRY_SCRIPTS = sorted(path.name for path in REPOSITORY.glob("*.py") if path.name != "hubconf.py")
TORCH_FREE = ("torch", "torchvision", "timm", "transformers")


def imported_modules(source: str, package: str, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import in a module of `package`, also those inside functions unless `top_level`.

    `from a import b` gives `a.b`, since b may be a module; `importlib.import_module` counts with the literal start of
    its argument.
    """
    tree = ast.parse(source)
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{start}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and "import_module" in ast.unparse(node.func):
            argument = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value, node.lineno


def violations(source: str, room: str, package: str = "") -> list[str]:
    """The imports of a module of `room` that its room must not have, as "line N: name"."""
    found = []
    for name, line in imported_modules(source, package or room):
        target = name.split(".")[0]
        if target == room or target not in {*ROOMS, *OUTSIDE}:
            continue
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[room]):
            found.append(f"line {line}: {name}")
    return found


def modules(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_arrows_allow(room: str) -> None:
    assert modules(room), f"the room {room}/ has no module"
    wrong = {}
    for path in modules(room):
        package = ".".join(path.relative_to(REPOSITORY).parent.parts)
        if found := violations(path.read_text("utf-8"), room, package):
            wrong[str(path.relative_to(REPOSITORY))] = found
    assert not wrong


def test_backbones_know_no_method() -> None:
    for path in modules("models/backbones"):
        names = [name for name, _ in imported_modules(path.read_text("utf-8"), "models.backbones")]
        assert not [name for name in names if name.startswith("models.methods")], path


@pytest.mark.parametrize("script", ENTRY_SCRIPTS)
def test_entry_scripts_parse_and_call(script: str) -> None:
    source = (REPOSITORY / script).read_text("utf-8")
    assert not violations(source, "scripts")
    top = {name.split(".")[0] for name, _ in imported_modules(source, "", top_level=True)}
    assert top <= {"engine", "serving", "__future__"}
    assert len(source.splitlines()) < 40


@pytest.mark.parametrize("script", ["hubconf.py", "serving/isolation.py"])
def test_what_foreign_programs_load_imports_no_room(script: str) -> None:
    names = {name for name, _ in imported_modules((REPOSITORY / script).read_text("utf-8"), "")}
    assert not {name.split(".")[0] for name in names} & {*ROOMS, *OUTSIDE}


def test_isolation_knows_every_room() -> None:
    from serving.isolation import ROOMS as isolated

    assert sorted(isolated) == sorted(ROOMS)


def test_the_stages_are_there_and_in_the_order_of_train_bash() -> None:
    assert set(STAGES) <= set(ENTRY_SCRIPTS)
    launcher = (REPOSITORY / "train.bash").read_text("utf-8")
    assert f"STAGES=({' '.join(stage.removesuffix('.py') for stage in STAGES)})" in launcher


def test_reading_a_dataset_needs_no_torch() -> None:
    pixels = {"augmentations.py", "buffers.py", "transforms.py", "views.py"}
    for path in modules("data"):
        if path.name not in pixels:
            names = [name for name, _ in imported_modules(path.read_text("utf-8"), "data", top_level=True)]
            assert not [name for name in names if name.split(".")[0] in TORCH_FREE], path


def test_the_page_and_the_picture_name_every_room() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text("utf-8")
    picture = (REPOSITORY / "docs/images/architecture.svg").read_text("utf-8")
    for room in ROOMS:
        assert f"`{room}/`" in page
        assert f">{room}</text>" in picture


def test_no_package_of_code_lies_outside_the_rooms() -> None:
    known = {*ROOMS, "tests", "benchmarks", "scripts"}
    data_only = {"checkpoint", "datasets", "pre_gen_data", "output"}
    for folder in REPOSITORY.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in known | data_only:
            # Programs of others' that use an exported model: they import nothing of ours.
            code = [path for path in folder.rglob("*.py") if path.parent != REPOSITORY / "docs" / "examples"]
            assert not code, f"{folder.name}/ holds code but is no room of the architecture"
    for name in data_only:
        assert not (REPOSITORY / name / "__init__.py").exists()


@pytest.mark.parametrize(
    ("room", "source", "expected"),
    [
        ("losses", "import models", ["line 1: models"]),
        ("losses", "from models.world import World", ["line 1: models.world.World"]),
        ("models", "import torch\nfrom engine import config", ["line 2: engine.config"]),
        ("models", "from losses.ndf import ndf_loss", []),
        ("engine", "from losses.ndf import ndf_loss", ["line 1: losses.ndf.ndf_loss"]),
        ("engine", "import train\nfrom models import build_model", []),
        ("serving", "from engine.stage import choose_device\nfrom models import build_model", ["line 2: models.build_model"]),
        ("engine", "from serving.index import SearchIndex", ["line 1: serving.index.SearchIndex"]),
        ("retrieval", "from data.errors import UserError", []),
        ("retrieval", "from data import UserError", ["line 1: data.UserError"]),
        ("captioning", "from data.errors_elsewhere import X", ["line 1: data.errors_elsewhere.X"]),
        ("data", "def f():\n    from captioning.store import CaptionStore", ["line 2: captioning.store.CaptionStore"]),
        ("clustering", "import importlib\nimportlib.import_module(f'engine.{name}')", ["line 2: engine."]),
        ("scripts", "from models import build_model", ["line 1: models.build_model"]),
        ("synthesis", "from tests.conftest import people", ["line 1: tests.conftest.people"]),
    ],
)  # fmt: skip
def test_a_violation_is_found(room: str, source: str, expected: list[str]) -> None:
    assert violations(source, room) == expected


def test_relative_imports_are_followed() -> None:
    assert [name for name, _ in imported_modules("from . import a", "data.sets")] == ["data.sets.a"]
    assert [name for name, _ in imported_modules("from ..engine import a", "models.methods")] == [
        "models.engine.a"
    ]
    assert violations("from ...engine import a", "models", "models.methods.deep") == []
    assert violations("from ..engine import a", "models", "models") == ["line 1: engine.a"]
