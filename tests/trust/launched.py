"""Stages as train.bash starts them: through ``launch`` of scripts/launch.bash, on one process or on many."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from tests.pipeline.mini import ROOT
from tests.trust.tiny_runs import ENVIRONMENT, TinyRun

LAUNCH = 'set -euo pipefail; source scripts/launch.bash; launch "$@"'


def launch(run: TinyRun, stage: str, *options: str, **variables: Any) -> subprocess.Popen:
    """One stage, started as train.bash does; ``variables`` are NPROC, NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHON": sys.executable}
    environment |= {name: str(value) for name, value in variables.items()}
    arguments = [f"{stage}.py", *run.arguments(*options)]
    return subprocess.Popen(
        ["bash", "-c", LAUNCH, "launch", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends_well(*processes: subprocess.Popen, seconds: float = 400) -> list[str]:
    """Wait for processes that must succeed: what each said."""
    try:
        said = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)[-4000:]
    return said
