"""What is compared, ranked or decided is float32 under bfloat16 autocast, in every method."""

from __future__ import annotations

import method_examples as example
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.heads import Head

LABELS = [0, 0, 1, 2, 1, 3]
# Last layers by the names that methods and checkpoints give them.
HEADS = ("vision_proj", "text_proj", "itm_head")
LAST = (*HEADS, "itm_local_head", "classifier", "fusion.projection", "global_projection", "part_projection")
LAST += tuple(f"classifiers.{level}" for level in range(3))


def heads_of(model: nn.Module) -> list[str]:
    """The layers that a BLIP model's features and logits come out of; another backbone has others."""
    return [name for name in HEADS if hasattr(model, name)]


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_a_head_computes_in_float32_whatever_comes_and_learns():
    head, values = Head(8, 3), torch.randn(5, 8).bfloat16().requires_grad_()
    expected = F.linear(values.float(), head.weight, head.bias)
    with bf16():
        found = head(values)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found.sum().backward()
    torch.testing.assert_close(head.weight.grad, values.detach().float().sum(0).expand(3, 8))
    double = head.double()(values.detach().double())
    assert double.dtype == torch.float64


@pytest.mark.parametrize("method", example.all_methods())
def test_features_and_logits_of_the_verbs_are_float32(method, words):
    model = example.model(method, words).eval()
    batch = example.batch(model, LABELS)
    inputs: dict[str, torch.Tensor] = {}
    for name in heads_of(model):
        head = getattr(model, name)
        head.register_forward_hook(lambda _, given, __, name=name: inputs.update({name: given[0]}))
    with torch.no_grad(), bf16():
        image_tokens, image_features = model.encode_images(batch.images)
        text_tokens, text_features = model.encode_texts(batch.texts)
        logits = model.match(batch.texts, image_tokens) if model.has_matching else torch.zeros(0)
        rows = model.cluster_features(
            image_tokens, image_features, text_tokens, text_features, batch.texts.mask
        )
    found = dict(zip(HEADS, (image_features, text_features, logits), strict=True))
    assert {values.dtype for values in found.values()} == {torch.float32}
    for name in heads_of(model):
        head, values = getattr(model, name), found[name]
        torch.testing.assert_close(values, F.linear(inputs[name].float(), head.weight, head.bias))
    assert rows.dtype == torch.float32


@pytest.mark.parametrize("method", example.all_methods())
def test_every_last_layer_of_a_training_step_is_float32(method, words):
    model = example.model(method, words)
    seen: dict[str, torch.dtype] = {}
    for name, part in model.named_modules():
        if name in LAST:
            part.register_forward_hook(lambda _, __, found, name=name: seen.update({name: found.dtype}))
    with bf16():
        model.losses(example.batch(model, LABELS))
    assert seen.keys() >= (set(heads_of(model)) or {"global_projection", "part_projection", "classifiers.2"})
    assert set(seen.values()) == {torch.float32}, seen
