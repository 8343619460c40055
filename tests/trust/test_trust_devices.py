"""With the same global batch the number of processes and machines changes the speed and not the run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from engine import checkpoints
from engine.config import load_config
from engine.labels import PseudoLabels
from tests.pipeline.mini import STAGES, free_port
from tests.synthetic_set import write_synthetic_set
from tests.trust.launched import ends_well, launch
from tests.trust.tiny_runs import TSN, TinyRun, differences

pytestmark = pytest.mark.integration
STEPS = 20
# Batches so small that encoding is divided: five for two processes in training, the last of them short in the test.
RUN = ("model.dropout=0", "train.init_lr=5e-6", "train.evaluate_every=100", "test.batch_size=4")
METHODS = {
    # At most 40 pairs: one step in an epoch, however many images cluster.
    "pspd": ("train.max_epoch=10", "train.rounds=2", "train.batch_size=32"),
    "weighted": ("model.method=pspd", "train.max_epoch=20", "train.rounds=1", "train.pair_weights=consensus"),
    "tsn": ("train.max_epoch=10", "train.rounds=2", "train.batch_size=8", *TSN),
    "cada": ("train.max_epoch=20", "train.batch_size=16", "train.warm_up.init_lr=5e-6"),
    "mixed": (
        "model.method=pspd",
        "train.data=mixed",
        "train.max_epoch=20",
        "train.rounds=1",
        "train.batch_size=32",
    ),
    "in turn": (
        "model.method=cada",
        "train.data=synthetic_then_real",
        "train.max_epoch=10",
        "train.batch_size=16",
        "train.warm_up.init_lr=5e-6",
    ),
}


@pytest.fixture(scope="module")
def captioned(server, tmp_path_factory) -> TinyRun:
    """A data set without val (the last weights are kept, whatever they are worth) and its generated captions."""
    root = tmp_path_factory.mktemp("devices")
    people = f"gen_images.root={write_synthetic_set(root / 'people')}"
    return TinyRun(root, server, *RUN, people, name="icfg_pedes").finish(*STAGES[:3])


class Trained:
    """What one training has left in its folder."""

    def __init__(self, captioned: TinyRun, name: str) -> None:
        self.folder = captioned.work / "output" / name
        self.weights = checkpoints.load(self.folder / "best.pth")["model"]

    def losses(self) -> list[dict[str, float]]:
        """Of every step, as they are logged."""
        events = map(json.loads, (self.folder / "metrics.jsonl").read_text("utf-8").splitlines())
        return [event["losses"] for event in events if event["event"] == "step"]

    def labels(self) -> dict[str, Any]:
        return {
            path.name: [getattr(PseudoLabels.load(path), name).tolist() for name in ("before", "after")]
            for path in sorted((self.folder / "labels").glob("*.npz"))
        }

    def val(self) -> list[dict[str, Any]]:
        """Of every epoch, as it is logged."""
        events = map(json.loads, (self.folder / "metrics.jsonl").read_text("utf-8").splitlines())
        return [event["val"] for event in events if event.get("phase") == "supervised" and "val" in event]

    def queries(self) -> list[dict[str, Any]]:
        """What the test says of each query."""
        return list(map(json.loads, (self.folder / "queries.jsonl").read_text("utf-8").splitlines()))

    def results(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in json.loads((self.folder / "results.json").read_text("utf-8")).items()
            if name != "seconds"
        }


def settings(method: str, run: str) -> list[str]:
    return ["--set", f"model.method={method}", f"run={run}", *METHODS[method]]


def alone(captioned: TinyRun, method: str, run: str) -> Trained:
    """Trained and evaluated by one process, which may not even ask for a process group."""
    for stage in ("train", "test"):
        # What torchrun tells a single process.
        world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        process = captioned.start(stage, *settings(method, run), forbid_group=True, environment=world)
        assert process.wait() == 0, process.said()[-2000:]
    return Trained(captioned, run)


def on_two(captioned: TinyRun, method: str, run: str) -> Trained:
    """Trained and evaluated by two processes that torchrun starts."""
    for stage in ("train", "test"):
        ends_well(launch(captioned, stage, *settings(method, run), NPROC=2, MASTER_PORT=free_port()))
    return Trained(captioned, run)


def counted(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A weight without the keys' biases: they shift all of a query's scores alike, so their gradient is rounding alone,

    and Adam makes whole steps of it, in any direction. Those of queries and values beside them count.
    """
    if name.endswith("key.bias"):
        return tensor[:0]
    if name.endswith("qkv.bias"):
        query, _, value = tensor.chunk(3)
        return torch.cat([query, value])
    if name.endswith("key_value.bias"):
        return tensor.chunk(2)[1]
    return tensor


