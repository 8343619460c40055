"""SynTBPR's losses pair by pair, what its targets amount to, alpha's growth, and a scale that is learnt up to a limit."""

from __future__ import annotations

import math
from pathlib import Path

import contrast_by_loop as loop
import method_examples as example
import numpy as np
import pytest
import torch
from PIL import Image

from engine.building import pixels_of
from engine.config import load_config
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.loop import Schedule
from models import METHODS, World
from models.logit_scale import LogitScale
from models.methods.dual_encoder import Encoded

LABELS = [0, 0, 1, 2, 1, 3]
CONFIGURATION = Path(__file__).resolve().parents[2] / "configs" / "methods" / "syntbpr.yaml"


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.0), (0.25, 0.1), (1.0, 0.4), (3.5, 0.4)])
def test_losses_pair_by_pair_while_alpha_grows(kind, progress, alpha, words):
    model = example.model("syntbpr", words, soft_target=kind, alpha=0.4)
    batch = example.batch(model, LABELS)
    batch.progress = torch.tensor(progress)
    images, texts = loop.features(model, batch)
    scores = (images @ texts.T / 0.07).tolist()
    opinion = loop.sigmoid if kind == "sigmoid" else loop.softmax
    losses = model.losses(batch)
    assert losses["n_itc"].item() == pytest.approx(loop.n_itc(scores, LABELS, alpha, opinion), rel=1e-4)
    assert losses["r_itc"].item() == pytest.approx(loop.r_itc(scores, LABELS, alpha, opinion), rel=1e-4)


@pytest.mark.parametrize(("size", "kept"), [(320, 0.385), (80, 0.72), (48, 0.81)])
def test_what_a_pair_keeps_of_its_target_depends_on_the_batch(size, kept, words):
    """At the largest scale every cosine that is well above 0 counts as a match, whoever it is with."""
    model = example.model("syntbpr", words)
    model.logit_scale.log.data.fill_(math.log(100))
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, 64, generator=generator)
    images, texts = (common + 0.5 * torch.randn(size, 64, generator=generator) for _ in range(2))
    encoded = Encoded(None, images, None, texts, images, texts, torch.arange(size), None)
    batch = example.batch(model, LABELS)
    for targets in model.soft_targets(model.similarity(images, texts), encoded, batch):
        assert targets.diag().tolist() == pytest.approx([1 / (0.995 + 0.005 * size)] * size, rel=1e-3)
        assert targets.diag().mean().item() == pytest.approx(kept, abs=0.004)


def test_the_configuration_says_what_the_targets_keep():
    text = CONFIGURATION.read_text("utf-8")
    alpha = load_config(CONFIGURATION).model.options["alpha"]
    for size, kept in ((320, "0.385"), (80, "0.72"), (48, "0.81")):
        share = 1 / (1 - alpha + alpha * size)
        assert f"{share:.{len(kept) - 2}f}" == kept
        assert f"{kept} " in text
        assert f" {size}" in text
    assert f"{1 / (0.98 + 0.02 * 80):.2f}" == "0.39"


def test_alpha_grows_with_the_steps_and_goes_on_after_a_resume(words, tmp_path):
    """By batches of the feed: losses of an epoch that is entered in the middle are those of the whole one."""
    model = example.model("syntbpr", words, alpha=0.5).eval()
    paths = [tmp_path / f"{number}.png" for number in range(len(example.CAPTIONS))]
    for number, path in enumerate(paths):
        Image.new("RGB", (16, 32), (40 * number, 90, 200)).save(path)
    pairs = Pairs(np.arange(len(paths)), model.prepare(example.CAPTIONS), np.arange(len(paths)))
    batches = PairBatches(
        ImageFeed(paths, model.image_size, None), pairs, 2, World(), torch.device("cpu"), seed=0, name="x"
    )
    alphas, targets = [], model.soft_targets

    def watched(similarity, encoded, batch):
        found = targets(similarity, encoded, batch)
        opinion = similarity.softmax(1) if model.soft_target == "softmax" else similarity.sigmoid()
        kept = found[0][0, 0].item()  # (alpha g + 1 - alpha) / (alpha (g + g') + 1 - alpha), solved for alpha
        own, other = opinion[0].tolist()
        alphas.append((1 - kept) / (1 - kept - own + kept * (own + other)))
        return found

    model.soft_targets = watched
    with torch.no_grad():
        whole = [model.losses(batch)["n_itc"].item() for epoch in (0, 1) for batch in batches.epoch(epoch)]
        assert alphas == pytest.approx([0, 0.5 / 3, 1 / 3, 0.5, 0.5, 0.5], abs=1e-4)
        rest = [model.losses(batch)["n_itc"].item() for batch in batches.epoch(0, 1)]
    assert rest == whole[1:3]


