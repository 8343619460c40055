"""gen_images.py with every part that needs a model: real pipelines with random weights, and a local server that writes and describes."""

from __future__ import annotations

import json

import pytest

from tests.captioning.chat_server import ChatServer
from tests.pipeline.mini import make_pipeline

pytest.importorskip("diffusers", reason="diffusion needs pip install -r requirements-synthesis.txt")

from tests.tiny_diffusion import save_pipeline

pytestmark = pytest.mark.integration

SECTION = """
gen_images:
  root: {root}/set
  generator: {{backend: diffusers, model: {root}/sd, steps: 2, size: 32}}
  editor: {{backend: instruct_pix2pix, model: {root}/pix2pix, steps: 2, size: 32}}
  edits: {{weather: 1}}
  prompts: 4
  per_prompt: 1
  families: {{plain: 1, state: 1}}
  text: {{backend: openai, options: {options}}}
  captions: {{backend: openai, kind: variable, options: {options}}}
  batch_size: 3
"""


def answer(asked) -> str:
    return (
        "A person in a red coat and black trousers."
        if asked.size
        else f"A man who waits, {len(asked.prompt)}."
    )


def test_prompts_images_edits_and_captions_come_from_models(tmp_path, messages, monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    save_pipeline(tmp_path / "sd")
    save_pipeline(tmp_path / "pix2pix", editing=True)
    pipeline = make_pipeline(tmp_path, messages)
    with ChatServer(answer=answer) as server:
        options = f"{{base_url: '{server.url}', model: vl, api_key_env: ''}}"
        with pipeline.path.open("a") as stream:
            stream.write(SECTION.format(root=tmp_path, options=options))
        assert pipeline("gen_images") == 0, messages
        asked = len(server.asked)
        (tmp_path / "set" / ".gen_images.done").unlink()
        first = (tmp_path / "set" / "synthetic.json").read_bytes()
        assert pipeline("gen_images") == 0, messages
        assert len(server.asked) == asked  # nobody is paid twice
    assert (tmp_path / "set" / "synthetic.json").read_bytes() == first
    records = json.loads(first)
    assert [record["id"] for record in records] == [0, 0, 1, 1, 2, 2, 3, 3]
    written = [record["prompt"].startswith("A man who waits") for record in records]
    assert 0 < sum(written) < len(written)
    assert asked == len(records) + sum(written) / 2
    assert all("sd, guidance 8.5, 2 steps" in record["generator"] for record in records)
    assert [record["edit"].split(":")[0] for record in records] == ["", "weather"] * 4


def test_a_filter_that_finds_nobody_leaves_no_set(tmp_path, messages) -> None:
    """Random weights find no person: the run ends with the reason instead of an empty set."""
    import torch
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    torch.manual_seed(0)
    network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "points.pth")
    pipeline = make_pipeline(tmp_path, messages)
    section = f"{{root: {tmp_path / 'set'}, prompts: 2, per_prompt: 1, filter: {{backend: torchvision, weights: {tmp_path / 'points.pth'}, size: 64, score: 0.99}}}}"
    assert pipeline("gen_images", "--set", f"gen_images={section}") == 1
    assert pipeline.said("2 images, 0 kept (left out: 2 none)")
    assert pipeline.said("has no image with a caption")
    assert not (tmp_path / "set" / "synthetic.json").exists()
