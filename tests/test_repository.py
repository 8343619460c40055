"""What stands in the repository beside code: links, commands and packages that the pages name, sizes, machine paths."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LARGEST = 300_000  # bytes
WEIGHTS = "checkpoint/demo/pretrained.pth"  # what configs/demo-pretrained.yaml starts from: the one exception, docs/pretraining.md
DATA_ONLY = ("checkpoint", "datasets", "pre_gen_data", "output")
ROOMS = (
    "engine",
    "models",
    "losses",
    "data",
    "captioning",
    "clustering",
    "retrieval",
    "serving",
    "synthesis",
)
PACKAGE_OF = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "ruamel": "ruamel.yaml",
    "faiss": "faiss-cpu",
    "milvus_lite": "milvus-lite",
    "open_clip": "open-clip-torch",
}  # module -> package
BROUGHT_ALONG = {"huggingface_hub", "grpc"}  # by transformers and timm; by pymilvus, whose client speaks it
USED_BY_OTHERS = {"accelerate"}  # by diffusers, where it is there
OPTIONAL = (
    "requirements-search.txt",
    "requirements-export.txt",
    "requirements-synthesis.txt",
    "requirements-stores.txt",
)
# The parts are joined here, so that this file does not hold what it forbids.
MACHINE_PATH = re.compile(
    r"(?<![\w./:~$}>-])/(?:" + "|".join(["home", "Users", "root", "work", "mnt", "tmp"]) + r")/\w"
)
OPTION_OF_OTHERS = {  # torchrun's, then sbatch's
    "--nproc-per-node",
    *("--nodes", "--gpus-per-node", "--signal", "--time", "--account", "--partition"),
}


@cache
def tracked() -> tuple[Path, ...]:
    """The repository's files that git tracks; in an exported copy without git, all but what belongs to runs."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True)
        names = listed.stdout.decode().split("\0")
        paths = [REPOSITORY / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in REPOSITORY.rglob("*") if _belongs(path.relative_to(REPOSITORY))]
    return tuple(sorted(path for path in paths if path.is_file()))


def _belongs(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return not hidden and (path.parts[0] not in DATA_ONLY or path.name == "README.md")


def pages() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def readme() -> str:
    return (REPOSITORY / "README.md").read_text("utf-8")


def links(text: str) -> list[str]:
    """Targets of a page's links and images, code left out."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"""(?:src|href)="([^"]+)\"""", prose)


def anchors(text: str) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    headings = re.findall(
        r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page that lead to no tracked file, or to no heading of one."""
    broken = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        reached = any(file == path or path in file.parents for file in tracked())
        if not reached or (
            fragment and fragment not in anchors(text if path == page else path.read_text("utf-8"))
        ):
            broken.append(link)
    return broken


def command_lines(text: str) -> list[str]:
    """The shell commands of a page: its fenced lines and inline code that begin with bash, python or torchrun."""
    fenced = [
        line
        for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    ]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = [re.sub(r"\s#.*$", "", line).strip() for line in fenced + inline]
    return [line for line in commands if re.match(r"(?:[A-Z_]+=\S* )*(?:bash|python|torchrun) ", line)]


@cache
def known_options() -> str:
    sources = [
        path for path in tracked() if path.suffix in {".py", ".bash"} and path.name != Path(__file__).name
    ]
    return "\n".join(path.read_text("utf-8") for path in sources)


def unknown_options(text: str) -> set[str]:
    """Options that a page names and that no script of the repository takes."""
    options = set(
        re.findall(
            r"(?<![\w-])--[a-z][\w-]*", " ".join(re.findall(r"```.*?```|`[^`\n]*`", text, flags=re.DOTALL))
        )
    )
    return {
        name for name in options - OPTION_OF_OTHERS if not re.search(rf"{name}(?![\w-])", known_options())
    }


def requirements(name: str) -> set[str]:
    lines = [line.split("#")[0].strip() for line in (REPOSITORY / name).read_text("utf-8").splitlines()]
    return {re.split(r"[<>=~!]", line)[0].strip() for line in lines if line and not line.startswith("-")}


