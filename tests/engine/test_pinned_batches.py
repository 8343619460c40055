"""A batch goes to a GPU out of page-locked memory, without anybody waiting, and that memory is not written to too early."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from data.buffers import Buffers
from engine.feeds import ImageFeed, PairBatches, Pairs
from models.batch import Batch
from models.texts import TextBatch
from models.world import World

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def batches_on(crops, tokenizer):
    texts = tokenizer([f"a man in a {colour} shirt" for colour in ("red", "blue", "long grey", "white")] * 6)
    texts = texts.with_extras(upper=texts.ids > 20)
    pairs = Pairs(np.arange(24) % 12, texts, np.arange(24) // 3)

    def make(device: torch.device) -> PairBatches:
        feed = ImageFeed(crops, (32, 16), None)
        return PairBatches(
            feed, pairs, 8, World(), device, seed=1, name="x", padding=2, words=0.3, companions=True
        )

    return make


def tensors_of(batch: Batch | TextBatch) -> list[torch.Tensor]:
    found = []
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, TextBatch):
            found += [*tensors_of(value), *value.extras.values()]
    return found


@pytest.fixture
def driver(monkeypatch):
    """Stands in for the parts of torch that need a GPU; returns (memory that was page-locked, copies that would wait)."""
    locked: dict[int, torch.Tensor] = {}
    waiting: list[torch.Size] = []
    empty, to = torch.empty, torch.Tensor.to

    def lock(tensor: torch.Tensor) -> torch.Tensor:
        locked[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def is_locked(tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in locked

    def allocate(*shape, pin_memory=False, **options):
        return lock(empty(*shape, **options)) if pin_memory else empty(*shape, **options)

    def pin_memory(tensor):
        return tensor if is_locked(tensor) else lock(tensor.clone())

    def transfer(tensor, *target, non_blocking=False, **options):
        if target and target[0] == GPU:
            if not (non_blocking and is_locked(tensor)):
                waiting.append(tensor.shape)
            return tensor.clone()
        return to(tensor, *target, non_blocking=non_blocking, **options)

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", transfer)
    return locked, waiting


def test_everything_in_a_batch_is_page_locked_and_nothing_waits(batches_on, driver):
    locked, waiting = driver
    expected = [tensors_of(batch) for batch in batches_on(CPU).epoch(0)]
    assert not locked
    found = [tensors_of(batch) for batch in batches_on(GPU).epoch(0)]
    assert not waiting
    assert len(locked) >= sum(map(len, found)) > 3 * 11
    for batch, other in zip(found, expected, strict=True):
        for one, two in zip(batch, other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_page_locked_memory_is_torchs_to_hand_out_again(driver):
    """Only torch knows when the copies out of it are done; keeping it here would overwrite a batch on its way."""
    locked, _ = driver
    buffers = Buffers(pinned=True)
    for _ in range(3):
        tensor = buffers.empty(2, 3)
        assert (tensor.shape, tensor.dtype) == ((2, 3), torch.float32)
        del tensor
    assert len(locked) == 3
    assert not buffers._free


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_arrive_whole_on_a_gpu_that_is_busy(batches_on):
    device = torch.device("cuda", torch.cuda.current_device())
    expected = [tensors_of(batch) for epoch in range(4) for batch in batches_on(CPU).epoch(epoch)]
    work, found = torch.randn(4096, 4096, device=device), []
    for epoch in range(4):
        for batch in batches_on(device).epoch(epoch):
            for _ in range(20):
                work = work @ work / work.norm()
            found.append([one.clone() for one in tensors_of(batch)])
    for batch, other in zip(found, expected, strict=True):
        for one, two in zip(batch, other, strict=True):
            torch.testing.assert_close(one.cpu(), two, rtol=0, atol=0)
