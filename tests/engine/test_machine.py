"""Which device, which precision: asked of a machine with two cards by standing in for the driver, which CI does not have."""

from __future__ import annotations

import copy
import os
from importlib.metadata import version

import pytest
import torch
from torch import nn

from data.errors import UserError
from engine.config import RuntimeConfig
from engine.machine import KEPT, KERNELS, Machine, make_machine
from engine.multiplication import Multiplication
from models.backbones import linear
from models.world import World

CARDS = 2


@pytest.fixture
def cards(monkeypatch):
    """Two GPUs of one generation; returns what became current, and a function that sets the generation."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: CARDS)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(torch.device(device)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return chosen


def machine_of(device: str = "auto", precision: str = "auto") -> Machine:
    return make_machine(RuntimeConfig(device=device, precision=precision))


def test_devices_that_are_none_are_told():
    with pytest.raises(UserError, match="abacus"):
        machine_of("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_told(device):
    with pytest.raises(UserError, match="sees none"):
        machine_of(device)


@pytest.mark.parametrize(("device", "found"), [("cuda:1", 1), ("cuda:0", 0), ("cuda", 0), ("auto", 0)])
def test_a_single_process_gets_the_card_it_names(cards, device, found):
    assert machine_of(device).device == torch.device("cuda", found)
    assert cards == [torch.device("cuda", found)]


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_process_of_several_on_a_machine_gets_its_own(cards, monkeypatch, device):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert machine_of(device).device == torch.device("cuda", 1)


def test_one_card_for_several_processes_is_refused(cards, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"cuda:1 .* is one GPU, and this run has 2 processes.*NPROC=1"):
        machine_of("cuda:1")


def test_cards_beyond_the_last_are_told(cards, monkeypatch):
    with pytest.raises(UserError, match=r"cuda:2 .*the last of 2 GPUs is cuda:1"):
        machine_of("cuda:2")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"Process 2 .*there are 2.*NPROC"):
        machine_of("cuda")


@pytest.mark.parametrize(
    ("capability", "found"),
    [((7, 0), torch.float32), ((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_auto_is_bf16_on_cards_that_compute_in_it(cards, monkeypatch, capability, found):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device=None: asked.append(device) or capability
    )
    assert machine_of("cuda:1").precision is found
    assert asked == [torch.device("cuda", 1)]


def test_a_precision_that_is_named_is_taken(cards):
    for device in ("cuda", "cpu"):
        assert machine_of(device, "fp32").precision is torch.float32
        assert machine_of(device, "bf16").precision is torch.bfloat16
    assert machine_of("cpu").precision is torch.float32


@pytest.fixture
def cpu_with_bf16(monkeypatch):
    """A CPU that was found to multiply bf16 faster."""
    found = Multiplication("torch", True, {})
    monkeypatch.setattr(linear, "_library", linear.library())
    monkeypatch.setattr("engine.multiplication._remembered_or_measured", lambda able: found)
    monkeypatch.setattr("engine.processor.multiplies_bf16", lambda: True)


WIDE, NARROW = [nn.Sequential(linear.Linear(width, width)) for width in (768, 64)]


def test_a_cpu_that_is_faster_in_bf16_searches_and_captions_in_it_and_trains_in_fp32(cpu_with_bf16):
    machine = machine_of("cpu")
    assert machine.precision is torch.float32
    used = machine.for_use(WIDE)
    assert used.precision is torch.bfloat16
    placed = used.place(copy.deepcopy(WIDE))
    assert placed.precision is placed[0].weight.dtype is torch.bfloat16
    assert machine.place(copy.deepcopy(WIDE))[0].weight.dtype is torch.float32
    # What is narrow gains nothing; a precision that is named is taken.
    assert machine.for_use(NARROW).precision is torch.float32
    assert machine_of("cpu", "fp32").for_use(WIDE).precision is torch.float32
    assert machine_of("cpu", "bf16").for_use(NARROW).precision is torch.bfloat16


def test_auto_trains_in_bf16_where_that_is_decided(cpu_with_bf16, monkeypatch):
    monkeypatch.setattr("engine.machine.AUTO_TRAINS_IN_BF16", True)
    assert machine_of("cpu").precision is torch.bfloat16
    monkeypatch.setattr("engine.processor.multiplies_bf16", lambda: False)
    assert machine_of("cpu").precision is torch.float32


def test_a_machine_says_what_results_depend_on(cpu_with_bf16):
    said = make_machine(RuntimeConfig(device="cpu", linear="torch")).describe()
    assert (said["device"], said["precision"], said["linear"]) == ("cpu", "fp32", "torch")
    assert said["libraries"]["torch"] == version("torch")
    assert said["libraries"]["pillow"] == version("pillow")
    assert said["libraries"].keys() >= {"torchvision", "numpy", "jpeg"}
    assert said["processor"]


def test_a_placed_model_knows_its_processes_and_its_precision():
    world, model = World(), nn.Linear(2, 2)
    placed = Machine(torch.device("meta"), world, torch.bfloat16).place(model)
    assert placed is model
    assert placed.world is world
    assert placed.precision is torch.bfloat16
    assert {parameter.device.type for parameter in placed.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in placed.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", KEPT)
def test_few_kernels_are_kept_unless_the_user_says_otherwise(monkeypatch, name) -> None:
    monkeypatch.delenv(name, raising=False)
    make_machine(RuntimeConfig(device="cpu"))
    assert os.environ[name] == str(KERNELS)
    monkeypatch.setenv(name, "7")
    make_machine(RuntimeConfig(device="cpu"))
    assert os.environ[name] == "7"
