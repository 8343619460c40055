"""What `train` says about rates, the optimiser, the sampler, augmentation and weights of pairs reaches the training."""

from __future__ import annotations

import json
import math

import pytest
import torch

from data.augmentations import augment_from_pool
from engine.identity_batches import IdentityBatches

pytestmark = pytest.mark.integration
SETTINGS = (
    "train.supervision=labels",
    "train.warm_up.max_epoch=0",
    "train.max_epoch=4",
    "train.init_lr=1e-3",
    "train.lr_steps=[1, 3]",
    "train.lr_step_factor=0.5",
    "train.betas=[0.8, 0.9]",
    "train.eps=1e-3",
    "train.sampler=identity",
    "train.images_per_identity=2",
    "train.log_every=1",
    "train.augmentation=pool",
    "train.pair_weights=mixture",
)


def test_the_training_is_what_the_configuration_says(pipeline, monkeypatch):
    optimisers, orders, augmented = [], [], []

    class Seen(torch.optim.AdamW):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            optimisers.append(self)

    class SeenBatches(IdentityBatches):
        def order(self, seed):
            orders.append(super().order(seed))
            return orders[-1]

    def seen_augmentation(images, seeds, **options):
        augmented.append(len(images))
        return augment_from_pool(images, seeds, **options)

    monkeypatch.setattr("engine.feeds.augment_from_pool", seen_augmentation)
    monkeypatch.setattr(torch.optim, "AdamW", Seen)
    monkeypatch.setattr("engine.feeds.IdentityBatches", SeenBatches)
    assert pipeline("train", "--set", *SETTINGS) == 0, pipeline.messages[-1:]
    (optimiser,) = optimisers
    assert (optimiser.defaults["betas"], optimiser.defaults["eps"]) == ((0.8, 0.9), 1e-3)
    path = pipeline.config.run_directory / "metrics.jsonl"
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rates = {event["epoch"]: event["lr"] for event in events if event["event"] == "step"}
    assert rates == pytest.approx({0: 1e-3, 1: 5e-4, 2: 5e-4, 3: 2.5e-4})
    # 12 people with 2 images of 2 captions: 3 batches of 16, of 8 people with 2 images each.
    assert [len(order) for order in orders] == [48] * 4
    assert len({tuple(order) for order in orders}) == 4
    assert augmented == [16] * 12
    weighted = [event for event in events if event["event"] == "pair_weights"]
    assert [(event["epoch"], event["total_step"]) for event in weighted] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert all(0 < event["mean"] <= 1 for event in weighted)


def test_a_rate_of_every_step_is_that_of_the_configuration(pipeline):
    settings = (
        "train.schedule=step",
        "train.lr_warmup_epochs=1",
        "train.lr_warmup_start=0.1",
        "train.max_epoch=2",
    )
    assert (
        pipeline("train", "--set", *SETTINGS[:2], "train.init_lr=1e-3", "train.log_every=1", *settings) == 0
    )
    path = pipeline.config.run_directory / "metrics.jsonl"
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rates = [event["lr"] for event in events if event["event"] == "step"]
    steps = len(rates) // 2
    assert steps > 1
    risen = [1e-4 + 9e-4 * step / steps for step in range(steps)]
    fallen = [5e-4 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    assert rates == pytest.approx([*risen, *fallen])
