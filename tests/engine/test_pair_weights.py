"""Weights of pairs before each epoch: wrong pairs get less, on any number of processes and after any stop."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clustering.mixture import clean_probability
from engine import checkpoints
from engine.distributed import Interrupted
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.loop import Machine, Place, Schedule, Trainer
from engine.pair_weights import PairWeights, consensus
from engine.run import Run
from models import build_model
from models.methods.base import Method
from models.world import World

COUNT, WRONG = 40, (3, 11, 24, 37)


class Judge(nn.Module):
    """Stands where a method does: its two opinions are read off words and pixels, so that each pair's are known.

    ``seen`` are the batches that it was asked about, ``modes`` whether it was training then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.modes = [], []

    def pair_losses(self, batch) -> Tensor:
        self.seen.append(batch)
        self.modes.append(self.training)
        lengths = batch.texts.mask.sum(1).float()
        return torch.stack([lengths, batch.images[:, 0, 16, 8]])


class Exchange:
    """Processes that are threads: each gets the values of all."""

    def __init__(self, size: int) -> None:
        self.values: list[Tensor] = [torch.empty(0)] * size
        self.barrier = threading.Barrier(size, timeout=60)


class ThreadWorld(World):
    def __init__(self, exchange: Exchange, rank: int) -> None:
        self.exchange, self.rank, self.size = exchange, rank, len(exchange.values)

    def all_gather(self, tensor: Tensor) -> Tensor:
        self.exchange.values[self.rank] = tensor
        self.exchange.barrier.wait()
        joined = torch.cat(self.exchange.values)
        self.exchange.barrier.wait()
        return joined


@pytest.fixture
def pairs(tokenizer) -> Pairs:
    """Right pairs have one word, wrong ones (``WRONG``) many."""
    texts = tokenizer(["red " * (30 if i in WRONG else 1 + i % 3) for i in range(COUNT)])
    return Pairs(np.arange(COUNT) % 12, texts, np.arange(COUNT))


@pytest.fixture
def make(crops, pairs, tmp_path, messages):
    """make(model, kind=..., world=..., size=...) -> PairWeights of ``COUNT`` pairs."""
    feed = ImageFeed(crops, (32, 16), None)

    def weights(model, kind="consensus", world=None, size=12, name="round-0") -> PairWeights:
        world = world or World()
        machine = Machine(torch.device("cpu"), world, torch.float32)
        batches = PairBatches(feed, pairs, size, world, machine.device, seed=1, name=name)
        place, path = Place(name), tmp_path / "run" / "pair_weights.pth"
        return PairWeights(model, batches, kind, path, place, Run(tmp_path / "run"), machine)

    return weights


def test_consensus_is_its_table():
    probabilities = np.array([[0.9, 0.9, 0.1, 0.1, 0.5, 0.51], [0.8, 0.2, 0.8, 0.2, 0.5, 0.51]])
    heads, tails = (consensus(probabilities, np.full(6, coin)) for coin in (True, False))
    assert heads.tolist() == [1, 1, 1, 0, 0, 1]
    assert tails.tolist() == [1, 0, 0, 0, 0, 1]
    assert heads.dtype == np.float32
    one = consensus(np.array([[0.9, 0.2, 0.5]]), np.array([False, True, True]))
    assert one.tolist() == [1, 0, 0]  # one opinion needs no coin


