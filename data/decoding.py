"""Decode many images in parallel, in processes that do nothing else.

The processes are started afresh instead of forked: the caller may hold a GPU, threads and locks, and a fork would copy
them. They live on a pipe, so they end when the caller ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.images import MEAN_COLOUR, Interpolation, check_header, read_image, resize

CHUNK = 64
_WORTH_PROCESSES = 512  # below, starting a process (0.2 s) takes longer than decoding

Progress = Callable[[int, int], None]


def check_images(
    paths: Sequence[str], *, deep: bool, workers: int | None = None, progress: Progress | None = None
) -> list[tuple[int, str]]:
    """Open every image (header only, or all pixels if `deep`): [(index, what is wrong)] in order."""
    task = {"kind": "decode" if deep else "header"}
    return _run(task, paths, workers, progress)


def write_images(
    paths: Sequence[str],
    image_size: tuple[int, int],
    file: Path,
    offset: int,
    *,
    interpolation: Interpolation,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[tuple[int, str]]:
    """Decode, resize and write every image as uint8 planes (3, H, W) into an existing file, from byte `offset` on.

    Unreadable images become the mean colour and are returned as [(index, what is wrong)]. Raises UserError when the
    disk is full. At most 64 images per process are in memory.
    """
    task = {
        "kind": "write",
        "image_size": list(image_size),
        "interpolation": interpolation,
        "file": os.fspath(file),
        "offset": offset,
    }
    return _run(task, paths, workers, progress)


def default_workers(count: int) -> int:
    """Processes worth starting for `count` images: 0 for few, else one per usable core, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if count < _WORTH_PROCESSES or cores == 1 else min(16, cores)


def _run(
    task: dict[str, Any], paths: Sequence[str], workers: int | None, progress: Progress | None
) -> list[tuple[int, str]]:
    workers = default_workers(len(paths)) if workers is None else workers
    chunks = (
        {**task, "first": first, "paths": list(paths[first : first + CHUNK])}
        for first in range(0, len(paths), CHUNK)
    )
    bad: list[tuple[int, str]] = []
    done = 0
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(_in_processes(chunks, workers)) if workers > 1 else map(_work, chunks)
        for answer in answers:
            if "failed" in answer:
                raise UserError(answer["failed"])
            bad.extend((index, reason) for index, reason in answer["bad"])
            done += answer["count"]
            if progress is not None:
                progress(done, len(paths))
    return bad


@contextlib.contextmanager
def _in_processes(tasks: Iterator[dict[str, Any]], workers: int) -> Iterator[Iterator[dict[str, Any]]]:
    """Answers to all tasks, in order; each thread of the pool talks to one idle process at a time."""
    processes = [_start() for _ in range(workers)]
    idle: queue.Queue[subprocess.Popen[str]] = queue.Queue()
    for process in processes:
        idle.put(process)

    def ask(task: dict[str, Any]) -> dict[str, Any]:
        process = idle.get()
        try:
            return _ask(process, task)
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(workers)
    try:
        yield pool.map(ask, tasks)
    finally:
        for process in processes:
            process.kill()  # they hold nothing worth an orderly end, and their threads wait for an answer
        pool.shutdown(cancel_futures=True)
        for process in processes:
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):  # an unsent task of a dead process
                process.stdin.close()


def _start() -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": root + (os.pathsep + known if known else ""),
        "OMP_NUM_THREADS": "1",
    }
    # -P: a folder named "data" where the user stands must not be taken for this one.
    command = [sys.executable, "-P", "-W", "ignore", "-c", "from data.decoding import serve; serve()"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def _ask(process: subprocess.Popen[str], task: dict[str, Any]) -> dict[str, Any]:
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except (OSError, ValueError):
        line = ""
    if not line:
        return {
            "failed": f"A process died while it decoded {task['paths'][0]} or one of the {len(task['paths']) - 1} "
            f"images after it (out of memory?): use fewer workers, or check these files."
        }
    return json.loads(line)


def serve() -> None:
    """Answer tasks from standard input until it closes, which it does when the caller ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller decides
    for line in sys.stdin:
        print(json.dumps(_work(json.loads(line))), flush=True)


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """Do one task: check or write its images."""
    bad: list[tuple[int, str]] = []
    rows = (
        np.empty((len(task["paths"]), 3, *task["image_size"]), np.uint8) if task["kind"] == "write" else None
    )
    for position, path in enumerate(task["paths"]):
        try:
            if task["kind"] == "header":
                check_header(path)
            elif rows is None:
                read_image(path)
            else:
                pixels = resize(read_image(path), tuple(task["image_size"]), task["interpolation"])
                rows[position] = pixels.transpose(2, 0, 1)
        except UserError as error:
            bad.append((task["first"] + position, str(error)))
            if rows is not None:
                rows[position] = np.reshape(MEAN_COLOUR, (3, 1, 1))
    if rows is not None:
        try:
            with open(task["file"], "r+b") as file:
                file.seek(task["offset"] + task["first"] * (rows[0].nbytes))
                file.write(rows.data)
        except OSError as error:
            return {
                "failed": f"The image cache {task['file']} can't be written ({error.strerror}): make room there."
            }
    return {"bad": bad, "count": len(task["paths"])}
