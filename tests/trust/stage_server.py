"""Starts stages as processes of their own that need no time to import: forks of one process that has imported everything.

Reads one JSON object per line from standard input and answers with one each:

    {"start": {"stage", "arguments", "log", ...}} -> {"pid": number}
    {"wait": pid, "seconds": limit}               -> {"code": exit code, or minus the signal}

A fork runs the entry script as ``__main__``, as ``python train.py`` would. What may be asked of it beside that:
``environment`` (variables), ``largest_file`` (RLIMIT_FSIZE in bytes), ``forbid_group`` (joining a process group fails),
``watch`` (a folder) with ``kill_before`` (SIGKILL itself just before the n-th file below it is opened for writing,
renamed or removed, counted from 0) or ``operations`` (a file that gets one line per such operation).
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed

import engine.stage
import engine.stages.captioner_training
import engine.stages.evaluation
import engine.stages.image_captions
import engine.stages.image_generation
import engine.stages.sample_captions
import engine.stages.search_training  # noqa: F401 - imported here so that no fork has to

ROOT = Path(__file__).resolve().parents[2]
WRITING = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.rename", "os.remove", "os.truncate"}


def watch(folder: str, kill_before: int | None, operations: str | None) -> None:
    """Count what changes files below a folder; Python reports it before it happens (sys.addaudithook)."""
    count = 0
    record = os.open(operations, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if operations else None

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & WRITING)
        else:
            changes, path = event in CHANGES, arguments[0] if arguments else ""
        if not changes or not isinstance(path, (str, os.PathLike)) or not str(path).startswith(folder):
            return
        if count == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        if record is not None:
            os.write(record, f"{event} {path}\n".encode())

    sys.addaudithook(on_event)


def forbidden(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a process group was asked for")


def run(request: dict[str, Any]) -> NoReturn:
    """Be the stage: never returns."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request.get("environment", {}))
    if "largest_file" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    if request.get("forbid_group"):
        torch.distributed.init_process_group = forbidden
    if "watch" in request:
        watch(request["watch"], request.get("kill_before"), request.get("operations"))
    script = f"{request['stage']}.py"
    sys.argv = [script, *request["arguments"]]
    code = 0
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start(request: dict[str, Any]) -> dict[str, int]:
    pid = os.fork()
    if pid == 0:
        run(request)
    return {"pid": pid}


def wait(pid: int, seconds: float) -> dict[str, int | None]:
    """The exit code of a fork; None, and the fork is gone, when it takes longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return {"code": os.waitstatus_to_exitcode(status)}
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"code": None}


def main() -> None:
    # A fork has the thread that forks and no other: a lock that another one held would stay shut for ever.
    assert len(os.listdir("/proc/self/task")) == 1, "importing started threads"
    for line in sys.stdin:
        request = json.loads(line)
        answer = start(request["start"]) if "start" in request else wait(request["wait"], request["seconds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
