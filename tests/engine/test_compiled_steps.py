"""`runtime.compile`: one graph for a training step of any task, another one for every text width, and the eager step's losses.

torch takes no LSTM into a graph: what is around it becomes a few.
"""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from benchmarks.training_step import make_trainer
from data.errors import UserError
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.loop import Trainer
from engine.machine import Machine
from engine.stages.captioner_training import CaptioningTask
from engine.stages.search_training import RetrievalTask
from engine.warm_up import WarmUpTask
from models import METHODS, TrainingCaption
from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.tokenizer import BlipTokenizer
from models.batch import Batch
from models.methods.base import Method
from models.world import World
from tests.methods import method_examples as example

CPU = torch.device("cpu")
LABELS = [0, 0, 1, 2, 1, 3]


@pytest.fixture
def words(tmp_path) -> example.Tokenizers:
    return example.tokenizers(tmp_path)


@pytest.fixture
def graphs(monkeypatch):
    """Counts the graphs that are captured; they then run as they were captured, without a compiler."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    yield counter
    torch._dynamo.reset()


@pytest.fixture
def trainer(tmp_path) -> Callable[..., Trainer]:
    """trainer(task): the loop's own, compiling."""

    def make(task: nn.Module, precision: torch.dtype = torch.float32) -> Trainer:
        groups = [{"params": list(task.parameters()), "lr": 1e-5, "weight_decay": 0.05}]
        task.train()
        return make_trainer(task, groups, tmp_path, Machine(CPU, World(), precision, compile=True))

    return make


def in_one_width(batch: Batch, width: int = 32) -> Batch:
    """As the feed gives it where a machine compiles."""
    batch.texts = batch.texts.widened(width)
    batch.epoch, batch.progress = torch.tensor(0), torch.tensor(0.5)
    if batch.companions is not None:
        batch.companions = batch.companions.widened(width)
    return batch


@pytest.mark.integration
@pytest.mark.parametrize("method", example.all_methods())
def test_a_methods_step_is_one_graph(method, words, trainer, graphs):
    """Also with dropout, in bfloat16, in any epoch, and for the next round's model."""
    model = example.model(method, words, **example.dropout(method, 0.1))
    batch = in_one_width(example.batch(model, LABELS))
    compiling = trainer(RetrievalTask(model), torch.bfloat16)
    compiling._step(batch, 0, 0)
    breaks = torch._dynamo.utils.counters["graph_break"]
    if any(isinstance(part, nn.LSTM) for part in model.modules()):
        assert all("LSTM" in reason for reason in breaks)
    else:
        assert not breaks
        assert graphs.frame_count == 1
    count = graphs.frame_count
    batch.epoch, batch.progress = torch.tensor(7), torch.tensor(7.25)
    compiling._step(batch, 7, 1)
    again = example.model(method, words, **example.dropout(method, 0.1))
    trainer(RetrievalTask(again), torch.bfloat16)._step(batch, 0, 0)
    assert graphs.frame_count == count


@pytest.mark.integration
@pytest.mark.parametrize("matching", [False, True])
def test_a_warm_ups_step_is_one_graph(matching, words, trainer, graphs):
    model = example.model("pspd", words, vit_grad_ckpt=True, vit_ckpt_layer=2)
    batch = in_one_width(example.batch(model, LABELS))
    trainer(WarmUpTask(model, matching))._step(batch, 0, 0)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert graphs.frame_count == 1


@pytest.mark.integration
def test_the_captioners_step_is_one_graph(words, trainer, graphs):
    task, batch = captioning(words)
    trainer(task)._step(batch, 0, 0)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert graphs.frame_count == 1


def captioning(words: example.Tokenizers) -> tuple[CaptioningTask, Batch]:
    torch.manual_seed(0)
    model = BlipCaptioner("tiny", (32, 16), words[BlipTokenizer], dropout=0.0)
    texts = model.tokenizer([caption.text for caption in example.CAPTIONS]).widened(32)
    batch = Batch(torch.randn(6, 3, 32, 16), texts, model.prompt_lengths(["a man"] * 6))
    return CaptioningTask(model, World(), 0.1), batch