def test_one_pass_is_two_passes(words):
    """The released code encodes a second time for the targets, without gradients."""
    model = example.model("syntbpr", words, alpha=0.3).double()
    batch = example.batch(model, LABELS, dtype=torch.float64)
    once = model.losses(batch)
    sum(once.values()).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.no_grad():
        seen = model.encode(batch)
        targets = model.soft_targets(
            model.similarity(seen.all_image_features, seen.all_text_features), seen, batch
        )
    model.soft_targets = lambda *_: targets
    twice = model.losses(batch)
    sum(twice.values()).backward()
    for name, loss in once.items():
        assert twice[name].item() == pytest.approx(loss.item(), rel=1e-12)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-12)


def test_the_scale_starts_at_clips_and_stops_at_a_hundred():
    scale = LogitScale()
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    optimizer = torch.optim.SGD(scale.parameters(), lr=1.0)
    for direction in (-1, -1, -1, -1, -1, -1):  # a loss that falls while the scale grows
        (direction * scale()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert scale().item() == pytest.approx(100, rel=1e-6)
    (0.01 * scale()).backward()  # and at the limit a gradient still leads back
    optimizer.step()
    assert scale().item() < 50


def test_the_scale_is_learnt_and_not_decayed(words):
    model = example.model("syntbpr", words)
    model.losses(example.batch(model, LABELS))["n_itc"].backward()
    assert model.logit_scale.log.grad.abs() > 0
    decayed = [group["params"] for group in model.parameter_groups(1e-4, 0.02) if group["weight_decay"]]
    assert not any(parameter is model.logit_scale.log for group in decayed for parameter in group)


def test_pairs_are_told_apart_at_the_learnt_scale(words):
    model = example.model("syntbpr", words).eval()
    model.logit_scale.log.data.fill_(math.log(30))
    batch = example.batch(model, LABELS)
    images, texts = loop.features(model, batch)
    scores = (30 * images @ texts.T).tolist()
    expected = []
    for i in range(6):
        same = [j for j in range(6) if LABELS[j] == LABELS[i]]
        both = (scores, loop.transposed(scores))
        logs = [math.log(loop.softmax(rows[i])[j]) for rows in both for j in same]
        expected.append(-sum(logs) / len(logs) - math.log(len(same)))
    with torch.inference_mode():
        found = model.pair_losses(batch).tolist()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_the_rate_is_that_of_the_method():
    """From 1e-6 to 1e-4 in the first epoch, then by a cosine to 5e-6, with every step."""
    settings = load_config(CONFIGURATION).train
    schedule = Schedule(
        settings.init_lr,
        settings.max_epoch,
        settings.min_lr,
        lr_warmup_epochs=settings.lr_warmup_epochs,
        lr_warmup_start=settings.lr_warmup_start,
        per_step=settings.schedule == "step",
    )
    rates = [schedule.rate(step // 200, step, 200) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[100] == pytest.approx((1e-6 + 1e-4) / 2)
    assert rates[200] == pytest.approx(1e-4)
    assert rates[600] == pytest.approx((1e-4 + 5e-6) / 2)
    assert rates[1000] == pytest.approx(5e-6)


def test_images_are_normalised_as_the_towers_were_trained(tmp_path):
    """By OpenAI's statistics as CLIP's card has them, where released code takes ImageNet's: a grey image through the feed."""
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    path = tmp_path / "grey.png"
    Image.new("RGB", (16, 32), (128, 128, 128)).save(path)
    feed = ImageFeed([path], (32, 16), None, pixels=pixels_of(METHODS["syntbpr"]))
    (images,) = feed.batches(1, torch.device("cpu"))
    expected = [(128 / 255 - m) / d for m, d in zip(mean, deviation, strict=True)]
    assert images[0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-5)


def test_options_that_mean_nothing(words):
    with pytest.raises(ValueError, match="sigmoid or softmax"):
        example.build("syntbpr", words, soft_target="relu")
    with pytest.raises(ValueError, match="from 0 to 1"):
        example.build("syntbpr", words, alpha=1.5)
