"""IRRA's losses caption by caption, its cross-modal encoder written out, and who learns how fast."""

from __future__ import annotations

import math

import method_examples as example
import pytest
import torch
from torch.nn.functional import layer_norm, linear, multi_head_attention_forward

from losses.sdm import sdm_loss
from losses.token_masking import mask_tokens
from models.backbones.clip.cross_modal import CrossModalEncoder

LABELS = [0, 0, 1, 2, 1, 3]


@torch.no_grad()
def test_words_are_guessed_caption_by_caption(words):
    model = example.model("irra", words)
    batch = example.batch(model, LABELS)
    tokenizer, costs = model.tokenizer, []
    image_tokens, _ = model.encode_images(batch.images)
    for row, caption in enumerate(example.CAPTIONS):
        ids = tokenizer([caption.text]).ids
        inside = torch.ones_like(ids, dtype=torch.bool)
        inside[:, 0] = inside[:, -1] = False
        hidden, chosen = mask_tokens(
            ids, inside, batch.seeds[row : row + 1], tokenizer.mask_id, tokenizer.vocab_size - 3
        )
        states = model.text_projection(model.text(hidden))
        states = model.cross_modal(
            states, torch.ones_like(ids, dtype=torch.bool), image_tokens[row : row + 1]
        )
        logs = torch.log_softmax(model.language_head(states)[0], 1)
        assert chosen.any()
        costs += [-logs[column, ids[0, column]].item() for column in chosen[0].nonzero()[:, 0].tolist()]
    assert model.losses(batch)["mlm"].item() == pytest.approx(sum(costs) / len(costs), rel=1e-4)


@torch.no_grad()
def test_identities_are_named_by_both_features(words):
    model = example.model("irra", words)
    torch.nn.init.normal_(model.classifier.weight)
    batch = example.batch(model, LABELS)
    _, images = model.encode_images(batch.images)
    _, texts = model.encode_texts(batch.texts)
    costs = []
    for features in (images, texts):
        for feature, label in zip(features, LABELS, strict=True):
            logits = [float(feature @ weight) for weight in model.classifier.weight]
            costs.append(math.log(sum(map(math.exp, logits))) - logits[label])
    losses = model.losses(batch)
    assert losses["identity"].item() == pytest.approx(sum(costs) / len(costs), rel=1e-4)
    assert losses["sdm"].item() == pytest.approx(sdm_loss(images, texts, batch.labels).item(), rel=1e-5)


@torch.no_grad()
def test_the_cross_modal_encoder_is_its_formulas(randomised):
    """Every caption by itself, from torch's functional attention; QuickGELU is x sigmoid(1.702 x)."""
    encoder = randomised(CrossModalEncoder(128, 2)).double()
    text, image = torch.randn(2, 3, 9, 128, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([[9], [4], [2]])

    def attend(part, query, source):
        query, source = query.transpose(0, 1), source.transpose(0, 1)
        return multi_head_attention_forward(
            query, source, source, 128, 2, part.in_proj_weight, part.in_proj_bias, None, None, False, 0.0,
            part.out_proj.weight, part.out_proj.bias, need_weights=False,
        )[0].transpose(0, 1)  # fmt: skip

    def norm(part, values):
        return layer_norm(values, (128,), part.weight, part.bias, 1e-5)

    whole = encoder(text, mask, image)
    for row, length in enumerate((9, 4, 2)):
        words, pixels = text[row : row + 1, :length], norm(encoder.image_norm, image[row : row + 1])
        states = attend(encoder.attention, norm(encoder.text_norm, words), pixels)
        for block in encoder.transformer.resblocks:
            inner = norm(block.ln_1, states)
            states = states + attend(block.attn, inner, inner)
            inner = linear(norm(block.ln_2, states), block.mlp.c_fc.weight, block.mlp.c_fc.bias)
            inner = inner * torch.sigmoid(1.702 * inner)
            states = states + linear(inner, block.mlp.c_proj.weight, block.mlp.c_proj.bias)
        torch.testing.assert_close(whole[row, :length], norm(encoder.norm, states)[0], rtol=1e-9, atol=1e-9)


@pytest.fixture
def randomised():
    """So that a forgotten bias or scale shows."""

    def change(module):
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                scale = 0.2 if parameter.ndim == 1 else parameter.shape[1] ** -0.5
                parameter.copy_(scale * noise + (parameter if parameter.ndim == 1 else 0))
        return module

    return change


def test_who_learns_how_fast(words):
    model = example.model("irra", words)
    factors = {name: model.learning_rate_factor(name) for name, _ in model.named_parameters()}
    expected = {
        "visual.class_embedding": 1,
        "visual.transformer.resblocks.0.attn.in_proj_weight": 1,
        "visual.transformer.resblocks.0.attn.in_proj_bias": 2,
        "text.ln_final.bias": 2,
        "text.ln_final.weight": 1,
        "text_projection.weight": 1,
        "cross_modal.attention.in_proj_weight": 5,
        "cross_modal.attention.in_proj_bias": 2,
        "cross_modal.transformer.resblocks.1.mlp.c_fc.weight": 5,
        "language_head.3.weight": 5,
        "language_head.3.bias": 5,
        "classifier.weight": 5,
        "classifier.bias": 5,
    }
    assert {name: factors[name] for name in expected} == expected
    decayed = [group for group in model.parameter_groups(1e-5, 4e-5) if group["weight_decay"]]
    assert {group["lr"] for group in decayed} == {1e-5, 5e-5}
    biases = {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    assert not biases & {id(p) for group in decayed for p in group["params"]}


def test_without_the_language_loss_there_is_no_cross_modal_encoder(words):
    model = example.model("irra", words, language_weight=0)
    assert set(model.losses(example.batch(model, LABELS))) == {"sdm", "identity"}
    assert not any(name.startswith(("cross_modal", "language_head")) for name in model.state_dict())


def test_the_language_weight_scales(words):
    single, double = (example.model("irra", words, language_weight=weight) for weight in (1.0, 2.0))
    one, two = (model.losses(example.batch(model, LABELS))["mlm"].item() for model in (single, double))
    assert two == pytest.approx(2 * one)


def test_a_warm_up_needs_no_classes(words):
    model = example.build("irra", words)
    batch = example.batch(model, LABELS)
    assert set(model.warm_up_losses(batch, matching=False)) == {"itc"}
    with pytest.raises(ValueError, match="set_identities"):
        model.losses(batch)
    model.set_identities(4)
    batch.seeds = None
    with pytest.raises(ValueError, match="one seed per sample"):
        model.losses(batch)
