"""scripts/slurm.sbatch beside a stand-in for SLURM's commands: what reaches each machine, and what a signal leads to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipeline.mini import ROOT

pytestmark = pytest.mark.integration
SRUN = """#!/usr/bin/env bash
# Runs the command once per machine, passes SIGTERM on and ends with the worst code, as srun does.
while [[ $1 == --* ]]; do shift; done
pids=()
for node in 0 1; do SLURM_NODEID=$node "$@" & pids+=($!); done
trap 'kill -TERM "${pids[@]}"' TERM
worst=0
for pid in "${pids[@]}"; do
    while true; do wait "$pid" && code=0 || code=$?; kill -0 "$pid" 2>/dev/null || break; done
    [ "$code" -le "$worst" ] || worst=$code
done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
    show) echo first; sleep 0.2; echo second ;; # a reader that leaves after the first name is noticed
    requeue) echo "$2" > requeued ;;
esac
"""
TRAIN = """#!/usr/bin/env bash
echo "$NODE_RANK of $NNODES, $NPROC each, $MASTER_ADDR:$MASTER_PORT: $*" > "node$NODE_RANK"
trap 'echo saved > "saved$NODE_RANK"; exit 0' TERM
for _ in $(seq "$WORK"); do sleep 0.05; done
exit "$CODE"
"""


@pytest.fixture
def submit(tmp_path):
    """submit(work, code): the batch script on two machines whose train.bash works so many twentieths of a second."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    (tmp_path / "train.bash").write_text(TRAIN, "utf-8")
    shutil.copy(ROOT / "scripts" / "slurm.sbatch", tmp_path)

    def start(work: int, code: int = 0) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_JOB_NODELIST": "machine[1-2]",
            "SLURM_JOB_ID": "123456",
            "WORK": str(work),
            "CODE": str(code),
        }
        environment.pop("NPROC", None)
        command = ["bash", str(tmp_path / "slurm.sbatch"), "cuhk", "pspd", "--set", "run=two words"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


def appears(path: Path) -> bool:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.exists()


def test_every_machine_is_told_its_place(submit, tmp_path):
    assert submit(work=1).wait(60) == 0
    for rank in range(2):
        told = (tmp_path / f"node{rank}").read_text("utf-8").strip()
        assert told == f"{rank} of 2, 4 each, first:23456: cuhk pspd --set run=two words"
    assert not (tmp_path / "requeued").exists()


def test_a_stop_saves_on_every_machine_and_queues_the_job_again(submit, tmp_path):
    job = submit(work=600)
    assert appears(tmp_path / "node0")
    assert appears(tmp_path / "node1")
    time.sleep(0.1)  # until the traps are set
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 0
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()
    assert (tmp_path / "requeued").read_text("utf-8").strip() == "123456"


def test_a_failure_is_the_jobs_and_is_not_queued_again(submit, tmp_path):
    assert submit(work=1, code=3).wait(60) == 3
    assert not (tmp_path / "requeued").exists()
