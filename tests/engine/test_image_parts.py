"""Generators, editors and filters whose models a configuration names by a hub's name."""

from __future__ import annotations

import pytest

from engine import hub
from engine.config import load_config
from engine.run import StopSignal
from engine.stage import Context
from engine.stages.image_generation import make_generator
from synthesis.generation.parts import Prompt
from tests.hub_server import Repository, serving

pytest.importorskip("diffusers", reason="diffusion needs pip install -r requirements-synthesis.txt")

from tests.tiny_diffusion import save_pipeline


def test_a_pipeline_is_fetched_by_its_name_and_makes_images(tmp_path, machine, monkeypatch):
    saved = save_pipeline(tmp_path / "sd")
    files = {
        path.relative_to(saved).as_posix(): path.read_bytes() for path in saved.rglob("*") if path.is_file()
    }
    monkeypatch.setattr(hub, "FOLDER", tmp_path / "hf")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    part = "gen_images.generator={backend: diffusers, model: hf:some/sd, steps: 2, size: 16}"
    config = load_config("configs/demo.yaml", [part])
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        server.repositories["some/sd"] = Repository(files)
        generator = make_generator(Context(config, machine, StopSignal()))
    assert [image.size for image in generator.generate([Prompt(0, "a man")], [1])] == [(16, 16)]
    fetched = {
        path.relative_to(hub.FOLDER / "some/sd").as_posix()
        for path in hub.FOLDER.rglob("*")
        if path.is_file()
    }
    assert fetched - {".lock", "source.json"} == set(files)
