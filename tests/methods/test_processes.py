"""A batch gives the same losses and gradients in one process and divided over several."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import method_examples as example
import pytest
import torch
from share_of_batch import LABELS, WEIGHTS, Task, step

from models import World

HERE = Path(__file__).parent
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


SIZES = (3, 2)  # beyond two, a process projects only the images it looks at


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """For every number of processes the results of each of them."""
    directory = tmp_path_factory.mktemp("processes")
    example.tokenizers(directory)
    command = [sys.executable, str(HERE / "share_of_batch.py")]
    sizes = ",".join(map(str, SIZES))
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"}
    processes = [
        subprocess.Popen(
            [*command, str(rank), sizes, str(directory)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(max(SIZES))
    ]
    try:
        errors = [process.communicate(timeout=240)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), errors
    results = [torch.load(directory / f"rank{rank}.pt") for rank in range(max(SIZES))]
    return {size: [of_rank[size] for of_rank in results[:size]] for size in SIZES}


@pytest.mark.integration
@pytest.mark.parametrize("size", SIZES)
def test_same_losses_and_gradients(size, words, shares):
    for method, warming in product(example.all_methods(), (False, True)):
        model = example.model(method, words).double()
        run = f"{method} warm-up" if warming else method
        for name, labels in LABELS.items():
            weights = None if warming else WEIGHTS.get(name)
            batch = example.batch(model, labels, dtype=torch.float64, weights=weights)
            whole = step(Task(model, warming), model, batch)
            for share in shares[size]:
                torch.testing.assert_close(share[f"{run} {name}"]["gradients"], whole["gradients"], **CLOSE)
            losses = [share[f"{run} {name}"]["losses"] for share in shares[size]]
            means = {loss: sum(part[loss] for part in losses) / size for loss in whole["losses"]}
            torch.testing.assert_close(means, whole["losses"], **CLOSE)


def test_a_world_of_one_needs_no_process_group():
    world, tensor = World(), torch.ones(2, 3, requires_grad=True)
    assert (world.rank, world.size, world.largest(7)) == (0, 1, 7)
    assert world.all_gather(tensor) is tensor
