"""While work is divided no process is left waiting for another: a stop of one ends all, and so does a mistake."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.pipeline.mini import ROOT, free_port
from tests.trust.tiny_runs import Stage

pytestmark = pytest.mark.integration
SECONDS = 10  # a share takes 30


@pytest.fixture
def at_work(server, tmp_path):
    """at_work(busy, failing) -> the processes of ranks 0 and 1; what BUSY and FAILING say is in share_of_work.py."""
    running: list[Stage] = []

    def start(busy: str, failing: int | None = None) -> list[Stage]:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        meeting |= {"BUSY": busy, "FAILING": str(failing)}
        settings = [
            "--config",
            str(ROOT / "configs/demo.yaml"),
            "--set",
            f"output={tmp_path}",
            "runtime.device=cpu",
        ]
        for rank in "01":
            request = {
                "stage": str(Path(__file__).with_name("share_of_work").relative_to(ROOT)),
                "arguments": settings,
                "log": str(tmp_path / f"{rank}.said"),
                "environment": {**meeting, "RANK": rank, "LOCAL_RANK": rank},
            }
            running.append(Stage(server, server.ask(start=request)["pid"], Path(request["log"])))
        deadline = time.monotonic() + 60
        while not all("working" in process.said() for process in running):
            assert time.monotonic() < deadline, [process.said() for process in running]
            time.sleep(0.01)
        return running

    return start


@pytest.mark.parametrize(("busy", "asked"), [("0 1", 0), ("0 1", 1), ("0", 0), ("1", 1)])
def test_a_stop_of_one_process_ends_all(at_work, busy, asked):
    processes = at_work(busy)
    time.sleep(0.3)
    processes[asked].kill(signal.SIGTERM)
    assert [process.wait(SECONDS) for process in processes] == [128 + signal.SIGTERM] * 2
    for process in processes:
        assert "goes on from here" in process.said()
        assert "Traceback" not in process.said()


def test_a_stop_of_all_ends_all(at_work):
    processes = at_work("0 1")
    for process in processes:
        process.kill(signal.SIGINT)
    assert [process.wait(SECONDS) for process in processes] == [128 + signal.SIGINT] * 2


@pytest.mark.parametrize(("busy", "failing"), [("", 0), ("", 1), ("0", 1), ("1", 0)])
def test_a_mistake_of_one_process_ends_all(at_work, busy, failing):
    processes = at_work(busy, failing)
    assert processes[failing].wait(SECONDS) == 1
    if (
        busy == "0"
    ):  # torchrun asks those that are at work to end; rank 1 sees that the store has gone with rank 0
        processes[0].kill(signal.SIGTERM)
    assert processes[1 - failing].wait(SECONDS) == 1
    assert processes[failing].said().splitlines()[-1] == "The disk of this machine is full."
    assert "Another process of this run has ended" in processes[1 - failing].said()
    assert all("Traceback" not in process.said() for process in processes)