def test_every_pair_has_the_losses_of_its_own_picture_and_words(make, pairs, crops):
    model = Judge()
    found = make(model).losses(0)
    feed = ImageFeed(crops, (32, 16), None)
    colours = torch.cat(list(feed.batches(12, torch.device("cpu"))))[pairs.images, 0, 16, 8]
    assert found.shape == (2, COUNT)
    assert found[0].tolist() == pairs.texts.mask.sum(1).tolist()
    assert found[1].tolist() == colours.tolist()
    assert not any(model.modes), "in evaluation mode"
    assert [len(batch) for batch in model.seen] == [12] * 4, "all with as many others"
    assert all(len(batch.labels.unique()) == 12 for batch in model.seen)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_processes_share_the_pass(make, size):
    whole = make(Judge())
    expected = whole.losses(3)
    models, found, exchange = [Judge() for _ in range(size)], {}, Exchange(size)

    def work(rank: int) -> None:
        share = make(models[rank], world=ThreadWorld(exchange, rank))
        share.batches.batch_size = whole.batches.batch_size  # 12 is no multiple of 7
        found[rank] = share.losses(3)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(size))
    assert all(np.array_equal(losses, expected) for losses in found.values())
    assert [len(model.seen) for model in models] == [-(-4 // size)] * size


def test_wrong_pairs_are_found(make):
    model = Judge()
    model.pair_losses = lambda batch: batch.texts.mask.sum(1).float()  # one opinion, (B,)
    for kind in ("mixture", "consensus"):
        weights = make(model, kind).weights(0)
        assert weights.dtype == np.float32
        assert ((weights >= 0) & (weights <= 1)).all()
        assert np.flatnonzero(weights < 0.5).tolist() == list(WRONG), kind


def test_the_mixture_averages_the_opinions(make):
    model = Judge()
    both = [clean_probability(losses) for losses in make(model).losses(0)]
    np.testing.assert_allclose(make(model, "mixture").weights(0), (both[0] + both[1]) / 2, atol=1e-6)


def test_captions_that_agree_with_no_other_of_their_label_are_another_opinion_or_the_only_one(
    make, tokenizer
):
    model = Judge()
    weights = make(model, "mixture")
    words = {0: "red coat", 1: "blue skirt"}
    labels = np.arange(COUNT) % 2
    texts = [words[label if i not in WRONG else 1 - label] for i, label in enumerate(labels)]
    weights.batches.pairs = replace(weights.batches.pairs, texts=tokenizer(texts), labels=labels)
    weights.opinions = ["captions"]
    assert np.flatnonzero(weights.weights(0) < 0.5).tolist() == list(WRONG)
    assert not model.seen, "nothing went through the model"
    alone = weights.weights(0)
    weights.opinions = ["losses", "captions"]
    losses = [clean_probability(opinion) for opinion in weights.losses(0)]
    np.testing.assert_allclose(weights.weights(0), np.mean([*losses, alone], axis=0), atol=1e-6)


def test_coins_are_of_the_pair_and_the_epoch(make):
    """One opinion calls half of the pairs clean, the other none of these: all is up to the coins."""
    model = Judge()

    def at_odds(batch) -> Tensor:
        long = batch.texts.mask.sum(1) > 20
        return torch.stack([long, ~long]).float()

    model.pair_losses = at_odds
    first, again, later, other = (
        make(model, name=name).weights(epoch) for name, epoch in (("a", 0), ("a", 0), ("a", 1), ("b", 0))
    )
    assert set(first.tolist()) == {0.0, 1.0}
    assert 10 < first.sum() < 30
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_batches_carry_the_weights_of_their_pairs(make, pairs):
    weights = make(Judge())
    assert all(batch.weights is None for batch in weights.batches.epoch(0))
    weights(2, 0)
    kept = checkpoints.load(weights.path)
    assert (kept["phase"], kept["epoch"]) == ("round-0", 2)
    for batch in weights.batches.epoch(2):
        assert batch.weights.tolist() == kept["weights"][batch.labels].tolist()


def test_a_resumed_epoch_keeps_its_weights_and_a_new_one_gets_its_own(make):
    model = Judge()
    first = make(model)
    first(1, 0)
    seen = len(model.seen)
    again = make(model)
    again(1, 5)
    assert len(model.seen) == seen
    assert np.array_equal(again.batches.weights, first.batches.weights)
    again(2, 0)
    make(model, name="round-1")(2, 5)  # another training's weights are none of this one's
    assert len(model.seen) == seen + 8


class TaskOf(nn.Module):
    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model, self.steps = model, 0
        self.before_step = lambda _number: None

    def forward(self, batch):
        self.before_step(self.steps)
        self.steps += 1
        return self.model.losses(batch)


@pytest.fixture
def make_trainer(crops, pairs, tokenizer, tmp_path, machine, messages):
    """make_trainer(folder) -> PSPD, trained for two epochs of three steps with consensus weights."""

    def make(folder: str) -> Trainer:
        torch.manual_seed(0)
        model = build_model("pspd", size="tiny", image_size=(32, 16), tokenizer=tokenizer, local_weight=0)
        feed, run = ImageFeed(crops, (32, 16), None), Run(tmp_path / folder)
        batches = PairBatches(feed, pairs, 12, World(), machine.device, seed=1, name="round-0")
        place, path = Place("round-0"), tmp_path / folder / "pair_weights.pth"
        return Trainer(
            TaskOf(model),
            model.parameter_groups(1e-3, 0.05),
            batches,
            Schedule(1e-3, 2),
            place,
            run,
            machine,
            tmp_path / folder / "last.pth",
            seed=1,
            on_epoch=lambda epoch, losses, _seconds: run.record("epoch", epoch=epoch, losses=losses),
            before_epoch=PairWeights(model, batches, "consensus", path, place, run, machine),
            log_every=1,
        )

    return make


@pytest.mark.integration
def test_a_training_that_is_stopped_anywhere_ends_with_the_same_weights(make_trainer):
    whole = make_trainer("whole")
    whole.fit()
    assert 0 < whole.batches.weights.mean() < 1
    for at in (0, 1, 2, 3, 4):
        first = make_trainer(f"at{at}")

        def stop(number: int, at=at, first=first) -> None:
            if number == at:
                first.run.stop.received = signal.SIGTERM

        first.task.before_step = stop
        with pytest.raises(Interrupted):
            first.fit()
        second = make_trainer(f"at{at}")
        second.fit()
        expected = whole.task.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in second.task.state_dict().items())
        assert second.run.metrics_path.read_text() == whole.run.metrics_path.read_text()


def test_a_stop_need_not_wait_for_the_pass(make):
    model = Judge()
    weights = make(model)
    plain = model.pair_losses

    def stop(batch) -> Tensor:
        weights.run.stop.received = signal.SIGTERM
        return plain(batch)

    model.pair_losses = stop
    with pytest.raises(Interrupted):
        weights(0, 0)
    assert len(model.seen) == 1
    assert not weights.path.exists()
