"""The study of label correction: what it blurs, which captions it puts elsewhere, and a run of it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.label_correction import BLUR, PartlyBlurred, main, with_wrong_ones
from engine import checkpoints
from models import build_model
from models.backbones.blip.tokenizer import BlipTokenizer
from synthesis.demo import make_demo

CPU = torch.device("cpu")


def test_some_images_are_blurred_and_the_others_are_as_they_were(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (24, 12, 3), dtype=np.uint8)).save(path)
    feed = PartlyBlurred(paths, (24, 12), None)
    feed.blurred = np.zeros(5, bool)
    plain = torch.cat([images.clone() for images in feed.batches(2, CPU)])
    feed.blurred = np.array([True, False, False, True, False])
    order = np.array([4, 3, 0, 1])
    found = torch.cat([images.clone() for images in feed.batches(3, CPU, order)])
    for image, row in zip(found, order, strict=True):
        assert image.equal(plain[row]) == (not feed.blurred[row])
    middle = plain[3, :, 10 - BLUR // 2 : 11 + BLUR // 2, 6 - BLUR // 2 : 7 + BLUR // 2].mean((1, 2))
    assert torch.allclose(found[1, :, 10, 6], middle, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_wrong_captions_are_those_of_other_people(share):
    identities = np.arange(30) // 3
    captions = [f"person {identity}" for identity in identities]
    found = with_wrong_ones(captions, identities, share, 0)
    changed = [new != old for new, old in zip(found, captions, strict=True)]
    assert sum(changed) == round(share * 30)
    assert set(found) <= set(captions)


@pytest.mark.integration
def test_a_run_of_the_study(tmp_path):
    make_demo(tmp_path / "data", fmt="cuhk_pedes", train=12, val=0, test=1, images=2, seed=0, workers=1)
    words = BlipTokenizer.train(["a woman in a red coat"] * 2, tmp_path / "words", vocab_size=100)
    model = build_model("pspd", size="tiny", image_size=(96, 48), tokenizer=words)
    checkpoints.save(tmp_path / "best.pth", checkpoints.describe(model, "pspd", "tiny"))
    settings = [f"dataset.root={tmp_path}/data", f"output={tmp_path}/output", "dataset.synthesis=null"]
    options = ["--checkpoint", tmp_path / "best.pth", "--config", "configs/demo.yaml", "--set", *settings]
    main([*map(str, options), "--wrong", "0.5", "--blurred", "0.5", "--results", str(tmp_path)])
    (file,) = tmp_path.glob("label_correction*.csv")
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    assert len(rows) == 9  # three numbers of candidates, three agreements
    assert all(row["wrong captions %"] == row["blurred images %"] == "50.0" for row in rows)
