"""The training loop: interrupted at any point it ends with the weights of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

from data.errors import UserError
from engine import checkpoints
from engine.distributed import Interrupted
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.loop import DivergedError, Place, Schedule, Trainer
from engine.run import Run
from models.world import World

SEED, EPOCHS, STEPS = 3, 3, 4
SCHEDULE = Schedule(1e-2, EPOCHS, min_lr=1e-4, lr_warmup_steps=5)


class Task(nn.Module):
    """Two losses of an image's mean colour and its words, with dropout; ``before_step`` sees every forward pass."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.words, self.image = nn.Embedding(vocabulary, 8), nn.Linear(3, 8)
        self.dropout = nn.Dropout(0.3)
        self.seen = 0
        self.before_step = lambda _number: None

    def forward(self, batch):
        self.before_step(self.seen)
        self.seen += 1
        image = self.dropout(self.image(batch.images.mean((2, 3))))
        text = self.dropout(self.words(batch.texts.ids).mean(1))
        return {"pull": (image - text).square().mean(), "size": image.square().mean() * 0.1}


@pytest.fixture
def make_trainer(crops, tokenizer, tmp_path, machine, messages):
    """make_trainer(folder) -> a trainer of a fresh task, writing below ``folder``."""
    feed = ImageFeed(crops, (32, 16), None)
    texts = tokenizer([f"a man in a red shirt {'and black trousers ' * (i % 3)}" for i in range(17)])
    pairs = Pairs(np.arange(17) % 12, texts, np.arange(17))

    def make(name: str, **options) -> Trainer:
        task = Task(tokenizer.vocab_size)
        run = Run(tmp_path / name)
        decayed = {"params": [task.words.weight], "lr": 1e-2, "weight_decay": 0.1}
        slower = {"params": list(task.image.parameters()), "lr": 1e-3, "weight_decay": 0.0}
        return Trainer(
            task,
            [decayed, slower],
            PairBatches(feed, pairs, 4, World(), machine.device, seed=SEED, name="round-0"),
            SCHEDULE,
            Place("round-0", 0, steps_before=100),
            run,
            machine,
            tmp_path / name / "last.pth",
            seed=SEED,
            on_epoch=lambda epoch, losses, _seconds: run.record("epoch", epoch=epoch, losses=losses),
            log_every=options.pop("log_every", 3),
            **options,
        )

    return make


def outcome(trainer: Trainer) -> tuple[dict, str]:
    return trainer.task.state_dict(), trainer.run.metrics_path.read_text(encoding="utf-8")


@pytest.fixture
def undisturbed(make_trainer):
    trainer = make_trainer("undisturbed")
    trainer.fit()
    assert trainer.task.seen == EPOCHS * STEPS
    return outcome(trainer)


def assert_same(found, expected) -> None:
    for name, tensor in expected[0].items():
        assert torch.equal(found[0][name], tensor), name
    assert found[1] == expected[1]


@pytest.mark.parametrize("at", [0, 2, 3, 4, 6, 11])
def test_stopped_by_a_signal_and_resumed(make_trainer, undisturbed, at):
    """At the first step, inside an epoch, at its last step, at the next one's first, and at the very last."""
    first = make_trainer("run")

    def stop(number: int) -> None:
        if number == at:
            first.run.stop.received = signal.SIGTERM

    first.task.before_step = stop
    with pytest.raises(Interrupted):
        first.fit()
    assert first.task.seen == at + 1
    second = make_trainer("run")
    second.fit()
    assert second.task.seen == EPOCHS * STEPS - at - 1
    assert_same(outcome(second), undisturbed)


@pytest.mark.parametrize("at", [1, 5, 10])
@pytest.mark.parametrize("save_minutes", [10.0, 1e-9])
def test_killed_without_a_save_and_resumed(make_trainer, undisturbed, at, save_minutes):
    """What was logged after the last save is forgotten, because it is done again."""

    def kill(number: int) -> None:
        if number == at:
            raise KeyboardInterrupt

    first = make_trainer("run", save_minutes=save_minutes, log_every=1)
    first.log_every = 3
    first.task.before_step = kill
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = make_trainer("run")
    second.fit()
    lost = 0 if save_minutes < 1 else at % STEPS
    assert second.task.seen == EPOCHS * STEPS - at + lost
    assert_same(outcome(second), undisturbed)


