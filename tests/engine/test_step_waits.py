"""The loop's whole step, forward, backward, optimiser and sums of losses: nothing in it reads a tensor's value."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_step import make_batch, make_model, make_trainer
from engine.loop import Place, Schedule, Trainer
from engine.machine import Machine
from engine.run import Run
from engine.stages.captioner_training import CaptioningTask
from models.backbones.attention import Dense
from models.backbones.blip import captioner, text
from models.batch import Batch
from models.texts import TextBatch
from models.world import World

# Operations that hand a value, or a shape that depends on values, from the device to the host.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "equal",
    "is_nonzero",
    "repeat_interleave",
}


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for a GPU; `seen` counts the operations that passed.

    On a CPU `tolist` and `numpy` read memory without an operation: of the losses, tests/methods sees those on tensors that
    have no values.
    """

    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            raise AssertionError(f"{name} waits for the device")
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            raise AssertionError("indexing by a mask waits for the device")
        self.seen += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """What only a CPU does, since there it costs nothing to ask: look for padding, and pack without it."""
    for module in (text, captioner):
        monkeypatch.setattr(module, "layout_of", lambda mask: Dense())
    monkeypatch.setattr(TextBatch, "__post_init__", lambda self: None)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_training_step_never_waits(precision, tmp_path, as_on_a_gpu):
    model = make_model("tiny", 0.1)
    batch = make_batch(model, 4, "cpu")
    trainer = make_trainer(model, tmp_path, "cpu", precision, compiled=False)
    trainer.task.train()
    trainer._step(batch, 0, 0)  # the optimiser makes its state
    before = model.itm_head.weight.detach().clone()
    with NoWaiting() as mode:
        trainer._step(batch, 0, 1)
    assert mode.seen > 500
    assert trainer.counted == 2
    assert not model.itm_head.weight.equal(before)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_of_the_captioner_never_waits(precision, tmp_path, as_on_a_gpu, tokenizer):
    model = captioner.BlipCaptioner("tiny", tokenizer=tokenizer)
    images = torch.randn(3, 3, *model.image_size)
    texts = tokenizer(["a man in a red shirt", "the woman wears a long blue dress", "he has"])
    batch = Batch(images, texts, model.prompt_lengths(["a man", "the woman wears", ""]))
    trainer = Trainer(
        CaptioningTask(model, World(), 0.1),
        [{"params": list(model.parameters()), "lr": 1e-3}],
        SimpleNamespace(steps=9),
        Schedule(1e-3, max_epoch=2),
        Place("pre_train"),
        Run(tmp_path),
        Machine(torch.device("cpu"), World(), precision),
        tmp_path / "last.pth",
        seed=0,
        on_epoch=lambda *_: None,
    )
    trainer.task.train()
    trainer._step(batch, 0, 0)
    before = model.text_decoder.cls.predictions.bias.detach().clone()
    with NoWaiting() as mode:
        trainer._step(batch, 0, 1)
    assert mode.seen > 500
    assert not model.text_decoder.cls.predictions.bias.equal(before)


@pytest.mark.parametrize(
    "read",
    [
        lambda values: values.sum().item(),
        lambda values: bool(values.any()),
        lambda values: values.nonzero(),
        lambda values: values[values > 0],
        lambda values: values.unique(),
    ],
)
def test_the_watch_sees_who_waits(read):
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        read(torch.ones(3))
