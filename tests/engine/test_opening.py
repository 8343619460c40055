"""Models by name: our own, published ones, and BLIP and CLIP as they were released, told by their tensors alone."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize, pad
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipTextConfig,
    BlipVisionConfig,
)

from data.errors import UserError
from engine import checkpoints, published
from engine.building import pixels_of
from engine.opening import open_model
from models import build_model
from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.tokenizer import BlipTokenizer
from models.backbones.clip import sizes
from models.backbones.clip.released import describe_clip
from models.backbones.clip.sizes import SIZES
from models.backbones.clip.tokenizer import ClipTokenizer

CAPTIONS = ["a man in a red shirt", "the woman wears a long blue dress and white shoes"]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """Where weights lie beside BERT's vocabulary, which has no [DEC] and [ENC]."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(tokenizer.vocabulary[:-2]) + "\n")
    return folder


def transformers_blip(kind, tokenizer: BlipTokenizer):
    vision = BlipVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=8
    )  # fmt: skip
    text = BlipTextConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=128, encoder_hidden_size=128, intermediate_size=512,
        num_hidden_layers=3, num_attention_heads=4, bos_token_id=tokenizer.dec_id, sep_token_id=tokenizer.sep_id,
    )  # fmt: skip
    torch.manual_seed(1)
    config = BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=256
    )
    return kind(config).eval()


@torch.no_grad()
def test_blip_as_transformers_saves_it(folder, tokenizer, images, messages):
    theirs = transformers_blip(BlipForImageTextRetrieval, tokenizer)
    theirs.save_pretrained(folder)
    opened = open_model(folder)
    assert not opened.trained
    assert opened.content["image_size"] == [64, 64]
    assert opened.weights == folder / "model.safetensors"
    assert any("blip as it was released, at 64 x 64 pixels" in line for line in messages)
    batch = opened.model.tokenizer(CAPTIONS)
    shown = {"pixel_values": images, "attention_mask": batch.mask.long()}
    tokens, seen = opened.model.encode_images(images)
    said = opened.model.encode_texts(batch)[1]
    expected = theirs(input_ids=batch.ids, use_itm_head=False, **shown).itm_score
    assert torch.allclose(normalize(seen) @ normalize(said).T, expected, atol=1e-4)
    ids = batch.ids.clone()
    ids[:, 0] = tokenizer.enc_id
    assert torch.allclose(
        opened.model.match(batch, tokens), theirs(input_ids=ids, **shown).itm_score, atol=1e-4
    )


def test_blip_as_its_authors_saved_it(folder, tokenizer, images):
    """With momentum copies, a decoder and a training state, as `model_base.pth` has them."""
    torch.manual_seed(2)
    model = BlipRetrieval("tiny", (64, 64), tokenizer=tokenizer).eval()
    captioner = BlipCaptioner("tiny", (64, 64), tokenizer=tokenizer)
    state = {**captioner.state_dict(), **model.state_dict(), "temp": torch.tensor(0.07)}
    state |= {"visual_encoder_m.cls_token": torch.zeros(1, 1, 128), "image_queue": torch.zeros(256, 8)}
    path = folder / "model_base.pth"
    torch.save({"model": state, "epoch": 20}, path)
    opened = open_model(path)
    assert (opened.content["method"], opened.content["size"]) == ("blip", "tiny")
    assert all(tensor.equal(state[name]) for name, tensor in opened.model.state_dict().items())
    assert opened.weights == path
    assert not opened.is_own_file


def open_clip_model(quick_gelu: bool = False, vocabulary: int = 300) -> open_clip.CLIP:
    vision = open_clip.CLIPVisionCfg(layers=3, width=128, patch_size=8, image_size=64)
    text = open_clip.CLIPTextCfg(vocab_size=vocabulary, width=128, heads=2, layers=3)
    torch.manual_seed(3)
    return open_clip.CLIP(128, vision, text, quick_gelu=quick_gelu).eval()


def open_clip_config(**changes) -> dict:
    vision = {"image_size": 64, "layers": 3, "width": 128, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 300, "width": 128, "heads": 2, "layers": 3}
    return {"model_cfg": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text} | changes}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> ClipTokenizer:
    return ClipTokenizer.train(CAPTIONS * 3, tmp_path_factory.mktemp("pairs"), vocab_size=100)


def write_pairs(folder: Path, pairs: ClipTokenizer) -> None:
    (folder / "bpe.txt").write_text("".join(f"{token}\n" for token in pairs.vocabulary[:-1]))


