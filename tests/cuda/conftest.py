"""What runs on the pretended GPU: drawn-up people, their captions, a machine, and the loop's own trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.cuda.amp.common
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from data import transforms
from engine.feeds import ImageFeed
from engine.machine import Machine
from models.world import World
from tests.cuda.backward import backward
from tests.cuda.pretend_gpu import CUDA, PretendGpu
from tests.methods import method_examples as example

COLOURS = {"red": (200, 30, 40), "blue": (20, 40, 190), "green": (30, 150, 60), "white": (230, 230, 230)}
PEOPLE, IMAGES_EACH = 8, 3
PRECISIONS = [pytest.param(torch.float32, id="fp32"), pytest.param(torch.bfloat16, id="bf16")]


@pytest.fixture
def gpu(monkeypatch) -> Iterator[PretendGpu]:
    """The device "cuda", until the test ends."""
    # torch switches autocast off where it sees no GPU, and its backward engine asks for one's streams.
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    # Page-locked memory is the driver's; tests/engine/test_pinned_batches.py holds its use.
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **options: empty(*shape, **options))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    transforms._constants.cache_clear()
    # cuDNN's kernels are a GPU's own. Without it torch normalises by one that every device has, and the LSTM is written out.
    monkeypatch.setattr(torch._VF, "lstm", plain_lstm)
    with torch.backends.cudnn.flags(enabled=False), PretendGpu() as pretended:
        yield pretended
    transforms._constants.cache_clear()


def plain_lstm(words: Tensor, state: list[Tensor], weights: list[Tensor], *_: object) -> tuple[Tensor, ...]:
    """An LSTM of one layer without biases, batch first, word by word."""
    hidden, cell = (part[0] for part in state)
    states = []
    for word in words.unbind(1):
        gates = F.linear(word, weights[0]) + F.linear(hidden, weights[1])
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states, 1), hidden[None], cell[None]


@pytest.fixture(params=PRECISIONS)
def machine(request, gpu) -> Machine:
    return Machine(CUDA, World(), request.param)


@pytest.fixture(scope="session")
def crops(tmp_path_factory) -> list[Path]:
    """Eight people in three crops each, of an upper and a lower colour with some noise."""
    folder = tmp_path_factory.mktemp("crops")
    random = np.random.default_rng(0)
    paths = []
    for number in range(PEOPLE * IMAGES_EACH):
        upper, lower = outfit(number)
        pixels = random.integers(-20, 20, (32, 16, 3))
        pixels[:16] += COLOURS[upper]
        pixels[16:] += COLOURS[lower]
        paths.append(folder / f"{number:02d}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def outfit(number: int) -> tuple[str, str]:
    """The colours of a crop's person."""
    names, person = list(COLOURS), number // IMAGES_EACH
    return names[person % 4], names[(person // 4 + person) % 4]


@pytest.fixture(scope="session")
def captions() -> list[str]:
    """One for every crop, of different lengths."""
    more = ["", " and white shoes", " with a backpack"]
    outfits = [outfit(number) for number in range(PEOPLE * IMAGES_EACH)]
    return [f"a man in a {a} shirt and {b} jeans{more[i % 3]}" for i, (a, b) in enumerate(outfits)]


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> example.Tokenizers:
    return example.tokenizers(tmp_path_factory.mktemp("words"))


@pytest.fixture
def feed(crops) -> Callable[[tuple[int, int]], ImageFeed]:
    """feed(image size): the crops in that size."""
    return lambda image_size: ImageFeed(crops, image_size, None)


@pytest.fixture
def identities() -> np.ndarray:
    return np.repeat(np.arange(PEOPLE), IMAGES_EACH)


@pytest.fixture
def on_both(gpu, machine) -> Callable:
    """on_both(f) -> (f(machine of the CPU), f(machine of the pretended GPU)), in the same precision."""

    def run(action: Callable) -> tuple:
        return action(Machine(torch.device("cpu"), World(), machine.precision)), action(machine)

    return run
