"""One version everywhere, workflows that run what there is, and the oldest versions that requirements allow."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))


def disagreements(project: str, citation: dict[str, Any], changelog: str) -> list[str]:
    """What the three places say differently about the version."""
    heading = re.search(r"^## (\S+) \((.+)\)$", changelog, flags=re.MULTILINE)
    if heading is None:
        return ["the changelog has no heading such as '## 1.2.3 (unreleased)'"]
    version, when = heading.groups()
    expected = f"{version}.dev0" if when == "unreleased" else version
    found = [
        f"{place} says {said}, the changelog {expected}"
        for place, said in (("pyproject.toml", project), ("CITATION.cff", citation["version"]))
        if said != expected
    ]
    released = str(citation.get("date-released", "unreleased"))
    return found + (
        [f"CITATION.cff was released {released}, the changelog {when}"] if released != when else []
    )


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert not disagreements(project, read_yaml(REPOSITORY / "CITATION.cff"), changelog)


def test_versions_that_differ_are_found() -> None:
    released = {"version": "1.0.0", "date-released": "2026-01-02"}
    assert not disagreements("1.0.0", released, "# C\n\n## 1.0.0 (2026-01-02)\n\n## 0.9.0 (2025-01-01)\n")
    assert not disagreements("1.0.0.dev0", {"version": "1.0.0.dev0"}, "## 1.0.0 (unreleased)\n")
    assert len(disagreements("1.0.0", {"version": "1.0.0"}, "## 1.0.0 (unreleased)\n")) == 2
    assert len(disagreements("0.9.0", released, "## 1.0.0 (2026-01-03)\n")) == 2
    assert len(disagreements("1.0.0", released, "## News\n")) == 1


def test_the_citation_has_what_the_format_asks_for() -> None:
    citation = read_yaml(REPOSITORY / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # all that it requires
    assert citation["license"] == "MIT"
    assert all("name" in author or "family-names" in author for author in citation["authors"])


def steps() -> list[tuple[str, str]]:
    """(job, command) of every step of every workflow that runs something."""
    return [
        (f"{path.stem}/{name}", step["run"])
        for path in WORKFLOWS
        for name, job in read_yaml(path)["jobs"].items()
        for step in job["steps"]
        if "run" in step
    ]


def test_every_promised_python_is_tested() -> None:
    jobs = {name: job for path in WORKFLOWS for name, job in read_yaml(path)["jobs"].items()}
    promised = ["3.11", "3.12", "3.13"]
    for name in ("tests", "newest"):
        assert jobs[name]["strategy"]["matrix"]["python"] == promised
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={promised[0]}"
    assert ", ".join(promised[:-1]) + f" and {promised[-1]}" in (REPOSITORY / "CONTRIBUTING.md").read_text(
        "utf-8"
    )


@pytest.mark.parametrize(("job", "command"), steps())
def test_workflows_run_what_there_is(job: str, command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    for name in re.findall(r"[\w./-]+\.(?:py|bash)|\.ci/run|requirements[\w-]*\.txt", command):
        assert (REPOSITORY / name).is_file(), name


def oldest(*files: Path | str) -> subprocess.CompletedProcess:
    script = REPOSITORY / "scripts" / "oldest_versions.py"
    return subprocess.run([sys.executable, script, *files], capture_output=True, text=True, cwd=REPOSITORY)


def test_every_requirement_has_an_oldest_version() -> None:
    lines = oldest("requirements-dev.txt").stdout.splitlines()
    assert "torch==2.11" in lines
    files = (
        "requirements.txt",
        "requirements-search.txt",
        "requirements-export.txt",
        "requirements-synthesis.txt",
        "requirements-stores.txt",
        "requirements-dev.txt",
    )
    text = "\n".join((REPOSITORY / name).read_text("utf-8") for name in files)
    named = re.findall(r"^([\w.-]+)>=", text, flags=re.MULTILINE)
    assert {line.split("==")[0] for line in lines} == {*named} - {"ruff"}
    assert len(lines) == len(set(lines))


def test_a_requirement_without_a_least_version_is_refused(tmp_path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("numpy>=2.0\nscipy\n", "utf-8")
    done = oldest(path)
    assert done.returncode
    assert "'scipy' should be of the form name>=version" in done.stderr
