"""A training that starts from a hub's weights and vocabulary, its model published there, and evaluated by its name."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from engine import checkpoints, hub
from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.tokenizer import BlipTokenizer
from tests.hub_server import Repository, serving
from tests.pipeline.mini import STAGES
from tests.serving.commands import run

pytestmark = pytest.mark.integration


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        monkeypatch.setattr(hub, "FOLDER", tmp_path / "hf")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield running


@pytest.fixture
def words(tmp_path) -> BlipTokenizer:
    captions = [
        "a man in a red shirt and black trousers",
        "the woman wears a long blue dress and white shoes",
    ]
    return BlipTokenizer.train(captions * 3, tmp_path / "words", vocab_size=200)


def test_from_a_hubs_weights_to_a_model_on_the_hub(pipeline, server, words, tmp_path):
    torch.manual_seed(0)
    for name, kind in (("some/retrieval", BlipRetrieval), ("some/captioner", BlipCaptioner)):
        save_file(
            {name: tensor.clone() for name, tensor in kind("tiny", (48, 48), words).state_dict().items()},
            tmp_path / "weights.safetensors",
        )
        server.repositories[name] = Repository(
            {"weights.safetensors": (tmp_path / "weights.safetensors").read_bytes()}
        )
    vocabulary = (tmp_path / "words/vocab.txt").read_bytes()
    server.repositories["some/words"] = Repository({"vocab.txt": vocabulary})
    server.repositories["some/retrieval"].files["vocab.txt"] = vocabulary
    choice = (
        "--set",
        "model.pretrained=hf:some/retrieval",
        "pre_train.pretrained=hf:some/captioner",
        "model.tokenizer=hf:some/words",
    )
    for stage in STAGES:
        assert pipeline(stage, *choice) == 0, (stage, pipeline.messages[-1:])
    assert {path.name for path in (tmp_path / "hf/some/words").iterdir()} >= {"vocab.txt"}
    folder = pipeline.config.run_directory
    content = checkpoints.load(folder / "best.pth")
    commit = server.repositories["some/retrieval"].commits[0]
    assert content["meta"]["started_from"] == f"hf:some/retrieval@{commit}"
    before = json.loads((folder / "results.json").read_text())
    assert run("publish", "--checkpoint", folder / "best.pth", "--to", "hf:me/mini").code == 0
    assert pipeline("test", *choice, "--checkpoint", "hf:me/mini") == 0, pipeline.messages
    after = json.loads((folder / "results.json").read_text())
    assert {**after, "seconds": 0} == {**before, "seconds": 0}
    assert pipeline("test", *choice, "--checkpoint", "hf:me/absent") == 1
    assert pipeline.said("hf:me/absent is not on")
    assert pipeline("test", *choice, "--checkpoint", "hf:some/retrieval") == 1
    assert pipeline.said("is blip as it was released, and results belong to a method")
