"""Training on the pretended GPU: every method's step, the warm-up's and the captioner's, forward, backward and optimiser.

The steps are the loop's own on batches of the feed's own. In each: no operation on two devices, nothing that the host waits
for, no loss from scores in half precision; in fp32 losses and gradients come out as on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.training_step import make_trainer
from engine.feeds import PairBatches, Pairs
from engine.loop import Trainer
from engine.machine import Machine
from engine.stages.captioner_training import CaptioningTask
from engine.stages.search_training import RetrievalTask
from engine.warm_up import WarmUpTask
from models import TrainingCaption
from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.tokenizer import BlipTokenizer
from models.methods.base import Method
from tests.cuda.pretend_gpu import GpuTensor, PretendGpu, put
from tests.methods import method_examples as example

BATCH = 6


@pytest.fixture
def pairs(captions, identities) -> Callable[[Method], Pairs]:
    """Every crop with its caption, as a method prepares them."""

    def make(model: Method) -> Pairs:
        texts = [TrainingCaption(text, ("red", "shirt"), ("jeans",)) for text in captions]
        return Pairs(np.arange(len(texts)), model.prepare(texts), identities % 6)

    return make


@pytest.fixture
def train(gpu, feed, tmp_path) -> Callable[..., Trainer]:
    """train(machine, task, model, pairs): steps of the loop on whatever device, watched on the GPU.

    Further options are the feed's.
    """

    def run(
        machine: Machine, task: nn.Module, model: nn.Module, pairs: Pairs, steps: int = 1, **options: Any
    ) -> Trainer:
        put(model, machine.place)
        batches = PairBatches(
            feed(model.image_size),
            pairs,
            BATCH,
            machine.world,
            machine.device,
            seed=0,
            name="x",
            padding=2,
            text_multiple=machine.text_multiple,
            **options,
        )
        groups = [{"params": list(model.parameters()), "lr": 1e-5, "weight_decay": 0.05}]
        trainer = make_trainer(task, groups, tmp_path, machine)
        task.train()
        for step, batch in zip(range(steps), batches.epoch(0), strict=False):
            with gpu.no_reads():
                trainer._step(batch, 0, step)
        assert trainer.counted == steps
        return trainer

    return run


def assert_on_the_gpu(gpu: PretendGpu, trainer: Trainer) -> None:
    """All there is lies on the GPU, was worked with there, and is float32."""
    assert gpu.count > 1000
    losses = list(trainer.losses.values())
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    for tensor in [*trainer.task.parameters(), *losses, *states]:
        assert isinstance(tensor, GpuTensor)
        assert tensor.dtype == torch.float32
    assert not any(loss.born_half for loss in losses)


def gradients(trainer: Trainer) -> list[Tensor]:
    """The optimiser's running means of all weights' gradients; a warm-up leaves the heads alone."""
    states = trainer.optimizer.state
    return [states[one]["exp_avg"].cpu() for one in trainer.task.parameters() if one in states]


def assert_alike(machine: Machine, ours: Trainer, theirs: Trainer) -> None:
    """Losses and gradients of both devices; half precision sums in another order, and its losses are compared roughly."""
    close = 1e-5 if machine.precision == torch.float32 else 0.05
    for name, loss in theirs.losses.items():
        assert ours.losses[name].item() == pytest.approx(loss.item(), rel=close), name
    if machine.precision == torch.float32:
        expected = gradients(theirs)
        largest = max(one.abs().max().item() for one in expected)
        for found, reference in zip(gradients(ours), expected, strict=True):
            torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-6 * largest)


@pytest.mark.parametrize("method", example.all_methods())
def test_a_methods_step(method, words, pairs, train, on_both, gpu, machine):
    def step(machine: Machine) -> Trainer:
        model = example.model(method, words)
        options = {"words": 0.3, "companions": model.wants_companions, "views": model.wants_views}
        return train(machine, RetrievalTask(model), model, pairs(model), steps=2, **options)

    theirs, ours = on_both(step)
    assert_on_the_gpu(gpu, ours)
    assert_alike(machine, ours, theirs)


@pytest.mark.parametrize("matching", [False, True])
@pytest.mark.parametrize("method", example.all_methods())
def test_a_warm_ups_step(method, matching, words, pairs, train, on_both, gpu, machine):
    def step(machine: Machine) -> Trainer:
        model = example.model(method, words)
        if matching and not model.has_matching:
            pytest.skip("a warm-up without this part")
        if matching:
            model.start_matching()
        options = {"words": 0.3, "views": model.wants_views}
        return train(machine, WarmUpTask(model, matching), model, pairs(model), **options)

    theirs, ours = on_both(step)
    assert_on_the_gpu(gpu, ours)
    assert_alike(machine, ours, theirs)


def test_a_step_with_dropout_and_recomputed_blocks(words, pairs, train, gpu, machine):
    model = example.model("pspd", words, dropout=0.1, vit_grad_ckpt=True, vit_ckpt_layer=2)
    assert_on_the_gpu(gpu, train(machine, RetrievalTask(model), model, pairs(model)))


def test_the_captioners_step(words, captions, crops, train, on_both, gpu, machine):
    def step(machine: Machine) -> Trainer:
        torch.manual_seed(0)
        tokenizer = words[BlipTokenizer]
        model = BlipCaptioner("tiny", (32, 16), tokenizer, dropout=0.0)
        lengths = model.prompt_lengths(["a man in"] * len(captions)).numpy()
        pairs = Pairs(np.arange(len(captions)), tokenizer(captions, max_length=77), lengths)
        return train(machine, CaptioningTask(model, machine.world, 0.1), model, pairs)

    theirs, ours = on_both(step)
    assert_on_the_gpu(gpu, ours)
    assert_alike(machine, ours, theirs)
