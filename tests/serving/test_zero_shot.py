"""Searching with weights as they were released, by path and by a hub's name, without training or configuration."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipTextConfig, BlipVisionConfig

from data.images import Pixels
from engine import checkpoints, hub
from models.backbones.clip.tokenizer import ClipTokenizer
from serving.index import CHECKPOINT, SearchIndex
from serving.opening import decoder, open_searcher
from tests.hub_server import Repository, serving
from tests.serving.commands import CPU, run

pytestmark = pytest.mark.integration
SENTENCE = "a woman in a red coat"


@pytest.fixture(scope="module")
def captions(demo) -> list[str]:
    return [caption for record in demo.records for caption in record.captions]


@pytest.fixture(scope="module")
def blip(demo, tmp_path_factory):
    """transformers' own model with random weights, its folder, and BERT-like words beside it."""
    words = checkpoints.load_retrieval_model(demo.checkpoint)[0].tokenizer
    folder = tmp_path_factory.mktemp("blip")
    vision = BlipVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, image_size=48, patch_size=8
    )  # fmt: skip
    text = BlipTextConfig(
        vocab_size=words.vocab_size, hidden_size=128, encoder_hidden_size=128, intermediate_size=512,
        num_hidden_layers=3, num_attention_heads=4, bos_token_id=words.dec_id, sep_token_id=words.sep_id,
    )  # fmt: skip
    torch.manual_seed(1)
    config = BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=256
    )
    model = BlipForImageTextRetrieval(config).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in words.vocabulary[:-2]))
    return model, folder


@pytest.fixture(scope="module")
def clip(captions, tmp_path_factory):
    """open_clip's own model with random weights, its folder, and byte pairs beside it."""
    folder = tmp_path_factory.mktemp("clip")
    words = ClipTokenizer.train(captions, folder, vocab_size=120)
    vision = {"image_size": 48, "layers": 3, "width": 128, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": words.vocab_size - 1, "width": 128, "heads": 2, "layers": 3}
    torch.manual_seed(2)
    model = open_clip.CLIP(128, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text)).eval()
    save_file(
        {n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return model, folder


def pixels_of_all(index: SearchIndex, interpolation: str) -> torch.Tensor:
    decode = decoder((48, 48), Pixels(interpolation=interpolation))
    images = [one.image for block, _ in index.everything() for one in block]
    return torch.stack([decode(index.root / image) for image in images])


@torch.no_grad()
def test_blip_finds_what_transformers_finds(demo, blip, tmp_path):
    theirs, folder = blip
    out = tmp_path / "index"
    assert run("index", "--images", demo.crops, "--checkpoint", folder, "--out", out).code == 0
    searcher = open_searcher(out, CPU)
    texts = searcher.model.tokenizer([SENTENCE])
    images = pixels_of_all(searcher.index, "bilinear")
    shown = {"pixel_values": images, "attention_mask": texts.mask.long().expand(len(images), -1)}
    cosines = theirs(input_ids=texts.ids.expand(len(images), -1), use_itm_head=False, **shown).itm_score[:, 0]
    hits = searcher.by_sentence(SENTENCE, 5)
    np.testing.assert_allclose([hit.score for hit in hits], cosines.topk(5).values, atol=1e-4)
    ids = texts.ids.clone()
    ids[:, 0] = searcher.model.tokenizer.enc_id
    logits = theirs(input_ids=ids.expand(len(images), -1), **shown).itm_score[:, 1]
    for hit in searcher.by_sentence(SENTENCE, 5, rerank_best=8):
        assert (
            abs(hit.match - float(logits[hit.row] + cosines[hit.row])) < 2e-3
        )  # tokens lie in half precision


@torch.no_grad()
def test_clip_finds_what_open_clip_finds(demo, clip, tmp_path):
    theirs, folder = clip
    out = tmp_path / "index"
    assert run("index", "--images", demo.crops, "--checkpoint", folder, "--out", out).code == 0
    searcher = open_searcher(out, CPU)
    assert not searcher.can_rerank
    ids = searcher.model.tokenizer([SENTENCE]).ids
    feature = normalize(theirs.encode_text(torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]))), dim=1)
    images = theirs.encode_image(pixels_of_all(searcher.index, "bicubic"))
    cosines = (normalize(images, dim=1) @ feature.T)[:, 0]
    hits = searcher.by_sentence(SENTENCE, 5)
    np.testing.assert_allclose([hit.score for hit in hits], cosines.topk(5).values, atol=1e-4)


def test_by_a_hubs_name_and_again(demo, blip, crops, tmp_path, monkeypatch, messages):
    files = {path.name: path.read_bytes() for path in blip[1].iterdir()}
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setattr(hub, "FOLDER", tmp_path / "hf")
        server.repositories["some/blip"] = Repository(files)
        arguments = ("index", "--images", crops, "--checkpoint", "hf:some/blip", "--out", tmp_path / "index")
        assert run(*arguments).code == 0, messages
        kept = checkpoints.load(tmp_path / "index" / CHECKPOINT)
        assert kept["meta"]["started_from"].startswith("hf:some/blip@")
        next(crops.rglob("*.jpg")).unlink()
        ended = run(*arguments)
        assert (ended.code, "1 removed" in ended.output) == (0, True)
    found = run("query", "--index", tmp_path / "index", SENTENCE, "--json", "--top", 3)
    assert len(found.json()["hits"]) == 3
    assert (
        run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index").code
        == 1
    )
    assert "another checkpoint" in messages[-1]
    (tmp_path / "index" / CHECKPOINT).write_bytes(demo.checkpoint.read_bytes())
    assert run("query", "--index", tmp_path / "index", SENTENCE).code == 1
    assert "is not the model that the index was made with" in messages[-1]
