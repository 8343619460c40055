"""Which packages an environment has, against the requirements and the versions that were tested (constraints.txt).

`scripts/environment.bash` asks; only the standard library is needed, except for `freeze`:

    python scripts/packages.py check requirements.txt constraints.txt    # 1 where a requirement is not met; says what differs
    python scripts/packages.py relax constraints.txt REQUIREMENTS PIP'S MESSAGE    # the constraints without a pin that can't be had
    python scripts/packages.py freeze > constraints.txt    # of this environment, after its tests have passed
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

REQUIREMENTS = "requirements-dev.txt"  # includes the others
OLDEST_PYTHON = (3, 11)
# What decodes, resizes, multiplies, starts weights, splits words and groups neighbours: results change with these.
DECIDE_NUMBERS = (
    *("torch", "torchvision", "timm", "open-clip-torch", "transformers", "tokenizers"),
    *("numpy", "scipy", "numba", "scikit-learn", "faiss-cpu", "pillow"),
)
# torch asks for one version of each of these, so they follow it and are no choice of their own.
OF_TORCH = re.compile(r"(torchvision|triton|nvidia-.*|cuda-.*)$")
MISSING = re.compile(
    r"Could not find a version that satisfies the requirement ([\w.-]+)==(\S+)(?: \(from versions: ([^)]*)\))?"
)
HEAD = """\
# Every version that was tested: what requirements-dev.txt, which includes the others, pulls in, in one resolution.
# train.bash, eval.bash and run_tests.bash install these; PSPD_CONSTRAINTS=none takes the newest that the requirements allow.
# Made by: python scripts/packages.py freeze > constraints.txt
"""


def name_of(text: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", text.strip()).lower()


def numbers_of(text: str) -> tuple[int, ...]:
    """A release's numbers; a local build tag (2.14.1+cu130) makes no other release, nor does a zero at the end."""
    numbers = [int(part) for part in re.findall(r"\d+", text.split("+")[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def lines_of(path: Path) -> list[str]:
    """A requirements file's lines, with those of the files that it includes."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            lines += lines_of(path.parent / line[3:].strip())
        elif line:
            lines.append(line)
    return lines


def least_of(path: Path) -> dict[str, str]:
    """The oldest version of each package that a requirements file allows."""
    lines = (line.partition(",")[0].partition(">=") for line in lines_of(path))
    return {name_of(name): least for name, _, least in lines}


def pins_of(path: Path) -> dict[str, str]:
    """The version of each package that a constraints file names."""
    return {name_of(name): pinned for name, _, pinned in (line.partition("==") for line in lines_of(path))}


def is_met(name: str, least: str) -> bool:
    """Whether this environment has a package, and no older version of it."""
    try:
        return numbers_of(version(name)) >= numbers_of(least)
    except PackageNotFoundError:
        return False


def check(requirements: Path, constraints: Path | None) -> int:
    """1 where a requirement is not met; one line about the packages that are others than the tested ones."""
    least = least_of(requirements)
    if sys.version_info < OLDEST_PYTHON or not all(is_met(name, oldest) for name, oldest in least.items()):
        return 1
    pins = pins_of(constraints) if constraints else {}
    other = [
        f"{name} {version(name)} (tested: {pins[name]})"
        for name in DECIDE_NUMBERS
        if name in least and name in pins and numbers_of(version(name)) != numbers_of(pins[name])
    ]
    if other:
        print(f"Packages that results depend on differ from the tested versions: {', '.join(other)}.")
    return 0


def nearest(wanted: str, offered: list[str], least: str) -> str | None:
    """The release next below the wanted one that is new enough, else the next above; None where none is."""
    releases = [one for one in offered if re.fullmatch(r"\d+(\.\d+)*(\+\S+)?(\.post\d+)?", one)]
    allowed = sorted((one for one in releases if numbers_of(one) >= numbers_of(least)), key=numbers_of)
    below = [one for one in allowed if numbers_of(one) < numbers_of(wanted)]
    above = [one for one in allowed if numbers_of(one) > numbers_of(wanted)]
    return below[-1] if below else above[0] if above else None


def relax(constraints: Path, requirements: Path, message: str) -> int:
    """Changes the pin that pip's message calls missing to the nearest release allowed, in place, and says so; 1 for no such message.

    What torch asks for by itself is no longer pinned where torch or torchvision is another one.
    """
    found = MISSING.search(message)
    if not found:
        return 1
    name, wanted, offered = name_of(found[1]), found[2], (found[3] or "").split(", ")
    instead = nearest(wanted, offered, least_of(requirements).get(name, "0"))
    pins = pins_of(constraints)
    if pins.pop(name, None) is None:
        return 1
    if instead:
        pins[name] = instead
    if name in ("torch", "torchvision"):
        pins = {other: pin for other, pin in pins.items() if other == name or not OF_TORCH.match(other)}
        if name == "torchvision":
            pins.pop("torch", None)
    constraints.write_text("".join(f"{other}=={pin}\n" for other, pin in pins.items()), encoding="utf-8")
    print(
        f"{name} {wanted}, which was tested, can't be had here: {f'taking {instead}' if instead else 'taking any'}."
    )
    return 0


def checkable(constraints: Path) -> int:
    """Prints the pins that can be asked for one by one: those of torch's own packages exist on some systems only."""
    pins = pins_of(constraints)
    print(
        "\n".join(
            f"{name}=={pin}"
            for name, pin in pins.items()
            if not OF_TORCH.match(name) or name == "torchvision"
        )
    )
    return 0


def pulled_in(requirements: Path) -> dict[str, str]:
    """Name and version of everything in this environment that a requirements file brings along."""
    from packaging.requirements import Requirement  # comes with the requirements

    found: dict[str, str] = {}
    waiting = [(Requirement(line), ("",)) for line in lines_of(requirements)]
    seen = set()
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        key = (name_of(requirement.name), tuple(sorted(requirement.extras)))
        if key in seen:
            continue
        seen.add(key)
        installed = distribution(requirement.name)
        found[installed.metadata["Name"]] = installed.version.split("+")[0]
        wanted = ("", *requirement.extras)
        waiting += [(Requirement(line), wanted) for line in installed.requires or []]
    return found


def freeze() -> int:
    """Prints this environment's constraints."""
    found = pulled_in(Path(REQUIREMENTS))
    print(HEAD, end="")
    print("\n".join(f"{name}=={found[name]}" for name in sorted(found, key=name_of)))
    return 0


def main(words: list[str]) -> int:
    """Does what the first word says."""
    command, rest = words[0], words[1:]
    if command == "check":
        return check(Path(rest[0]), Path(rest[1]) if len(rest) > 1 and rest[1] != "none" else None)
    if command == "checkable":
        return checkable(Path(rest[0]))
    if command == "relax":
        return relax(Path(rest[0]), Path(rest[1]), rest[2])
    return freeze()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