@torch.no_grad()
def test_clip_as_open_clip_saves_it(tmp_path, pairs, images):
    theirs = open_clip_model(vocabulary=pairs.vocab_size - 1)
    write_pairs(tmp_path, pairs)
    save_file(
        {n: t.contiguous() for n, t in theirs.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config()))
    opened = open_model(tmp_path)
    assert (opened.content["method"], opened.content["size"]) == ("clip", "tiny")
    assert pixels_of(opened.model).interpolation == "bicubic"
    assert not opened.model.has_matching
    torch.testing.assert_close(
        opened.model.encode_images(images)[1], theirs.encode_image(images), atol=1e-4, rtol=1e-4
    )
    texts = opened.model.tokenizer(CAPTIONS)
    full = pad(texts.ids, (0, 77 - texts.ids.shape[1]))
    torch.testing.assert_close(
        opened.model.encode_texts(texts)[1], theirs.encode_text(full), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_clip_as_openai_published_it(tmp_path, pairs, images, monkeypatch):
    """A traced module in half precision, which means QuickGELU: no size of that name is small, so one is made so here."""
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], quick_gelu=True))
    theirs = open_clip_model(quick_gelu=True, vocabulary=pairs.vocab_size - 1)
    write_pairs(tmp_path, pairs)
    example = images[:1], torch.zeros(1, 77, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(theirs, example, check_trace=False).half().save(str(tmp_path / "ViT-B-16.pt"))
    opened = open_model(tmp_path / "ViT-B-16.pt")
    expected = theirs.float().encode_image(images)
    found = opened.model.encode_images(images)[1]
    assert torch.cosine_similarity(found, expected).min() > 0.999


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-16-quickgelu", {"size": "base"}),
        ("ViT-B-16", {"size": "base", "arch": "ViT-B-16"}),
        ("ViT-L-14-336-quickgelu", {"size": "base", "arch": "ViT-L-14-336-quickgelu"}),
        ("EVA02-B-16", {"size": "eva02-base"}),
    ],
)
def test_released_clips_are_told_by_their_shapes(name, expected, monkeypatch):
    """The tensors of the real architectures, without their numbers; as archives, where the activation has to be known."""
    from models.backbones.clip import released
    from models.backbones.clip.checkpoints import _renamed

    monkeypatch.setattr(released, "is_torchscript", lambda _: True)
    monkeypatch.setattr(released, "_quick_gelu", lambda _, rotary: "quickgelu" in name)
    with torch.device("meta"):
        theirs = open_clip.create_model(name, pretrained=None, device="meta").state_dict()
    found = describe_clip(dict(_renamed(*item) for item in theirs.items()), Path("x.pt"))
    assert {"size": found.size, **found.options} == expected
    assert found.image_size == ((336, 336) if "336" in name else (224, 224))


def test_the_image_size_is_no_part_of_a_name():
    size = replace(SIZES["base"], image_size=(384, 128))
    assert sizes.named_as(size) == {"size": "base"}
    assert sizes.named_as(replace(size, text_layers=5)) is None


def test_what_can_not_be_searched_with_is_told(folder, tokenizer, pairs, tmp_path):
    torch.manual_seed(0)
    blip = BlipRetrieval("tiny", (64, 64), tokenizer=tokenizer).state_dict()
    clip = open_clip_model(vocabulary=pairs.vocab_size - 1).state_dict()
    for content, said in (
        (BlipCaptioner("tiny", (64, 64), tokenizer=tokenizer).state_dict(), "captioner, which can't compare"),
        ({name: tensor for name, tensor in blip.items() if "itm_head" not in name}, r"lacks itm_head\.weight"),
        ({name: tensor for name, tensor in blip.items() if "layer.2" not in name}, "in none of the sizes"),
        (blip | {"text_encoder.embeddings.word_embeddings.weight": torch.zeros(9, 128)}, "vocabulary of 9 words"),
        (clip, "does not say whether it was trained with QuickGELU"),
        ({"text_model.embeddings.token_embedding.weight": torch.zeros(1)}, "as transformers saves it"),
        ({"layer1.weight": torch.zeros(1)}, r"neither BLIP nor CLIP .* \(layer1\.weight"),
    ):  # fmt: skip
        path = folder / "weights.pth"
        torch.save({"model": content}, path)
        with pytest.raises(UserError, match=said):
            open_model(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has none of open_clip_model"):
        open_model(tmp_path / "empty")
    (folder / "weights.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="can't be loaded as weights"):
        open_model(folder / "weights.pth")
    with pytest.raises(UserError, match="There is no checkpoint"):
        open_model(tmp_path / "absent.pth")


def test_a_captioner_of_transformers_is_told(folder, tokenizer):
    transformers_blip(BlipForConditionalGeneration, tokenizer).save_pretrained(folder)
    with pytest.raises(UserError, match="captioner, which can't compare images"):
        open_model(folder)


@pytest.fixture
def trained(tokenizer):
    torch.manual_seed(5)
    model = build_model("cada", size="tiny", image_size=(32, 16), tokenizer=tokenizer)
    return checkpoints.describe(model, "cada", "tiny", selected_on="val", epoch=3, config="{}")


def test_a_published_model_is_its_checkpoint_bit_for_bit(tmp_path, trained):
    published.write(tmp_path / "out", trained, {"seed": 1})
    opened = open_model(tmp_path / "out")
    assert opened.trained
    assert not opened.is_own_file
    assert opened.content["meta"] == {"selected_on": "val", "epoch": 3}
    for key in ("method", "size", "image_size", "options", "vocabulary"):
        assert opened.content[key] == trained[key]
    assert opened.content["model"].keys() == trained["model"].keys()
    for name, tensor in trained["model"].items():
        assert opened.content["model"][name].dtype == tensor.dtype
        assert opened.content["model"][name].equal(tensor), name


def test_damaged_published_folders_are_told(tmp_path, trained):
    out = tmp_path / "out"
    published.write(out, trained, {})
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors is missing or damaged"):
        open_model(out)
    (out / "model.safetensors").write_bytes(weights)
    (out / "vocab.txt").unlink()
    with pytest.raises(UserError, match="no vocabulary at"):
        open_model(out)
    config = json.loads((out / "config.json").read_text())
    for change, said in (
        ({"format": "pspd-9"}, "another version"),
        ({"method": ["x"]}, "is damaged"),
        ({"image_size": [1]}, "is damaged"),
        ({"method": "later"}, "does not have"),
    ):
        (out / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=said):
            open_model(out)
