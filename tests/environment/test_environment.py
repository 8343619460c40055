"""Setting up from a package folder that the test fills: pins are used, one that is not there is told and replaced."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts.packages import (
    DECIDE_NUMBERS,
    least_of,
    lines_of,
    name_of,
    nearest,
    numbers_of,
    pins_of,
    pulled_in,
    relax,
)

REPOSITORY = Path(__file__).resolve().parents[2]
# What the folder offers: `alpha` needs `beta`; a newer release than the pinned one of each is there, too.
OFFERED = {
    "alpha": {"1.0": ["beta"], "1.2": ["beta"], "2.0": ["beta"]},
    "beta": {"3.0": [], "3.1": [], "4.0": []},
}


def make_wheel(folder: Path, name: str, release: str, needs: list[str]) -> None:
    """A package of one line, as an installer takes it."""
    info = f"{name}-{release}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"]
    metadata += [f"Requires-Dist: {other}\n" for other in needs]
    files = {
        f"{name}.py": f"RELEASE = {release!r}\n",
        f"{info}/METADATA": "".join(metadata),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, content in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}\n")
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{release}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


@pytest.fixture
def clone(tmp_path):
    """A folder with requirements, and a package folder in the place of the registry."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, releases in OFFERED.items():
        for release, needs in releases.items():
            make_wheel(wheels, name, release, needs)
    (tmp_path / "requirements.txt").write_text("alpha>=1.1\n", "utf-8")
    (tmp_path / "constraints.txt").write_text("alpha==1.2\nbeta==3.1\n", "utf-8")
    return tmp_path


def set_up(clone: Path, *then: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Sources the script there, sets up, and prints what was installed."""
    show = "$PYTHON -c 'import alpha, beta; print(alpha.RELEASE, beta.RELEASE)'"
    script = f"source {REPOSITORY}/scripts/environment.bash; set_up_environment requirements.txt; {' ; '.join(then) or show}"
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PSPD_"))}
    known |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(clone / "wheels"), "PSPD_VENV": str(clone / "venv")}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone,
        env={**known, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.integration
def test_the_tested_versions_are_installed_and_another_one_is_named_afterwards(clone):
    first = set_up(clone)
    assert (first.returncode, first.stdout) == (0, "1.2 3.1\n"), first.stderr
    assert "can't be had" not in first.stderr
    # Again: used as it is, although other versions are pinned by now.
    (clone / "constraints.txt").write_text("alpha==2.0\n", "utf-8")
    again = set_up(clone)
    assert (again.returncode, again.stdout, again.stderr) == (0, "1.2 3.1\n", "")


@pytest.mark.integration
def test_a_version_that_can_not_be_had_is_told_and_the_nearest_allowed_is_taken(clone):
    (clone / "constraints.txt").write_text("alpha==1.5\nbeta==3.1\n", "utf-8")
    done = set_up(clone)
    assert (done.returncode, done.stdout) == (0, "1.2 3.1\n"), done.stderr
    assert "alpha 1.5, which was tested, can't be had here: taking 1.2." in done.stderr


@pytest.mark.integration
def test_without_constraints_the_newest_are_taken(clone):
    done = set_up(clone, PSPD_CONSTRAINTS="none")
    assert (done.returncode, done.stdout) == (0, "2.0 4.0\n"), done.stderr


@pytest.mark.integration
def test_an_empty_registry_fails_in_a_sentence(clone):
    done = set_up(clone, PIP_FIND_LINKS=str(clone / "nothing"), PSPD_CONSTRAINTS="none")
    assert done.returncode == 1
    assert "Installing the packages of requirements.txt failed" in done.stderr


def test_a_constraints_file_that_is_not_there_is_told(clone):
    done = set_up(clone, PSPD_CONSTRAINTS="pins.txt")
    assert done.returncode == 1
    assert "There is no file pins.txt (PSPD_CONSTRAINTS)" in done.stderr


def test_an_environment_that_is_there_is_used_and_the_differences_are_named(clone):
    (clone / "requirements.txt").write_text("numpy>=2.0\npillow>=11.0\ntqdm>=4.0\n", "utf-8")
    own = version("numpy")
    (clone / "constraints.txt").write_text(f"numpy=={own}+local\npillow==11.0.1\ntqdm==4.0\n", "utf-8")
    done = set_up(clone, "echo $PYTHON", PSPD_VENV="")
    assert done.returncode == 0
    assert Path(done.stdout.strip()).parent == Path(sys.executable).parent
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert f"pillow {version('pillow')} (tested: 11.0.1)" in lines[0]
    assert "numpy" not in lines[0]
    assert "tqdm" not in lines[0]


@pytest.mark.parametrize(
    ("offered", "found"),
    [
        (["1.0", "1.2", "2.0"], "1.2"),
        (["1.0", "2.0", "3.0"], "2.0"),
        (["1.0"], None),
        (["none"], None),
        (["1.4rc1", "1.3", "1.10"], "1.3"),
    ],
)
def test_the_nearest_release(offered, found):
    assert nearest("1.5", offered, "1.1") == found


def test_what_torch_brings_follows_a_torch_that_is_another_one(tmp_path):
    pins, wanted = tmp_path / "pins", tmp_path / "requirements.txt"
    wanted.write_text("torch>=2.11\ntorchvision>=0.26\n", "utf-8")
    pins.write_text(
        "numpy==2.4.6\nnvidia-nvtx==13.0.85\ntorch==2.14.1\ntorchvision==0.29.1\ntriton==3.8.0\n", "utf-8"
    )
    message = (
        "ERROR: Could not find a version that satisfies the requirement torch==2.14.1 (from versions: 2.10.0, 2.13.0, 2.15.0)\n"
        "ERROR: No matching distribution found for torch==2.14.1"
    )
    assert relax(pins, wanted, message) == 0
    assert pins_of(pins) == {"numpy": "2.4.6", "torch": "2.13.0"}
    assert relax(pins, wanted, "ERROR: no space left") == 1


def test_a_local_build_is_the_release_it_was_built_from():
    assert numbers_of("2.14.1+cu130") == numbers_of("2.14.1") == (2, 14, 1)
    assert numbers_of("2.0") == numbers_of("2.0.0") < numbers_of("2.0.1") < numbers_of("2.10")


def test_constraints_hold_a_version_of_everything_that_the_requirements_pull_in():
    """In the tested environment; another one may need packages that this one does not."""
    pins, least = pins_of(REPOSITORY / "constraints.txt"), least_of(REPOSITORY / "requirements-dev.txt")
    for name, oldest in least.items():
        assert numbers_of(pins[name]) >= numbers_of(oldest)
    assert set(DECIDE_NUMBERS) <= set(least)
    for line in lines_of(REPOSITORY / "constraints.txt"):
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line)
    if all(numbers_of(version(name)) == numbers_of(pins[name]) for name in least):
        here = {name_of(name): pin for name, pin in pulled_in(REPOSITORY / "requirements-dev.txt").items()}
        assert here.keys() <= pins.keys()
