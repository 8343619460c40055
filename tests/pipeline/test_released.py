"""Released settings from the first stage to the result, on a few drawn people: the source is drawn, encoded and used."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clustering import pseudo_labels as room
from engine import checkpoints
from engine.config import load_config, save_config
from engine.labels import PseudoLabels
from models.backbones.blip.sizes import SIZES
from tests.pipeline.mini import ROOT, Pipeline, make_pipeline


@pytest.mark.integration
@pytest.mark.parametrize("method", ["pspd", "tsn", "cada"])
def test_every_stage_takes_the_released_settings(method, tmp_path, messages, monkeypatch):
    plain = make_pipeline(tmp_path, messages)
    places = [
        f"run=mini-{method}-released",
        f"pre_gen_data={tmp_path}/captions",
        "cluster.source.name=cuhk_pedes",
        f"cluster.source.root={tmp_path}/other",
        "cluster.source.synthesis={world: source, train: 8, val: 1, test: 1, images: 2, seed: 3}",
        "train.rounds=2",
    ]
    files = [
        ROOT / "configs" / "methods" / f"{method}.yaml",
        plain.path,
        ROOT / "configs" / "released" / f"{method}.yaml",
    ]
    config = load_config(files, places)
    save_config(config, tmp_path / "released.yaml")
    sources = []
    term = room.source_term

    def watched(features, source, device):
        sources.append(source)
        return term(features, source, device)

    monkeypatch.setattr(room, "source_term", watched)
    pipeline = Pipeline(tmp_path / "released.yaml", messages)
    pipeline.all()
    content = checkpoints.load(config.run_directory / "best.pth")
    assert content["options"] == config.model.options
    results = json.loads((config.run_directory / "results.json").read_text("utf-8"))
    assert results["method"] == method
    if method == "cada":
        assert sources == [], "real identities need no clusters"
        assert not (tmp_path / "other").exists()
        return
    first, second = sources
    width = SIZES["tiny"].embed_dim
    assert first.shape == second.shape == (16, width if method == "tsn" else 2 * width)
    assert not np.allclose(first, second), "the second round's model is another, and so are its features"
    labels = [PseudoLabels.load(config.run_directory / "labels" / f"round-{n}.npz") for n in (0, 1)]
    assert labels[0].eps == labels[1].eps