def test_a_finished_training_and_one_of_another_phase(make_trainer, undisturbed):
    first = make_trainer("run")
    first.fit()
    again = make_trainer("run")
    again.fit()
    assert again.task.seen == 0
    other = make_trainer("run")
    other.place = Place("round-1", 1)
    other.fit()
    assert other.task.seen == EPOCHS * STEPS


@pytest.mark.parametrize("at", [6, 7])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(make_trainer, at, value):
    trainer = make_trainer("run")

    def spoil(number: int) -> None:
        if number == at:
            with torch.no_grad():
                trainer.task.image.weight[0, 0] = value

    trainer.task.before_step = spoil
    with pytest.raises(DivergedError, match=r"init_lr"):
        trainer.fit()
    state = checkpoints.load(trainer.state_path)
    assert (state["epoch"], state["step"]) == (1, 0)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["model"].values())


def test_a_stop_signal_does_not_save_a_state_that_is_no_number(make_trainer):
    trainer = make_trainer("run", log_every=100)

    def spoil(number: int) -> None:
        if number == 5:
            trainer.task.image.weight.data.fill_(math.nan)
            trainer.run.stop.received = signal.SIGTERM

    trainer.task.before_step = spoil
    with pytest.raises(DivergedError):
        trainer.fit()
    assert checkpoints.load(trainer.state_path)["epoch"] == 1


def test_the_rate_follows_a_cosine_over_epochs_after_a_linear_start():
    schedule = Schedule(init_lr=2.0, max_epoch=4, min_lr=1.0, lr_warmup_steps=10)
    assert schedule.rate(0, 0) == pytest.approx(0.2)
    assert schedule.rate(0, 4) == pytest.approx(1.0)
    assert schedule.rate(0, 9) == schedule.rate(0, 50) == pytest.approx(2.0)
    for epoch in range(5):
        expected = 1.0 + 0.5 * (1 + math.cos(math.pi * epoch / 4))
        assert schedule.rate(epoch, 1000) == pytest.approx(expected)
    assert schedule.rate(4, 1000) == pytest.approx(1.0)
    assert Schedule(1.0, 1).rate(0, 0) == 1.0


def test_the_rate_falls_at_its_steps_after_a_linear_start():
    """As at SSAN: steps at epochs 20 and 40 of 60."""
    schedule = Schedule(init_lr=1e-3, max_epoch=60, lr_warmup_steps=10, lr_steps=[20, 40])
    late = 100_000
    for epoch, expected in {0: 1e-3, 19: 1e-3, 20: 1e-4, 39: 1e-4, 40: 1e-5, 59: 1e-5}.items():
        assert schedule.rate(epoch, late) == pytest.approx(expected, rel=1e-12)
    assert schedule.rate(0, 0) == pytest.approx(1e-4)
    assert schedule.rate(0, 4) == pytest.approx(5e-4)
    assert schedule.rate(20, 4) == pytest.approx(5e-5)
    halves = Schedule(2.0, 4, lr_steps=(1, 2, 3), lr_step_factor=0.5)
    assert [halves.rate(epoch, late) for epoch in range(4)] == [2.0, 1.0, 0.5, 0.25]
    # torch's own schedule, which counts epochs in the same way
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    other = torch.optim.lr_scheduler.MultiStepLR(optimizer, [20, 40], gamma=0.1)
    for epoch in range(60):
        assert schedule.rate(epoch, late) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        other.step()


def test_the_rate_rises_over_epochs_and_then_follows_a_cosine():
    """As at IRRA: 5 of 60 epochs from a tenth, the cosine over the other 55; against torch's own schedules."""
    schedule = Schedule(1e-5, 60, lr_warmup_epochs=5, lr_warmup_start=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-5)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=55)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[5])
    for epoch in range(60):
        expected = optimizer.param_groups[0]["lr"]
        assert schedule.rate(epoch, 100 * epoch, 100) == pytest.approx(expected, rel=1e-9)
        assert schedule.rate(epoch, 100 * epoch + 99, 100) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        both.step()


