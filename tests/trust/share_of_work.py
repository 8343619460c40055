"""A stage whose processes work on shares and gather: what they do is said by the environment.

BUSY names the ranks that work for half a minute before they gather, the others come at once; FAILING the one that meets
a mistake instead, after a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from data.errors import UserError
from engine.command_line import read_command, stage_parser
from engine.run import Run
from engine.stage import Context, run_stage


def work(context: Context) -> None:
    """One share, and the gathering."""
    processes, run = context.machine.processes, Run(Path(context.config.output), stop=context.stop)
    print("working", flush=True)
    if os.environ.get("FAILING") == str(processes.rank):
        time.sleep(1)
        raise UserError("The disk of this machine is full.")
    for _ in range(600 if str(processes.rank) in os.environ["BUSY"].split() else 0):
        time.sleep(0.05)
        run.stop_if_asked()
    print(processes.gather(processes.rank), flush=True)


if __name__ == "__main__":
    run_stage(work, read_command(stage_parser("A share of work.")))