def package_table(text: str) -> set[str]:
    section = text.split("\n## Packages\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE))


def imported_packages(paths: list[Path]) -> set[str]:
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).split(".")[0])
    return {
        PACKAGE_OF.get(name, name)
        for name in names
        if name not in sys.stdlib_module_names and name not in ROOMS
    }


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken_links(page, page.read_text("utf-8"))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_options_that_a_page_names_exist(page: Path) -> None:
    """Commands as a whole: tests/docs/test_documents.py."""
    assert not unknown_options(page.read_text("utf-8"))


def test_the_readme_names_the_commands_that_matter() -> None:
    commands = " ; ".join(command_lines(readme()))
    for command in ("bash train.bash", "bash eval.bash", "bash run_tests.bash", "python -m data.validate"):
        assert command in commands


def test_the_readme_is_short_and_wrapped() -> None:
    lines = readme().splitlines()
    assert len(lines) <= 150
    prose = re.sub(r"```.*?```", "", readme(), flags=re.DOTALL).splitlines()
    assert not [line for line in prose if len(line) > 100 and not line.startswith(("|", "!["))]


def test_every_package_has_a_reason() -> None:
    assert package_table(readme()) == requirements("requirements.txt")
    for name in ("requirements-dev.txt", *OPTIONAL):
        assert all(re.search(rf"\b{package}\b", readme()) for package in requirements(name))


def test_every_package_is_used_and_every_import_is_required() -> None:
    sources = [
        path for path in tracked() if path.suffix == ".py" and path.relative_to(REPOSITORY).parts[0] in ROOMS
    ]
    required = set().union(*map(requirements, ("requirements.txt", *OPTIONAL)))
    assert imported_packages(sources) - BROUGHT_ALONG == required - USED_BY_OTHERS


def test_images_are_there_and_used() -> None:
    shown = {(page.parent / link).resolve() for page in pages() for link in links(page.read_text("utf-8"))}
    images = {path for path in tracked() if path.is_relative_to(REPOSITORY / "docs/images")}
    assert images, "docs/images/ holds no picture"
    assert not [name_of(path) for path in images if path not in shown]


def test_every_benchmark_result_stands_on_its_page() -> None:
    page = (REPOSITORY / "docs/benchmarks.md").read_text("utf-8")
    for path in (path for path in tracked() if path.parent == REPOSITORY / "benchmarks/results"):
        assert f"`{path.name}`" in page


def test_no_file_is_large() -> None:
    large = [name_of(path) for path in tracked() if path.stat().st_size > LARGEST]
    assert large == [WEIGHTS]
    assert (REPOSITORY / WEIGHTS).stat().st_size < 6_000_000


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            found += [
                f"{name_of(path)}: {match[0]}" for match in MACHINE_PATH.finditer(content.decode("utf-8"))
            ]
    assert not found


def test_data_stays_out() -> None:
    for path in tracked():
        parts = path.relative_to(REPOSITORY).parts
        only_data = parts[1:] == ("README.md",) or name_of(path) == WEIGHTS
        assert parts[0] not in DATA_ONLY or only_data, name_of(path)


def test_the_checks_find_what_they_look_for() -> None:
    page = REPOSITORY / "README.md"
    assert broken_links(
        page, "[a](docs/nowhere.md) [b](#missing) [c](LICENSE) [d](https://example.org) `[e](x)`"
    ) == [
        "docs/nowhere.md",
        "#missing",
    ]
    assert broken_links(page, "# Some page!\n[a](#some-page) [b](docs/datasets.md#no-such-part)") == [
        "docs/datasets.md#no-such-part"
    ]
    assert command_lines(
        "```\nNPROC=2 bash train.bash x  # why\n```\nand `python -m a.b`, `pip install c`"
    ) == [
        "NPROC=2 bash train.bash x",
        "python -m a.b",
    ]
    assert unknown_options("`bash train.bash --force --fo" + "rced`") == {"--fo" + "rced"}
    slash = "/"
    for text in (f"root: {slash}home{slash}somebody", f'"{slash}work{slash}x"', f"cd {slash}tmp{slash}run"):
        assert MACHINE_PATH.search(text)
    for text in ("https://example.org/home/page", f"docs{slash}work{slash}notes", "/data/CUHK-PEDES"):
        assert not MACHINE_PATH.search(text)