def check_same(one: Trained, two: Trained) -> None:
    assert len(one.losses()) == len(two.losses()) >= STEPS
    for step, (first, second) in enumerate(zip(one.losses(), two.losses(), strict=True)):
        assert second == pytest.approx(first, rel=1e-5, abs=2e-5), step  # five decimals are logged
    apart = torch.cat(
        [
            (counted(name, weight) - counted(name, two.weights[name])).abs().flatten()
            for name, weight in one.weights.items()
        ]
    )
    assert apart.max() < 1e-5
    # Rounding reaches few: Adam makes a whole step of the smallest gradient. A wrong gradient would move all.
    assert (apart > 1e-6).float().mean() < 1e-3
    assert one.labels() == two.labels()
    assert one.results() == two.results()
    for first, second in zip(one.queries(), two.queries(), strict=True):
        apart = np.subtract(first.pop("scores"), second.pop("scores"))
        assert np.abs(apart).max() < 2e-5  # five decimals are written
        assert first == second


def test_pspd_on_one_and_two_processes_and_on_two_machines(captioned):
    """Two machines are two launches that know each other's address, as in docs/multi_node.md."""
    one, two = alone(captioned, "pspd", "one"), on_two(captioned, "pspd", "two")
    assert len(one.labels()) == 2
    check_same(one, two)
    meeting = {"NPROC": 1, "NNODES": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    nodes = [
        launch(captioned, "train", *settings("pspd", "nodes"), NODE_RANK=rank, **meeting) for rank in range(2)
    ]
    ends_well(*nodes)
    assert captioned.run("test", *settings("pspd", "nodes")) == 0
    apart = Trained(captioned, "nodes")
    assert not differences(two.weights, apart.weights)
    assert (two.losses(), two.labels(), two.results()) == (apart.losses(), apart.labels(), apart.results())


def test_val_is_shared_by_two_processes_after_every_epoch(server, tmp_path):
    """Four images in batches of three; the model is chosen by them."""
    every = ("train.evaluate_every=1", "train.max_epoch=3", "test.batch_size=3")
    run = TinyRun(tmp_path, server, *RUN)
    assert run.run("train", *settings("cada", "one"), *every) == 0
    ends_well(launch(run, "train", *settings("cada", "two"), *every, NPROC=2, MASTER_PORT=free_port()))
    one, two = Trained(run, "one"), Trained(run, "two")
    assert len(one.val()) == 3
    assert all(values["itm"]["mINP"] > 0 for values in one.val())
    assert one.val() == two.val()


@pytest.mark.slow
def test_weighted_pairs_on_one_and_two_processes(captioned):
    one = alone(captioned, "weighted", "weighted-one")
    check_same(one, on_two(captioned, "weighted", "weighted-two"))
    lines = map(json.loads, (one.folder / "metrics.jsonl").read_text("utf-8").splitlines())
    weighted = [event["left_out"] for event in lines if event["event"] == "pair_weights"]
    assert len(weighted) == 20
    assert 0 < max(weighted) < 1


def test_cada_on_one_and_two_processes(captioned):
    check_same(alone(captioned, "cada", "cada-one"), on_two(captioned, "cada", "cada-two"))


def test_rounds_with_a_synthetic_set_beside_on_one_and_two_processes(captioned):
    check_same(alone(captioned, "mixed", "mixed-one"), on_two(captioned, "mixed", "mixed-two"))


@pytest.mark.slow
def test_a_synthetic_set_and_then_the_data_set_on_one_and_two_processes(captioned):
    check_same(alone(captioned, "in turn", "in-turn-one"), on_two(captioned, "in turn", "in-turn-two"))


@pytest.mark.slow
def test_tsn_on_one_and_two_processes(captioned):
    check_same(alone(captioned, "tsn", "tsn-one"), on_two(captioned, "tsn", "tsn-two"))


def test_the_weights_that_do_not_count_are_few():
    """Of an attention's biases one in three, of all weights next to none."""
    assert counted("attn.qkv.bias", torch.ones(9)).shape == (6,)
    assert counted("self.key.bias", torch.ones(3)).shape == (0,)
    assert counted("attn.qkv.weight", torch.ones(9, 3)).shape == (9, 3)
    assert load_config([]).train.batch_size == 36  # the global batch, whatever the number of processes


@pytest.mark.slow
def test_a_mistake_on_two_processes_is_a_sentence_on_both(captioned):
    process = launch(
        captioned,
        "train",
        *settings("pspd", "mistaken"),
        "cluster.eps=1e-9",
        "cluster.min_samples=19",
        NPROC=2,
        MASTER_PORT=free_port(),
    )
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 1
    assert "Training on such labels would teach nothing" in said
    assert (
        "Traceback (most recent call last)"
        not in said.split("ChildFailedError")[0].split("torch/distributed")[0]
    )
