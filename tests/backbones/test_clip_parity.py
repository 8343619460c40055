"""Same weights, same numbers: CLIP's towers against transformers' CLIPModel, outputs and gradients, and EVA-02's image tower
against one written out here. In double precision, where agreement cannot be rounding's luck."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu
from transformers import CLIPConfig, CLIPModel

from models.backbones.clip.checkpoints import load_clip
from models.backbones.clip.retrieval import ClipRetrieval
from models.backbones.clip.sizes import Size
from models.backbones.clip.tokenizer import ClipTokenizer

TOLERANCE = 1e-8
SIZE = Size(48, 64, 2, 2, 16, 32, 3, 2, (64, 64), quick_gelu=True)
EVA = Size(48, 64, 3, 2, 8, 32, 2, 2, (32, 32), vision_mlp=8 / 3, rotary=True)


@pytest.fixture(scope="module")
def words(captions, tmp_path_factory) -> ClipTokenizer:
    return ClipTokenizer.train(captions * 2, tmp_path_factory.mktemp("pairs"), vocab_size=160)


@pytest.fixture(scope="module")
def reference(words, randomise) -> CLIPModel:
    vision = {
        **{"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"image_size": 64, "patch_size": 16, "projection_dim": 48},
    }
    text = {
        **{"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2},
        **{"vocab_size": words.vocab_size - 1, "bos_token_id": words.start_id, "eos_token_id": words.end_id},
        "projection_dim": 48,
    }
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=48))
    randomise(model)
    return model.double()


def openai_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' weights, or their gradients, under OpenAI's names: queries, keys and values in one, some transposed."""
    state = {
        "visual.proj": tensors["visual_projection.weight"].T,
        "text_projection": tensors["text_projection.weight"].T,
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = tensors[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
        state[f"ln_final.{kind}"] = tensors[f"text_model.final_layer_norm.{kind}"]
        for theirs, ours, layers in (
            ("vision_model", "visual.transformer", 2),
            ("text_model", "transformer", 3),
        ):
            for number in range(layers):
                layer, block = f"{theirs}.encoder.layers.{number}", f"{ours}.resblocks.{number}"
                parts = [tensors[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                state[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
                for source, own in (
                    *(
                        ("self_attn.out_proj", "attn.out_proj"),
                        ("layer_norm1", "ln_1"),
                        ("layer_norm2", "ln_2"),
                    ),
                    *(("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")),
                ):
                    state[f"{block}.{own}.{kind}"] = tensors[f"{layer}.{source}.{kind}"]
    return state


def ours_with_weights_of(
    reference: CLIPModel, words: ClipTokenizer, image_size: tuple[int, int], path: Path
) -> ClipRetrieval:
    torch.save(openai_names(reference.state_dict()), path)
    model = ClipRetrieval(SIZE, image_size, words).double()
    load_clip(model, path)
    return model


@pytest.mark.parametrize("image_size", [(64, 64), (384, 128)])
def test_clip_is_transformers_clip(image_size, reference, words, captions, tmp_path):
    model = ours_with_weights_of(reference, words, image_size, tmp_path / "clip.pt")
    images = torch.randn(3, 3, *image_size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    texts = words(captions)
    reference.zero_grad()
    vision = reference.vision_model(images, interpolate_pos_encoding=True)
    text = reference.text_model(texts.ids)
    expected = [
        reference.visual_projection(vision.pooler_output),
        reference.text_projection(text.last_hidden_state),
        reference.text_projection(text.pooler_output),
    ]
    image_tokens, image_features = model.encode_images(images)
    text_tokens, text_features = model.encode_texts(texts)
    torch.testing.assert_close(image_tokens[:, 0], image_features, rtol=TOLERANCE, atol=TOLERANCE)
    for ours, theirs in zip((image_features, text_tokens, text_features), expected, strict=True):
        inside = texts.mask if ours.ndim == 3 else ...
        torch.testing.assert_close(ours[inside], theirs[inside], rtol=TOLERANCE, atol=TOLERANCE)

    weights = torch.randn(3, 48, dtype=torch.float64), torch.randn(4, 48, dtype=torch.float64)
    ((expected[0] * weights[0]).sum() + (expected[2] * weights[1]).sum()).backward()
    ((image_features * weights[0]).sum() + (text_features * weights[1]).sum()).backward()
    names = dict(reference.named_parameters())
    gradients = openai_names({name: p.grad for name, p in names.items() if p.grad is not None})
    own = openai_gradients(model)
    if image_size != (64, 64):  # of interpolated positions it is another parameter's
        assert own.pop("visual.positional_embedding").shape == (1 + 24 * 8, 64)
        del gradients["visual.positional_embedding"]
    own["token_embedding.weight"] = own["token_embedding.weight"][:-1]
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-7, atol=1e-7, msg=name)


def test_rows_of_attention_are_transformers(reference, words, captions, tmp_path):
    """What [CLS] and the end of a caption look at in the last layer. transformers' attention, written out, has all weights; its
    softmax is in single precision."""
    model = ours_with_weights_of(reference, words, (96, 64), tmp_path / "clip.pt")
    images = torch.randn(3, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    reference.set_attn_implementation("eager")
    seen = reference.vision_model(images, interpolate_pos_encoding=True, output_attentions=True)
    tokens, features, attention = model.attend_images(images)
    torch.testing.assert_close(attention, seen.attentions[-1].mean(1)[:, 0], rtol=1e-5, atol=1e-7)
    for found, expected in zip((tokens, features), model.encode_images(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    tokens, features, attention, mask = model.attend_texts(captions)
    for found, expected in zip((tokens, features), model.encode_texts(captions), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for row, caption in enumerate(captions):  # alone, without padding
        ids = words([caption]).ids
        read = reference.text_model(ids, output_attentions=True)
        expected = torch.zeros_like(attention[row])
        expected[: ids.shape[1]] = read.attentions[-1].mean(1)[0, -1]
        torch.testing.assert_close(attention[row], expected, rtol=1e-5, atol=1e-7)
        assert mask[row].sum() == ids.shape[1]


def openai_gradients(model: ClipRetrieval) -> dict[str, Tensor]:
    named = {name.removeprefix("text."): p.grad for name, p in model.named_parameters()}
    named["visual.proj"] = named.pop("image_projection.weight").T
    named["text_projection"] = named.pop("text_projection.weight").T
    return named


def raw_eva(seed: int = 3) -> dict[str, Tensor]:
    """An image tower in the names of EVA-CLIP's own files, for a 4 x 4 grid."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float | None = None) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * (scale or shape[-1] ** -0.5)

    width, hidden = 64, int(64 * 8 / 3)
    state = {
        "visual.cls_token": draw(1, 1, width, scale=0.5),
        "visual.pos_embed": draw(1, 17, width, scale=0.5),
        "visual.patch_embed.proj.weight": draw(width, 3, 8, 8, scale=0.1),
        "visual.patch_embed.proj.bias": draw(width, scale=0.2),
        "visual.head.weight": draw(48, width),
        "visual.head.bias": draw(48, scale=0.2),
        "visual.rope.freqs_cos": draw(16, 32),
        "logit_scale": torch.tensor(4.6, dtype=torch.float64),
    }
    norms = {"visual.norm": width}
    for number in range(EVA.vision_layers):
        block = f"visual.blocks.{number}"
        norms |= {f"{block}.norm1": width, f"{block}.norm2": width}
        norms |= {f"{block}.attn.inner_attn_ln": width, f"{block}.mlp.ffn_ln": hidden}
        for part in "qkv":
            state[f"{block}.attn.{part}_proj.weight"] = draw(width, width)
        for part in "qv":
            state[f"{block}.attn.{part}_bias"] = draw(width, scale=0.2)
        for name, rows, columns in (
            *(("attn.proj", width, width), ("mlp.w1", hidden, width), ("mlp.w2", hidden, width)),
            ("mlp.w3", width, hidden),
        ):
            state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"] = (
                draw(rows, columns),
                draw(rows, scale=0.2),
            )
        state[f"{block}.attn.rope.freqs_sin"] = draw(16, 32)
    for name, size in norms.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + draw(size, scale=0.2), draw(size, scale=0.2)
    return state


def plain_eva(state: dict[str, Tensor], images: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """EVA-02's image tower from the paper's formulas (Fang et al., arXiv 2303.11331): all tokens, projected, and the last
    layer's attention of all heads.

    Rotary positions turn the pairs (2i, 2i + 1) of a patch's queries and keys, the first half of them by its row, the second
    by its column, which count in sixteenths of the image's side; the class token stays. LayerNorm before each part and
    within it, before its last matrix; feed-forward silu(W1 x) * (W2 x).
    """

    def norm(values: Tensor, name: str) -> Tensor:
        return layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def full(values: Tensor, name: str) -> Tensor:
        return linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    patches = torch.nn.functional.conv2d(images, state["visual.patch_embed.proj.weight"], state["visual.patch_embed.proj.bias"], stride=8)  # fmt: skip
    rows, columns = patches.shape[-2:]
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat([state["visual.cls_token"].expand(len(tokens), 1, -1), tokens], 1) + positions
    heads, wide = EVA.vision_heads, 64 // EVA.vision_heads
    frequencies = 10000.0 ** -(torch.arange(wide // 4, dtype=torch.float64) / (wide // 4))
    angles = torch.zeros(1 + rows * columns, wide // 2, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            places = [16 * row / rows * frequencies, 16 * column / columns * frequencies]
            angles[1 + row * columns + column] = torch.cat(places)

    def turned(values: Tensor) -> Tensor:
        pairs = torch.view_as_complex(values.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)

    for number in range(EVA.vision_layers):
        block = f"visual.blocks.{number}"
        inner = norm(tokens, f"{block}.norm1")
        query = linear(inner, state[f"{block}.attn.q_proj.weight"], state[f"{block}.attn.q_bias"])
        key = linear(inner, state[f"{block}.attn.k_proj.weight"])
        value = linear(inner, state[f"{block}.attn.v_proj.weight"], state[f"{block}.attn.v_bias"])
        query, key, value = (one.unflatten(-1, (heads, wide)).transpose(1, 2) for one in (query, key, value))
        attention = (turned(query) @ turned(key).transpose(-1, -2) / wide**0.5).softmax(-1)
        mixed = (attention @ value).transpose(1, 2).flatten(2)
        tokens = tokens + full(norm(mixed, f"{block}.attn.inner_attn_ln"), f"{block}.attn.proj")
        inner = norm(tokens, f"{block}.norm2")
        gated = silu(full(inner, f"{block}.mlp.w1")) * full(inner, f"{block}.mlp.w2")
        tokens = tokens + full(norm(gated, f"{block}.mlp.ffn_ln"), f"{block}.mlp.w3")
    return full(norm(tokens, "visual.norm"), "visual.head"), attention


@pytest.mark.parametrize("image_size", [(32, 32), (96, 48)])
def test_eva_is_its_formulas(image_size, words, tmp_path):
    raw = raw_eva()
    model = ClipRetrieval(EVA, image_size, words).double()
    texts = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("text.")}
    texts["text.text_projection"] = model.text_projection.weight.T
    torch.save(raw | texts, tmp_path / "eva.pt")
    report = load_clip(model, tmp_path / "eva.pt")
    assert report.missing == report.unexpected == ()
    assert report.interpolated == (() if image_size == (32, 32) else ("visual.pos_embed",))
    assert set(report.ignored) == {
        *("logit_scale", "visual.rope.freqs_cos"),
        *(f"visual.blocks.{number}.attn.rope.freqs_sin" for number in range(3)),
    }
    images = torch.randn(2, 3, *image_size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected, weights = plain_eva(raw, images, model.visual.pos_embed.detach())
    tokens, features = model.encode_images(images)
    torch.testing.assert_close(tokens, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(features, expected[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.attend_images(images)[0], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.attend_images(images)[2], weights.mean(1)[:, 0], rtol=1e-6, atol=1e-6)