@pytest.fixture
def batches(crops, words) -> Callable[[Method, int], PairBatches]:
    """batches(model, multiple): of single captions of 5 to 65 tokens, with words left out."""
    captions = [TrainingCaption(" ".join(["a"] * (3 + 5 * i))) for i in range(13)]

    def make(model: Method, text_multiple: int) -> PairBatches:
        pairs = Pairs(np.arange(13) % len(crops), model.prepare(captions), np.arange(13))
        feed = ImageFeed(crops, model.image_size, None)
        return PairBatches(
            feed, pairs, 1, World(), CPU, seed=0, name="x", padding=2, words=0.3, text_multiple=text_multiple
        )

    return make


@pytest.mark.integration
def test_every_text_width_is_a_graph_and_there_are_five(words, trainer, graphs, batches):
    model = example.model("tsn", words)
    compiling = trainer(WarmUpTask(model, False))
    multiple = compiling.machine.text_multiple
    widths, lengths = set(), set()
    for step, batch in enumerate(batches(model, multiple).epoch(0)):
        assert batch.shortened.ids.shape == batch.texts.ids.shape
        assert not batch.texts.full
        widths.add(batch.texts.ids.shape[1])
        lengths.add(int(batch.texts.mask.sum()))
        compiling._step(batch, 0, step)
    assert len(lengths) == 13
    assert widths == {16, 32, 48, 64, 80}
    assert graphs.frame_count == 5


def test_rounded_widths_change_padding_alone(words, batches):
    model = example.model("pspd", words)
    for trimmed, rounded in zip(batches(model, 1).epoch(1), batches(model, 16).epoch(1), strict=True):
        for plain, wide in ((trimmed.texts, rounded.texts), (trimmed.shortened, rounded.shortened)):
            width = plain.ids.shape[1]
            assert wide.ids.shape[1] % 16 == 0
            assert not wide.mask[:, width:].any()
            assert wide.ids[:, :width].equal(plain.ids)
            assert all(wide.extras[name][:, :width].equal(extra) for name, extra in plain.extras.items())
        assert rounded.images.equal(trimmed.images)


def test_a_machine_rounds_where_it_compiles_and_on_a_gpu():
    assert Machine(CPU, World(), torch.float32).text_multiple == 1
    assert Machine(CPU, World(), torch.float32, compile=True).text_multiple == 16
    assert Machine(torch.device("cuda"), World(), torch.float32).text_multiple == 16


class Scale(nn.Module):
    """The least that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"mean": (batch.images * self.weight).square().mean()}


def step_without_a_compiler(folder: Path) -> str:
    """What a compiling step says in a process that finds no compiler."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
    torch._inductor.config.cpp.cxx = ("no-such-compiler",)
    task = Scale()
    groups = [{"params": list(task.parameters()), "lr": 1e-5, "weight_decay": 0.05}]
    trainer = make_trainer(task, groups, folder, Machine(CPU, World(), torch.float32, compile=True))
    try:
        trainer._step(Batch(torch.randn(2, 3, 8, 4), None, torch.zeros(2)), 0, 0)
    except UserError as error:
        return str(error)
    return "no error"


def test_without_a_compiler_there_is_one_sentence(tmp_path):
    # In a process of its own: inductor remembers what it found out about the compiler as long as a process lives.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        said = pool.submit(step_without_a_compiler, tmp_path).result(timeout=300)
    assert re.match(r"torch\.compile failed .*runtime\.compile=false", said)


def losses_and_gradients(task: nn.Module, run: Callable, batch: Batch) -> tuple[dict, list[torch.Tensor]]:
    losses = run(batch)
    sum(losses.values()).backward()
    gradients = [p.grad.clone() for p in task.parameters() if p.grad is not None]
    task.zero_grad()
    return losses, gradients


@pytest.mark.slow
@pytest.mark.parametrize("what", [*METHODS, "captioner"])
def test_a_compiled_step_computes_what_the_eager_step_does(what, words, trainer, monkeypatch, tmp_path):
    """By inductor and the C++ compiler, losses and gradients."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    if what == "captioner":
        task, batch = captioning(words)
    else:
        model = example.model(what, words)
        task, batch = RetrievalTask(model), in_one_width(example.batch(model, LABELS))
    compiling = trainer(task)
    expected, gradients = losses_and_gradients(task, task, batch)
    found, compiled = losses_and_gradients(task, compiling.forward, batch)
    for name, loss in expected.items():
        assert found[name].item() == pytest.approx(loss.item(), rel=1e-4), name
    largest = max(gradient.abs().max().item() for gradient in gradients)
    for gradient, reference in zip(compiled, gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5 * largest)
