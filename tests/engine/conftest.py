"""What the engine's tests share: a vocabulary, a configuration in a temporary folder, and the log's messages."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.config import Config, load_config
from engine.log import LOGGER
from engine.machine import Machine
from models.backbones.blip.tokenizer import BlipTokenizer
from models.world import World

CAPTIONS = [
    "a man in a red shirt and black trousers",
    "the woman wears a long blue dress and white shoes",
    "he has a grey jacket with a backpack",
    "a girl with a yellow skirt and brown boots",
]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> BlipTokenizer:
    return BlipTokenizer.train(CAPTIONS * 3, tmp_path_factory.mktemp("words"), vocab_size=200)


@pytest.fixture
def config(tmp_path) -> Config:
    """The demo's configuration, small, with everything it writes below the test's own folder."""
    places = [
        f"output={tmp_path}/output",
        f"pre_gen_data={tmp_path}/captions",
        f"dataset.root={tmp_path}/datasets",
        "dataset.synthesis=null",
        "runtime.device=cpu",
    ]
    return load_config("configs/demo.yaml", places)


@pytest.fixture
def machine() -> Machine:
    return Machine(torch.device("cpu"), World(), torch.float32)


@pytest.fixture
def messages():
    """Everything the project logs during the test, as text."""
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())
    level, propagate, before = LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)
    LOGGER.handlers, LOGGER.propagate = [handler], False
    LOGGER.setLevel(logging.INFO)
    yield kept
    for other in LOGGER.handlers:
        other.close()
    LOGGER.handlers, LOGGER.propagate = before, propagate
    LOGGER.setLevel(level)


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """A stage catches SIGTERM and ctrl-C for the whole process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def crops(tmp_path) -> list[Path]:
    """Twelve crops of 16 x 32 pixels in distinct plain colours, in two groups: reds and blues."""
    folder = tmp_path / "crops"
    folder.mkdir()
    paths = []
    for index in range(12):
        shade = 150 + 8 * (index // 2)
        colour = (shade, 20, 30) if index % 2 else (20, 40, shade)
        paths.append(folder / f"{index:02d}.png")
        Image.new("RGB", (16, 32), colour).save(paths[-1])
    return paths
