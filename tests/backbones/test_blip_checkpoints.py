"""Loading BLIP's files: original names, transformers' directories, interpolation, and every way a file can be wrong."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipTextConfig,
    BlipVisionConfig,
)

from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.checkpoints import load_blip
from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.tokenizer import BlipTokenizer
from models.backbones.weights import CheckpointError, interpolate_positions

SOURCE_IMAGE = 384  # as in the released captioning file: a 48 x 48 grid of the tiny model's patches
POSITIONS = "visual_encoder.pos_embed"


@pytest.fixture(scope="module")
def released(tokenizer, randomise) -> dict[str, torch.Tensor]:
    """All that a released pre-training file has, in its names, at the tiny size."""
    retrieval = BlipRetrieval("tiny", (SOURCE_IMAGE, SOURCE_IMAGE), tokenizer=tokenizer)
    captioner = BlipCaptioner("tiny", (SOURCE_IMAGE, SOURCE_IMAGE), tokenizer=tokenizer)
    randomise(retrieval, 1)
    randomise(captioner, 2)
    state = {**captioner.state_dict(), **retrieval.state_dict()}
    for part in ("visual_encoder", "text_encoder", "vision_proj", "text_proj"):
        for name in [name for name in state if name.startswith(part + ".")]:
            state[name.replace(part, part + "_m", 1)] = torch.randn_like(state[name])
    for name in ("text_encoder.embeddings", "text_encoder_m.embeddings", "text_decoder.bert.embeddings"):
        state[f"{name}.position_ids"] = torch.arange(512)[None]
    state |= {
        "image_queue": torch.zeros(256, 8),
        "text_queue": torch.zeros(256, 8),
        "temp": torch.tensor(0.07),
    }
    state |= {"idx_queue": torch.zeros(1, 8), "ptr_queue": torch.zeros(1, dtype=torch.int64)}
    return state


@pytest.fixture(scope="module")
def released_file(released, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model_base.pth"
    torch.save({"model": released, "epoch": 20, "config": {"image_res": SOURCE_IMAGE}}, path)
    return path


def by_hand(positions: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    side = int((positions.shape[1] - 1) ** 0.5)
    grid = positions[0, 1:].T.reshape(1, -1, side, side)
    grid = torch.nn.functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([positions[0, :1], grid[0].reshape(grid.shape[1], -1).T])[None]


@pytest.mark.parametrize("kind", [BlipRetrieval, BlipCaptioner])
def test_original_names_load_into_another_grid(kind, released, released_file, tokenizer):
    model = kind("tiny", (96, 48), tokenizer=tokenizer)
    report = load_blip(model, released_file)
    assert report.missing == ()
    assert report.unexpected == ()
    assert report.interpolated == (POSITIONS,)
    assert set(report.ignored) == set(released) - set(model.state_dict())
    for name, tensor in model.state_dict().items():
        expected = by_hand(released[name], 12, 6) if name == POSITIONS else released[name]
        assert torch.allclose(tensor, expected, atol=1e-6), name
    assert POSITIONS in str(report)
    if kind is BlipCaptioner:
        head = model.text_decoder.cls.predictions
        assert head.decoder.weight is model.text_decoder.bert.embeddings.word_embeddings.weight
        assert head.bias is head.decoder.bias


def test_same_grid_is_left_alone_and_a_flat_file_loads(released, tmp_path, tokenizer):
    path = tmp_path / "flat.pth"
    torch.save({f"module.{name}": tensor for name, tensor in released.items()}, path)
    model = BlipRetrieval("tiny", (SOURCE_IMAGE, SOURCE_IMAGE), tokenizer=tokenizer)
    assert load_blip(model, path).interpolated == ()
    assert model.visual_encoder.pos_embed.equal(released[POSITIONS])


def test_grid_of_equal_count_but_other_shape_is_interpolated(tmp_path, tokenizer):
    """16 patches: 4 x 4 in the file, 8 x 2 in the model; the count alone would not tell."""
    square = BlipRetrieval("tiny", (32, 32), tokenizer=tokenizer)
    path = tmp_path / "square.pth"
    torch.save({"model": square.state_dict()}, path)
    tall = BlipRetrieval("tiny", (64, 16), tokenizer=tokenizer)
    assert load_blip(tall, path).interpolated == (POSITIONS,)
    assert torch.allclose(
        tall.visual_encoder.pos_embed, by_hand(square.visual_encoder.pos_embed, 8, 2), atol=1e-6
    )
    torch.save({"model": tall.state_dict()}, path)
    again = BlipRetrieval("tiny", (64, 16), tokenizer=tokenizer)
    assert load_blip(again, path, source_grid=(8, 2)).interpolated == ()
    assert again.visual_encoder.pos_embed.equal(tall.visual_encoder.pos_embed)
    with pytest.raises(CheckpointError, match="source_grid"):
        load_blip(again, path, source_grid=(3, 3))


def test_interpolation_keeps_constants_and_the_class_token():
    positions = torch.full((1, 1 + 36, 5), 0.3)
    positions[:, 0] = 7.0
    result = interpolate_positions(positions, (6, 6), (9, 2))
    assert result.shape == (1, 19, 5)
    assert torch.allclose(result[:, 1:], torch.tensor(0.3))
    assert (result[:, 0] == 7.0).all()


def test_missing_heads_are_reported_and_missing_encoders_refused(released, tmp_path, tokenizer):
    path = tmp_path / "part.pth"
    headless = {name: tensor for name, tensor in released.items() if "itm_head" not in name}
    torch.save({"model": headless | {"surprise.weight": torch.zeros(1)}}, path)
    model = BlipRetrieval("tiny", tokenizer=tokenizer)
    report = load_blip(model, path)
    assert set(report.missing) == {"itm_head.weight", "itm_head.bias"}
    assert report.unexpected == ("surprise.weight",)
    key = "text_encoder.encoder.layer.1.crossattention.self.key.weight"
    torch.save({"model": {name: tensor for name, tensor in released.items() if name != key}}, path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=key):
        load_blip(model, path)
    captions_only = {
        name: tensor for name, tensor in released.items() if name.startswith(("visual", "text_decoder"))
    }
    torch.save({"model": captions_only}, path)
    with pytest.raises(CheckpointError, match=r"text_encoder\.embeddings"):
        load_blip(model, path)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items()), (
        "a failed load changed it"
    )


def test_wrong_size_and_wrong_vocabulary_are_told_apart(released_file, tokenizer, bert_pieces):
    other = BlipTokenizer(bert_pieces[:104] + bert_pieces[104:400])
    with pytest.raises(CheckpointError, match="vocabulary"):
        load_blip(BlipRetrieval("tiny", tokenizer=other), released_file)
    from dataclasses import replace

    from models.backbones.blip.sizes import SIZES

    wide = replace(SIZES["tiny"], vision_width=64)
    with pytest.raises(CheckpointError, match="another size"):
        load_blip(BlipRetrieval(wide, tokenizer=tokenizer), released_file)


class Payload:
    def __reduce__(self):
        return os.mkdir, (os.environ["PAYLOAD_TARGET"],)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_payload_is_refused_and_not_run(released, tmp_path, tokenizer, monkeypatch, legacy):
    target = tmp_path / "ran"
    monkeypatch.setenv("PAYLOAD_TARGET", str(target))
    path = tmp_path / "evil.pth"
    torch.save({"model": released, "note": Payload()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"more than tensors .*mkdir"):
        load_blip(BlipRetrieval("tiny", tokenizer=tokenizer), path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        load_blip(BlipRetrieval("tiny", tokenizer=tokenizer), path)
    assert not target.exists()


def test_files_that_are_no_checkpoints(released_file, tmp_path, tokenizer):
    model = BlipRetrieval("tiny", tokenizer=tokenizer)
    whole = released_file.read_bytes()
    path = tmp_path / "bad.pth"
    for content in (
        whole[: len(whole) // 2],
        whole[:100],
        b"",
        b"<html>404</html>",
        b"version https://git-lfs\n",
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="checkpoint"):
            load_blip(model, path)
    for thing, words in (([1, 2], "list"), ({"model": {}}, "no tensors"), ({"epoch": 3}, "no tensors")):
        torch.save(thing, path)
        with pytest.raises(CheckpointError, match=words):
            load_blip(model, path)
    with pytest.raises(CheckpointError, match="README"):
        load_blip(model, tmp_path / "absent.pth")


def transformers_model(kind, tokenizer, heads: int = 4, eps: float = 1e-6):
    vision = BlipVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=64,
        patch_size=8,
        layer_norm_eps=eps,
    )
    text = BlipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=128,
        encoder_hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=heads,
        bos_token_id=tokenizer.dec_id,
        sep_token_id=tokenizer.sep_id,
    )
    return kind(BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())).eval()


def test_transformers_captioner_directory(tmp_path, tokenizer, randomise):
    theirs = transformers_model(BlipForConditionalGeneration, tokenizer)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = BlipCaptioner("tiny", (96, 48), tokenizer=tokenizer).eval()
    report = load_blip(ours, tmp_path)
    assert (report.missing, report.unexpected, report.interpolated) == ((), (), (POSITIONS,))
    images = torch.randn(2, 3, 96, 48, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[tokenizer.dec_id, 9, 8, 7], [tokenizer.dec_id, 20, 30, 40]])
    reference = theirs(pixel_values=images, input_ids=ids, interpolate_pos_encoding=True).logits
    assert torch.allclose(ours.logits(ours.encode_images(images), ids), reference, atol=1e-4, rtol=1e-4)


def test_transformers_retrieval_directory(tmp_path, tokenizer, captions, randomise):
    theirs = transformers_model(BlipForImageTextRetrieval, tokenizer)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = BlipRetrieval("tiny", (64, 64), tokenizer=tokenizer).eval()
    report = load_blip(ours, tmp_path)
    assert (report.missing, report.unexpected, report.interpolated) == ((), (), ())
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = tokenizer(captions)
    ids = batch.ids.clone()
    ids[:, 0] = tokenizer.enc_id
    tokens, image_features = ours.encode_images(images)
    reference = theirs(input_ids=ids, pixel_values=images, attention_mask=batch.mask.long()).itm_score
    assert torch.allclose(ours.match(batch, tokens), reference, atol=1e-4, rtol=1e-4)
    cosine = theirs(
        input_ids=batch.ids, pixel_values=images, attention_mask=batch.mask.long(), use_itm_head=False
    ).itm_score
    _, text_features = ours.encode_texts(batch)
    normalise = torch.nn.functional.normalize
    assert torch.allclose(normalise(image_features) @ normalise(text_features).T, cosine, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "ours"),
    [(BlipForImageTextRetrieval, BlipRetrieval), (BlipForConditionalGeneration, BlipCaptioner)],
)
def test_every_tensor_of_transformers_is_used_and_every_weight_of_ours_is_filled(
    kind, ours, tmp_path, tokenizer, randomise
):
    """Also from the file alone, under whatever name it lies."""
    theirs = transformers_model(kind, tokenizer)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    model = ours("tiny", (64, 64), tokenizer=tokenizer)
    report = load_blip(model, tmp_path)
    assert (report.missing, report.unexpected, report.interpolated) == ((), (), ())
    assert set(report.ignored) <= {"logit_scale", "text_decoder.bert.embeddings.position_ids"}
    tied = {id(parameter) for parameter in model.parameters()}
    assert len(saved) - len(report.ignored) == len(tied), "one tensor for each weight"
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    left = {tensor.double().sum().item() for tensor in kept.values()}
    unused = [name for name, tensor in saved.items() if tensor.double().sum().item() not in left]
    assert set(unused) <= {"logit_scale"}
    alone = tmp_path / "elsewhere.safetensors"
    (tmp_path / "model.safetensors").rename(alone)
    again = ours("tiny", (64, 64), tokenizer=tokenizer)
    assert load_blip(again, alone).missing == ()
    assert all(tensor.equal(kept[name]) for name, tensor in again.state_dict().items())
    torch.save(saved, tmp_path / "pytorch_model.bin")
    load_blip(again, tmp_path / "pytorch_model.bin")
    assert all(tensor.equal(kept[name]) for name, tensor in again.state_dict().items())


def test_another_epsilon_is_told_and_not_taken(tmp_path, tokenizer):
    """transformers' own conversions of BLIP state 1e-5, or nothing, which means 1e-5: the weights are those of 1e-6."""
    reports = {}
    for eps in (1e-6, 1e-5):
        transformers_model(BlipForConditionalGeneration, tokenizer, eps=eps).save_pretrained(tmp_path)
        ours = BlipCaptioner("tiny", (64, 64), tokenizer=tokenizer)
        reports[eps] = load_blip(ours, tmp_path)
        assert all(block.norm1.eps == 1e-6 for block in ours.visual_encoder.blocks)
    assert "epsilon" not in str(reports[1e-6])
    assert "epsilon of 1e-05 in config.json; 1e-06" in str(reports[1e-5])
    config = json.loads((tmp_path / "config.json").read_text())
    del config["vision_config"]["layer_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert str(load_blip(ours, tmp_path)) == str(reports[1e-5])


def test_wrong_transformers_directories(tmp_path, tokenizer):
    ours = BlipCaptioner("tiny", (64, 64), tokenizer=tokenizer)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_blip(ours, tmp_path)
    transformers_model(BlipForConditionalGeneration, tokenizer, heads=2).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="2 attention heads"):
        load_blip(ours, tmp_path)
    transformers_model(BlipForConditionalGeneration, tokenizer).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        load_blip(ours, tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="neither"):
        load_blip(ours, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="bert"):
        load_blip(ours, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        load_blip(ours, tmp_path)
