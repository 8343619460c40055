"""What pages tell a reader to type: their fenced blocks and inline commands, and whether the project understands them.

Every command is read by what would read it: the scripts' own argument parsers, `load_config`, `train.bash --dry-run`. A
block or a command that this file does not know how to check is a mistake of the page.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from captioning.backends import BACKENDS
from engine.config import Config, load_config, save_config
from tests.pipeline.mini import ROOT

LANGUAGES = {"", "bash", "python", "yaml", "text"}  # a block without a language holds commands
INLINE = re.compile(r"(?:[A-Z_]+=\S+ )*(?:bash|python|torchrun|sbatch|pip|git) ")
ASSIGNMENT = re.compile(r"[A-Z_]+=")
EXAMPLE = re.compile(r"# ([\w-]+\.yaml)$")  # the first line of a YAML block that commands of the page name
OWN_READERS = {"scripts/packages.py"}  # scripts without argparse: before any package is there
HARMLESS = {"cd", "ln"}  # nothing of the project is in them


class PageError(AssertionError):
    """A block or a command that does not work, or that nobody knows how to check."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line it begins in, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """Its commands, one per line; comments are left out."""
        lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page.

    Raises:
        PageError: a fence that is not closed, or a language that nobody checks.
    """
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```(\S*)", line)
        if fence and opened is None:
            opened = number, fence[1]
            lines: list[str] = []
        elif fence:
            found.append(Block(page, *opened, "\n".join(lines)))
            opened = None
        elif opened:
            lines.append(line)
    if opened:
        raise PageError(f"{page}:{opened[0]}: this block is not closed")
    for block in found:
        if block.language not in LANGUAGES:
            raise PageError(f"{page}:{block.line}: nobody knows how to check a block of {block.language!r}")
    return found


def inline_commands(text: str) -> list[str]:
    """Commands between backquotes, once each; the mere name of a script is none."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return list(dict.fromkeys(code for code in re.findall(r"`([^`\n]+)`", prose) if INLINE.match(code)))


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command sets, and its words."""
    words = shlex.split(command.replace("<run>", "RUN"))
    count = next((i for i, word in enumerate(words) if not ASSIGNMENT.match(word)), len(words))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


class Parsed(BaseException):
    """Raised in the place of a command's work, with what its parser has read."""


def parsed(words: list[str], folder: Path) -> argparse.Namespace:
    """What a Python command's own parser reads: the command runs up to there, in `folder`.

    Args:
        words: a script of the repository and its arguments, or `-m`, a module and its arguments.

    Raises:
        PageError: there is no such script or module, or the parser refuses.
    """
    module = words[0] == "-m"
    name, arguments = (words[1], words[2:]) if module else (words[0], words[1:])
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py") if module else ROOT / name
    if not path.is_file():
        raise PageError(f"there is no {path.relative_to(ROOT)}")
    if not re.search(
        r"parse_args|_parser\(|command_line import|study_command\.main\(", path.read_text("utf-8")
    ):
        raise PageError(f"{name} has no parser, so it would be run: add it to OWN_READERS")
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        raise Parsed(original(parser, *arguments, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.chdir(folder)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except Parsed as found:
            return found.args[0]
        except SystemExit as end:
            if end.code == 0 and "--help" in arguments:
                return argparse.Namespace()
            raise PageError(f"its parser ends with {end.code}") from None
    raise PageError("it read no arguments")


def bash(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """A bash command in `folder`, with the Python of the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {name: value for name, value in os.environ.items() if name != "PSPD_VENV"}
    return subprocess.run(
        ["bash", *words],
        cwd=folder,
        env={**known, "PATH": path, "OMP_NUM_THREADS": "1", "NPROC": "1", **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )


def make_clone(folder: Path) -> Path:
    """The repository's files without its history, as a clone would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:  # an exported copy
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        return folder
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


class Checker:
    """Checks commands in a clone of the repository; nothing of them is done.

    Args:
        clone: of `make_clone`; configurations that a page shows are written into it.
    """

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        save_config(Config(), clone / "output" / "RUN" / "config.yaml")

    def prepare(self, blocks: list[Block]) -> None:
        """Put the page's configurations where its commands look for them; empty ones where another page has them."""
        for name in ("my.yaml", "crops.yaml"):
            (self.clone / name).write_text("", "utf-8")
        for block in blocks:
            example = EXAMPLE.match(block.text.splitlines()[0]) if block.language == "yaml" else None
            if example:
                (self.clone / example[1]).write_text(block.text, "utf-8")

    def check(self, command: str) -> None:
        """Whether the project takes a command.

        Raises:
            PageError: it does not, or nobody knows.
        """
        environment, words = words_of(command)
        try:
            self._check(words, environment)
        except (PageError, ValueError) as error:
            raise PageError(f"{command}: {error}") from None

    def _check(self, words: list[str], environment: dict[str, str]) -> None:
        match words:
            case [head, *_] if head in HARMLESS:
                pass
            case ["git", "clone" | "worktree" | "tag" | "push", *_]:
                pass
            case ["pip", "install", "-r", name]:
                self._need(name)
            case ["bash", "train.bash", *rest]:
                self._bash("train.bash", *rest, "--dry-run", **environment)
            case ["sbatch", *rest] if "scripts/slurm.sbatch" in rest:
                place = rest.index("scripts/slurm.sbatch") + 1
                self._bash("train.bash", *rest[place:], "--dry-run")
            case ["bash", "eval.bash", *rest]:
                self._evaluation(rest)
            case ["bash", "benchmarks/run.bash", *names]:
                # It looks at all names before it begins: the first that it does not know has to be ours.
                done = bash(self.clone, "benchmarks/run.bash", *names, "no-such-benchmark")
                if "There is no benchmark 'no-such-benchmark'" not in done.stderr:
                    raise PageError(done.stderr)
            case ["bash", "run_tests.bash", *rest]:
                self._need("run_tests.bash")
                done = self._python("-m", "pytest", "--collect-only", "-qq", *rest, str(ROOT / "tests/docs"))
                if done.returncode not in (0, 5):  # 5: nothing chosen here
                    raise PageError(done.stdout + done.stderr)
            case ["torchrun", "--nproc-per-node", number, *rest] if number.isdigit():
                self._stage(rest)
            case ["python", "-c", *_]:
                raise PageError("a program between quotes is not checked: make it a block of python")
            case ["python", name, *rest] if name in OWN_READERS:
                self._need(name)
                source = (self.clone / name).read_text("utf-8")
                asked = rest[: rest.index(">")] if ">" in rest else rest
                if unknown := [
                    w
                    for w in asked
                    if not re.search(rf"\b{re.escape(w)}\b", source) and not (self.clone / w).exists()
                ]:
                    raise PageError(f"{name} knows no {', '.join(unknown)}")
            case ["python", *rest]:
                self._stage(rest)
            case _:
                raise PageError("nobody knows how to check this command")

    def _stage(self, words: list[str]) -> None:
        """A Python command; where it takes a configuration, that is read, too."""
        found = parsed(words, self.clone)
        settings = getattr(found, "overrides", None) or getattr(found, "set", None) or []
        files = getattr(found, "config", None) or []
        self._load(files if isinstance(files, list) else [files], settings)

    def _load(self, files: list[Any], settings: list[str]) -> None:
        load_config([self.clone / file for file in files], settings)

    def _evaluation(self, words: list[str]) -> None:
        """eval.bash, as its own functions read the words, and then test.py's parser what they leave."""
        script = 'source scripts/launch.bash; read_target "$@"; take_seeds; printf "%s\\n" "${CONFIGS[@]}" "${REST[@]}"'
        done = bash(self.clone, "-euo", "pipefail", "-c", script, "eval.bash", *words)
        if done.returncode:
            raise PageError(done.stderr)
        self._stage(["test.py", "--config", *done.stdout.split()])

    def _bash(self, *words: str, **environment: str) -> None:
        done = bash(self.clone, *words, **environment)
        if done.returncode:
            raise PageError(done.stderr)

    def _python(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)

    def _need(self, name: str) -> None:
        if not (self.clone / name).is_file():
            raise PageError(f"there is no {name}")

    def check_yaml(self, block: Block) -> None:
        """A configuration on a page: its keys, its values, and the options of its backends.

        Raises:
            PageError: the project does not take it.
        """
        path = self.clone / "block.yaml"
        path.write_text(block.text, "utf-8")
        try:
            config = load_config(path)
        except ValueError as error:
            raise PageError(f"{block.page}:{block.line}: {error}") from None
        for backend in _backends(config):
            if unknown := set(backend.options) - _options(backend.backend):
                raise PageError(
                    f"{block.page}:{block.line}: {backend.backend} has no option {', '.join(sorted(unknown))}"
                )

    def check_python(self, block: Block) -> None:
        """A program on a page, as far as reading it goes; `tests/docs/test_documents_run.py` runs it.

        Raises:
            PageError: it is no Python.
        """
        try:
            compile(block.text, f"{block.page}:{block.line}", "exec")
        except SyntaxError as error:
            raise PageError(f"{block.page}:{block.line}: {error}") from None


def _backends(config: Config) -> Iterator[Any]:
    first, attributes = config.gen_pre_train_text, config.gen_text.attributes
    yield from (part for part in (first, first.text, attributes) if part is not None)


def _options(backend: str) -> set[str]:
    """The options of a captioning backend, from its constructor."""
    module, kind = BACKENDS[backend]
    return set(inspect.signature(getattr(importlib.import_module(module), kind)).parameters)
