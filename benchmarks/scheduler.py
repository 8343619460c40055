"""Runs the stages of many runs, several at a time, each run's in order and behind what it needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.study import ROOT, Run

USAGE = "usage.jsonl"  # in a run's folder: what each start of a stage took


@dataclass
class Started:
    """A stage that is running."""

    run: Run
    stage: str
    process: subprocess.Popen
    since: float = field(default_factory=time.monotonic)


class Scheduler:
    """Runs what is not finished, `jobs` stages at a time, each run's stages in order."""

    def __init__(self, runs: Iterable[Run], jobs: int, threads: int, force: bool) -> None:
        self.waiting = list(runs)
        self.left = {run.label: list(run.stages) for run in self.waiting}
        self.jobs, self.threads = jobs, threads
        self.force = {run.label for run in self.waiting if force and not run.makes_captions}
        self.unfinished = set(self.left)  # labels that others wait for
        self.failed: set[str] = set()
        self.running: dict[int, Started] = {}

    def work(self) -> set[str]:
        """Returns the labels of the runs that failed, those included whose captions did.

        Raises:
            KeyboardInterrupt: a signal came; every stage has saved and ended by then.
        """
        try:
            while self.waiting or self.running:
                self._start_ready()
                if self.running:
                    self._wait()
        except KeyboardInterrupt:
            for started in self.running.values():
                started.process.send_signal(signal.SIGTERM)
            while self.running:
                self._wait()
            raise
        return self.failed

    def _start_ready(self) -> None:
        for run in list(self.waiting):
            if failed := self.failed.intersection(run.needs):
                self.waiting.remove(run)
                self._fail(run, f"what it needs ({', '.join(sorted(failed))}) failed")
            elif len(self.running) < self.jobs and not self.unfinished.intersection(run.needs):
                self.waiting.remove(run)
                self._start(run)

    def _start(self, run: Run) -> None:
        stage = self.left[run.label][0]
        command = run.command(stage)
        run.directory.mkdir(parents=True, exist_ok=True)
        if run.label in self.force and stage == "train":
            command.append("--force")
            (run.directory / USAGE).unlink(missing_ok=True)  # what the run before took
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with (run.directory / "ablation.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **threads},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.running[process.pid] = Started(run, stage, process)
        print(f"{run.label}: {stage} ({len(self.waiting)} runs waiting)", flush=True)

    def _wait(self) -> None:
        """Take note of the next stage that ends, and start the run's next one."""
        pid, status, usage = os.wait4(-1, 0)
        started = self.running.pop(pid)
        code = started.process.returncode = os.waitstatus_to_exitcode(status)
        record = {
            "stage": started.stage,
            "code": code,
            "seconds": round(time.monotonic() - started.since, 2),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
            "peak_mib": round(usage.ru_maxrss / 1024, 1),
        }
        with (started.run.directory / USAGE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        run, left = started.run, self.left[started.run.label]
        if code:
            self._fail(run, f"{started.stage} ended with {code}, see {run.directory / 'ablation.log'}")
            return
        left.pop(0)
        if left:
            self.waiting.insert(0, run)
        else:
            self.unfinished.discard(run.label)
            print(f"{run.label}: finished", flush=True)

    def _fail(self, run: Run, why: str) -> None:
        self.failed.add(run.label)
        self.unfinished.discard(run.label)
        print(f"{run.label}: {why}", file=sys.stderr, flush=True)