def test_the_rate_changes_with_every_step_where_it_is_asked_to():
    """As at SynTBPR: one epoch from 1e-6 to 5e-5, then a cosine to 5e-6, at the same places as by epochs in between."""
    schedule = Schedule(5e-5, 8, min_lr=5e-6, lr_warmup_epochs=1, lr_warmup_start=0.02, per_step=True)
    for step in range(80):
        if step < 10:
            expected = 1e-6 + (5e-5 - 1e-6) * step / 10
        else:
            expected = 5e-6 + (5e-5 - 5e-6) * (1 + math.cos(math.pi * (step - 10) / 70)) / 2
        assert schedule.rate(step // 10, step, 10) == pytest.approx(expected, rel=1e-12)
    stairs = Schedule(1.0, 4, lr_steps=(2,), per_step=True)
    assert [stairs.rate(step // 5, step, 5) for step in (9, 10)] == [1.0, 0.1]


def test_the_optimiser_takes_its_settings(make_trainer):
    """One step of AdamW from the formula (Loshchilov & Hutter, ICLR 2019, algorithm 2), with values far from torch's own."""
    plain, other = make_trainer("plain"), make_trainer("other", betas=(0.5, 0.8), eps=1e-2)
    assert (plain.optimizer.defaults["betas"], plain.optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    weight = other.task.image.weight
    expected, moments = weight.detach().double().clone(), [0.0, 0.0]
    other.schedule = Schedule(1e-2, EPOCHS)
    gradients = []
    weight.register_hook(lambda gradient: gradients.append(gradient.double().clone()))
    for step, batch in enumerate(other.batches.epoch(0)):
        other._step(batch, 0, step)
        gradient = gradients[step]
        moments = [0.5 * moments[0] + 0.5 * gradient, 0.8 * moments[1] + 0.2 * gradient**2]
        mean, square = moments[0] / (1 - 0.5 ** (step + 1)), moments[1] / (1 - 0.8 ** (step + 1))
        expected -= 1e-3 * mean / (square.sqrt() + 1e-2)
        torch.testing.assert_close(weight.detach().double(), expected, atol=1e-6, rtol=1e-5)


def test_every_group_keeps_its_proportion_and_steps_are_counted_over_the_run(make_trainer):
    trainer = make_trainer("run")
    trainer.fit()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates[0] == pytest.approx(SCHEDULE.rate(EPOCHS - 1, EPOCHS * STEPS))
    assert rates[1] == pytest.approx(rates[0] / 10)
    events = [json.loads(line) for line in trainer.run.metrics_path.read_text("utf-8").splitlines()]
    steps = [event["total_step"] for event in events if event["event"] == "step"]
    assert steps == [100 + 2, 100 + STEPS + 2, 100 + 2 * STEPS + 2]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [0, 1, 2]


def _evaluated(make_trainer, name: str, at: int | None = None, **options) -> list[torch.Tensor]:
    """What is evaluated after each epoch, of a training that is stopped after step ``at`` and goes on."""
    seen: dict[int, torch.Tensor] = {}

    def trainer():
        made = make_trainer(name, **options)
        made.on_epoch = lambda epoch, _losses, _seconds: seen.update(
            {epoch: made.task.image.weight.detach().clone()}
        )
        return made

    first = trainer()
    if at is not None:

        def stop(number: int) -> None:
            if number == at:
                first.run.stop.received = signal.SIGTERM

        first.task.before_step = stop
        with pytest.raises(Interrupted):
            first.fit()
        first = trainer()
    first.fit()
    return [*seen.values(), first.task.image.weight.detach().clone()]


def test_the_training_is_the_same_and_what_is_evaluated_is_the_average(make_trainer):
    plain, averaged = _evaluated(make_trainer, "plain"), _evaluated(make_trainer, "averaged", average=0.7)
    assert torch.equal(plain[-1], averaged[-1])
    assert not any(torch.equal(a, b) for a, b in zip(plain[:-1], averaged[:-1], strict=True))


@pytest.mark.parametrize("at", [2, 3, 9])
def test_an_average_goes_on_where_it_was(make_trainer, at):
    undisturbed = _evaluated(make_trainer, "undisturbed", average=0.7)
    resumed = _evaluated(make_trainer, "resumed", at, average=0.7)
    assert all(torch.equal(a, b) for a, b in zip(undisturbed, resumed, strict=True))


def test_a_training_that_began_without_one_is_not_gone_on_with(make_trainer):
    first = make_trainer("run")
    first.task.before_step = lambda number: setattr(first.run.stop, "received", signal.SIGTERM)
    with pytest.raises(Interrupted):
        first.fit()
    with pytest.raises(UserError, match="--force"):
        make_trainer("run", average=0.7).fit()
