"""A gallery of drawn people and a model that has learnt it by heart, as the search's own commands read them."""

from __future__ import annotations

import logging
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from data import PedesDataset, load_dataset
from data.records import Record
from engine import checkpoints
from engine.log import LOGGER
from models import build_model
from models.backbones.blip.tokenizer import BlipTokenizer
from models.methods.base import Method
from serving.opening import decoder, open_searcher
from synthesis.demo import make_demo
from tests.serving.commands import CPU, run

IMAGE_SIZE = (48, 24)
STEPS = 45


@dataclass(frozen=True)
class Demo:
    """The test split as a data set, its images in a folder of their own, and a checkpoint."""

    dataset: PedesDataset
    crops: Path
    checkpoint: Path

    @property
    def records(self) -> list[Record]:
        return self.dataset.test


def _learn(model: Method, demo: PedesDataset) -> None:
    """A few seconds of contrasting the gallery with its first captions: enough for queries to find their person."""
    images = torch.stack([decoder(IMAGE_SIZE)(demo.path(record)) for record in demo.test])
    texts = model.tokenizer([record.captions[0] for record in demo.test])
    own = torch.arange(len(images))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (step + 1) / 8)
        seen, said = model.encode_images(images)[1], model.encode_texts(texts)[1]
        logits = normalize(said, dim=1) @ normalize(seen, dim=1).T / 0.07
        (cross_entropy(logits, own) + cross_entropy(logits.T, own)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Demo:
    root = tmp_path_factory.mktemp("search-demo")
    make_demo(root / "set", train=1, val=0, test=16, images=2, seed=3)
    dataset = load_dataset("cuhk_pedes", root / "set")
    for record in dataset.test:
        target = root / "crops" / record.image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(dataset.path(record), target)
    words = BlipTokenizer.train(
        [caption for record in dataset.test for caption in record.captions] * 3,
        root / "words",
        vocab_size=300,
    )
    torch.manual_seed(0)
    model = build_model("pspd", size="tiny", image_size=IMAGE_SIZE, tokenizer=words, dropout=0.0)
    _learn(model, dataset)
    checkpoints.save(root / "best.pth", checkpoints.describe(model, "pspd", "tiny"))
    return Demo(dataset, root / "crops", root / "best.pth")


@pytest.fixture
def crops(demo, tmp_path) -> Path:
    """The gallery's images in a folder that the test may change."""
    return Path(shutil.copytree(demo.crops, tmp_path / "crops"))


@pytest.fixture(scope="module")
def searcher(demo, tmp_path_factory):
    """An index of the gallery, beside whose images lie files that nobody may see."""
    root = tmp_path_factory.mktemp("page")
    crops = Path(shutil.copytree(demo.crops, root / "crops"))
    (crops / "bad.jpg").write_text("no image")
    assert run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", root / "index").code == 0
    (crops / "private.txt").write_text("private words")
    shutil.copy(demo.checkpoint.parent / "words" / "vocab.txt", crops / "later.jpg")  # not indexed
    return open_searcher(root / "index", CPU)


@pytest.fixture(scope="module")
def address(searcher):
    """Where the page of this searcher is served."""
    page = pytest.importorskip("serving.page", reason="the page needs Gradio")
    with page.page_server(searcher, "127.0.0.1", 0) as address:
        yield address


@pytest.fixture
def messages():
    """What the project logs during the test; handlers and signals are put back after."""
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())
    before, propagate = list(LOGGER.handlers), LOGGER.propagate
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    LOGGER.handlers = [handler]
    yield kept
    LOGGER.handlers, LOGGER.propagate = before, propagate
    for number, former in signals.items():
        signal.signal(number, former)
