"""BatchNorm over the global batch: as torch's in one process, and the same divided over two and three."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models import World
from models.backbones.normalisation import BatchNorm1d, BatchNorm2d, convert

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import share_of_statistics as example  # noqa: E402

SIZES = (3, 2)
WHOLE = slice(None)


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """For every number of processes the results of each of them."""
    directory = tmp_path_factory.mktemp("statistics")
    command = [sys.executable, str(HERE / "share_of_statistics.py")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    sizes = ",".join(map(str, SIZES))
    processes = [
        subprocess.Popen(
            [*command, str(rank), sizes, str(directory)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(max(SIZES))
    ]
    try:
        errors = [process.communicate(timeout=240)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), errors
    results = [torch.load(directory / f"rank{rank}.pt") for rank in range(max(SIZES))]
    return {size: [of_rank[size] for of_rank in results[:size]] for size in SIZES}


@pytest.mark.integration
@pytest.mark.parametrize("size", SIZES)
def test_layers_equal_torchs_on_the_whole_batch(size, shares):
    """Outputs, gradients and running statistics, of rows of unlike mean and spread, and a mean far above both."""
    exact = example.layers(torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-4)):
        for name, (layer, values) in example.layers(dtype).items():
            expected = example.layer_step(layer, values, WHOLE, World())
            if dtype == torch.float32:  # the truth of the values as float32 has them
                expected = example.layer_step(exact[name][0], values.double(), WHOLE, World())
            for share in shares[size]:
                found = share[f"{name} {dtype}"]
                assert found.keys() == expected.keys()
                for key, wanted in expected.items():
                    scale = wanted.double().abs().max()
                    error = (found[key].double() - wanted.double()).abs().max() / scale
                    assert error < tolerance, (name, dtype, key, error)


@pytest.mark.integration
@pytest.mark.parametrize("size", SIZES)
def test_ssan_does_not_depend_on_the_number_of_processes(size, shares):
    """Losses, gradients and running statistics of the whole model with its ranking and identity losses."""
    whole = example.everything(WHOLE, World())
    for epoch in (0, 5):
        wanted = whole[f"epoch {epoch}"]
        assert all(wanted[f"ranking {level}"] > 0 for level in range(3))
        assert all(value.abs().max() > 0 for name, value in wanted.items() if name.startswith("gradient"))
        for share in shares[size]:
            torch.testing.assert_close(share[f"epoch {epoch}"], wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_one_process_computes_what_torch_does(training):
    for layer, values in example.layers(torch.float32).values():
        ours = copy.deepcopy(layer)
        convert(ours)
        for one in (layer, ours):
            one.train()(values)
            one.train(training)
        assert type(ours) in (BatchNorm1d, BatchNorm2d)
        assert ours(values).equal(layer(values))
        for name, buffer in layer.state_dict().items():
            assert ours.state_dict()[name].equal(buffer)


class _Unreachable(World):
    """Several processes, none of which may be asked."""

    size = 2

    def all_gather(self, tensor):
        raise AssertionError("evaluation must not wait for other processes")


def test_evaluation_asks_nobody():
    layer = BatchNorm2d(5).eval()
    layer.world = _Unreachable()
    values = torch.randn(2, 5, 3, 3)
    assert torch.allclose(layer(values), values, atol=1e-4)
    with pytest.raises(AssertionError):
        layer.train()(values)


class _Twins(World):
    """Two processes that hold the same rows."""

    size = 2

    def all_gather(self, tensor):
        return torch.cat([tensor, tensor])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_came_and_is_computed_in_float32(dtype):
    """As autocast hands values on. Of a mean of 100 in bfloat16 the deviations are steps of a half."""
    values = (100 + torch.randn(64, 5, generator=torch.Generator().manual_seed(0))).to(dtype)
    layer = BatchNorm1d(5)
    layer.world = _Twins()
    found = layer(values)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), nn.BatchNorm1d(5)(values.float()), atol=2e-2)
    assert layer.running_var.dtype == torch.float32
    assert layer.running_mean.allclose(values.float().mean(0) / 10, rtol=1e-6)


def test_layers_of_a_foreign_module_are_turned():
    foreign = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))
    )
    names, values = list(foreign.state_dict()), torch.randn(6, 3, 1, 1)
    expected = copy.deepcopy(foreign)(values)
    convert(foreign)
    assert foreign(values).equal(expected)
    assert list(foreign.state_dict()) == names
    assert [type(foreign[1]), type(foreign[2][1])] == [BatchNorm2d, BatchNorm1d]


@pytest.mark.parametrize("option", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_other_kinds_of_layers_are_refused(option):
    with pytest.raises(ValueError, match="default kind"):
        convert(nn.Sequential(nn.BatchNorm1d(3, **option)))
