"""One of several processes that share a batch: writes its losses and the averaged gradients of every method.

    python share_of_batch.py RANK SIZES DIRECTORY

SIZES such as "3,2": the first three processes share the batch, then the first two. The vocabulary is read from DIRECTORY,
where the processes also find each other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import method_examples as example
import torch
import torch.distributed
from torch import Tensor, nn

from models import DistributedWorld
from models.batch import Batch
from models.methods.base import Method

# Labels across processes; a sample without any negative; and a batch that has none at all.
LABELS = {"mixed": [0, 0, 1, 2, 1, 0], "two": [5, 5, 5, 5, 5, 1], "one": [3, 3, 3, 3, 3, 3]}
# Of the pairs, by the same names; there are none in warm-ups and elsewhere.
WEIGHTS = {"two": [1.0, 0.25, 0.0, 0.5, 1.0, 0.75]}


class Task(nn.Module):
    """A method whose losses are its forward pass, which is what torch's wrapper can average gradients of."""

    def __init__(self, model: Method, warming: bool = False) -> None:
        super().__init__()
        self.model, self.warming = model, warming

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.model.warm_up_losses(batch, matching=True) if self.warming else self.model.losses(batch)


def step(task: nn.Module, model: Method, batch: Batch) -> dict[str, dict[str, Tensor]]:
    """Losses and gradients of one step."""
    model.zero_grad()
    losses = task(batch)
    sum(losses.values()).backward()
    reached = ((name, parameter.grad) for name, parameter in model.named_parameters())
    gradients = {name: gradient.clone() for name, gradient in reached if gradient is not None}
    return {"losses": {name: loss.detach() for name, loss in losses.items()}, "gradients": gradients}


def share(rank: int, size: int, directory: Path) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Losses and gradients of this process among `size`, by method and labels."""
    meeting = f"file://{directory}/meeting{size}"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=size)
    words = example.load_tokenizers(directory)
    rows = slice(rank * 6 // size, (rank + 1) * 6 // size)
    results = {}
    for method in example.all_methods():
        model = example.model(method, words).double()
        model.world = DistributedWorld()
        task = nn.parallel.DistributedDataParallel(Task(model), broadcast_buffers=False)
        for name, labels in LABELS.items():
            batch = example.batch(model, labels, rows, torch.float64, WEIGHTS.get(name))
            results[f"{method} {name}"] = step(task, model, batch)
        model = example.model(method, words).double()
        model.world = DistributedWorld()
        warming = Task(model, warming=True)
        task = nn.parallel.DistributedDataParallel(
            warming, broadcast_buffers=False, find_unused_parameters=True
        )
        for name, labels in LABELS.items():
            results[f"{method} warm-up {name}"] = step(
                task, model, example.batch(model, labels, rows, torch.float64)
            )
    torch.distributed.destroy_process_group()
    return results


def main(rank: int, sizes: list[int], directory: Path) -> None:
    torch.set_num_threads(1)
    results = {size: share(rank, size, directory) for size in sizes if rank < size}
    torch.save(results, directory / f"rank{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(size) for size in sys.argv[2].split(",")], Path(sys.argv[3]))
