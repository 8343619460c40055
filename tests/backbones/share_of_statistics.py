"""One of several processes that share a batch: what BatchNorm layers, and SSAN's model with its losses, give for its rows.

    python share_of_statistics.py RANK SIZES DIRECTORY

SIZES such as "3,2": the first three processes share the batch, then the first two. They find each other in DIRECTORY.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor, nn

from losses.compound_ranking import compound_ranking_loss
from losses.part_identity import part_identity_loss
from models import DistributedWorld, World
from models.backbones.normalisation import convert
from models.backbones.resnet_lstm.parts import PartLinear
from models.backbones.resnet_lstm.retrieval import ResNetLstm
from models.backbones.resnet_lstm.sizes import Size
from models.backbones.resnet_lstm.words import Words

ROWS = 6
SMALL = Size("basic", (1, 1, 1, 1), 4, 1, 8, 12, 8, 3, (48, 24))
WORDS = Words(["a", "red", "blue", "shirt", "man", "woman", "black", "shoes"])
CAPTIONS = [
    *("a red shirt", "woman", "a blue shirt a black man", "nothing known", "black shoes", "a man red shoes"),
    *("red red", "a woman shirt", "blue", "a black shirt with shoes", "a man", "shoes on a blue man"),
]
Results = dict[str, Tensor]


def layers(dtype: torch.dtype) -> dict[str, tuple[nn.Module, Tensor]]:
    """torch's layers with their data: rows of unlike mean and spread, and a mean far above both."""
    generator = torch.Generator().manual_seed(0)
    cases = {}
    for name, kind, shape in (
        ("table", nn.BatchNorm1d, (5,)),
        ("sequence", nn.BatchNorm1d, (5, 7)),
        ("map", nn.BatchNorm2d, (5, 4, 3)),
    ):
        layer = kind(5)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, 0.5, 2, generator)
        spread = 10 ** torch.linspace(-1.5, 0.5, ROWS).view(-1, *(1,) * len(shape))
        values = 1000 + spread * (1 + torch.randn(ROWS, *shape, generator=generator))
        cases[name] = (layer.to(dtype), values.to(dtype))
    return cases


def layer_step(layer: nn.Module, values: Tensor, rows: slice, world: World) -> Results:
    """Two training steps' outputs, gradients and running statistics, for a loss that every row counts in differently."""
    own = values[rows].clone().requires_grad_()
    weights = torch.sin(torch.arange(values.numel(), dtype=values.dtype)).view_as(values)
    layer.train()
    layer(own.detach())
    result = layer(own)
    loss = (world.all_gather(result) * weights).square().mean()
    loss.backward()
    averaged = {f"gradient of {name}": _mean(part.grad, world) for name, part in layer.named_parameters()}
    # The input's own gradient has come from every process's copy of the loss.
    averaged["gradient of values"] = world.all_gather(own.grad) / world.size
    return {**averaged, **dict(layer.named_buffers()), "result": world.all_gather(result.detach())}


def model() -> ResNetLstm:
    """A small model in double precision, with a classifier per local part."""
    torch.manual_seed(0)
    built = ResNetLstm(SMALL, tokenizer=WORDS, dropout=0.0)
    built.classifier = PartLinear(SMALL.parts, SMALL.features, 4, bias=True)
    return built.double().train()


def model_step(built: ResNetLstm, rows: slice, epoch: int, world: World) -> Results:
    """Losses, averaged gradients and running statistics of a step of SSAN's losses on these rows."""
    for layer in built.modules():
        if hasattr(layer, "world"):
            layer.world = world
    images = torch.randn(
        ROWS, 3, *SMALL.image_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    labels, seeds = torch.tensor([0, 0, 1, 2, 3, 1]), torch.tensor([3, 1, 4, 15, 9, 26])
    found = torch.tensor([True, True, True, False, False, True])
    image = built.image_parts(images[rows])
    text, companion = (built.text_parts(part[rows]) for part in (CAPTIONS[:ROWS], CAPTIONS[ROWS:]))
    losses = {
        "identity": part_identity_loss(
            built.classifier(image.local), built.classifier(text.local), labels[rows]
        )
    }
    for level, tensors in enumerate(zip(image.levels, text.levels, companion.levels, strict=True)):
        ours, own, other = (world.all_gather(tensor) for tensor in tensors)
        losses[f"ranking {level}"] = compound_ranking_loss(
            ours @ own.T, ours @ other.T, found, labels, seeds, epoch, level, alpha=0.6, beta=0.5
        )
    built.zero_grad()
    sum(losses.values()).backward()
    gradients = {f"gradient of {name}": _mean(part.grad, world) for name, part in built.named_parameters()}
    means = {name: _mean(loss.detach(), world) for name, loss in losses.items()}
    return {**means, **gradients, **{name: part.clone() for name, part in built.named_buffers()}}


def _mean(tensor: Tensor, world: World) -> Tensor:
    return world.all_gather(tensor[None]).mean(0)


def everything(rows: slice, world: World) -> dict[str, Results]:
    """All results of these rows, by name."""
    results = {}
    for dtype in (torch.float32, torch.float64):
        for name, (layer, values) in layers(dtype).items():
            convert(layer)
            layer.world = world
            results[f"{name} {dtype}"] = layer_step(layer, values, rows, world)
    built = model()
    for epoch in (0, 5):  # one after the other: the second step reads no running statistics but keeps them
        results[f"epoch {epoch}"] = model_step(built, rows, epoch, world)
    return results


def share(rank: int, size: int, directory: Path) -> dict[str, Results]:
    """The results of this process among `size`."""
    meeting = f"file://{directory}/meeting{size}"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=size)
    results = everything(slice(rank * ROWS // size, (rank + 1) * ROWS // size), DistributedWorld())
    torch.distributed.destroy_process_group()
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    own_rank, sizes, folder = (
        int(sys.argv[1]),
        [int(size) for size in sys.argv[2].split(",")],
        Path(sys.argv[3]),
    )
    found = {size: share(own_rank, size, folder) for size in sizes if own_rank < size}
    torch.save(found, folder / f"rank{own_rank}.pt")
