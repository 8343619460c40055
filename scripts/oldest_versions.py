"""The oldest versions that requirements files allow, as constraints: every `name>=version`, with an upper bound or without, becomes `name==version`.

    python scripts/oldest_versions.py requirements-dev.txt > oldest.txt
    PSPD_VENV=oldest PSPD_CONSTRAINTS=oldest.txt bash run_tests.bash

Files that a file names with `-r` are read, too. Tools that only look at the code, not at what it does, are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TOOLS = {"ruff"}  # an older one formats otherwise


def oldest(path: Path) -> Iterator[str]:
    """The constraints of a requirements file, in its order.

    Raises:
        ValueError: a line that names no least version.
    """
    for line in path.read_text("utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            yield from oldest(path.parent / line[3:].strip())
        elif line:
            match = re.fullmatch(r"([\w.-]+)>=([\w.]+)(,<[\w.]+)?", line)
            if not match:
                raise ValueError(f"{path}: {line!r} should be of the form name>=version.")
            if match[1] not in TOOLS:
                yield f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print("\n".join(dict.fromkeys(oldest(Path(name)))))
