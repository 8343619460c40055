"""What is compared, ranked or decided is float32 under bfloat16 autocast, in every method."""

from __future__ import annotations

import method_examples as example
import pytest
import torch
import torch.nn.functional as F

from models.heads import Head

LABELS = [0, 0, 1, 2, 1, 3]
# Last layers by the names that methods and checkpoints give them.
LAST = (
    "vision_proj",
    "text_proj",
    "image_projection",
    "text_projection",
    "language_head.3",
    "itm_head",
    "itm_local_head",
    "classifier",
    "fusion.projection",
    "global_projection",
    "part_projection",
    "classifiers.0",
    "classifiers.1",
    "classifiers.2",
    "image_selection.linear",
    "image_selection.mlp.3",
    "text_selection.linear",
    "text_selection.mlp.3",
    "view_head.0",
    "view_head.3",
)


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
    with torch.no_grad(), bf16():
        image_tokens, image_features = model.encode_images(batch.images)
        text_tokens, text_features = model.encode_texts(batch.texts)
        rows = model.cluster_features(
            image_tokens, image_features, text_tokens, text_features, batch.texts.mask
        )
        logits = model.match(batch.texts, image_tokens) if model.has_matching else image_features
    for values in (image_features, text_features, rows, logits):
        assert values.dtype == torch.float32
        assert not values.equal(values.bfloat16().float())  # nor is it bfloat16 that was widened


@pytest.mark.parametrize("method", example.all_methods())
def test_every_last_layer_of_a_training_step_is_float32(method, words):
    model = example.model(method, words)
    last = {name: part for name, part in model.named_modules() if name in LAST}
    seen: dict[str, torch.dtype] = {}
    for name, part in last.items():
        part.register_forward_hook(lambda _, __, found, name=name: seen.update({name: found.dtype}))
    with bf16():
        model.losses(example.batch(model, LABELS))
    assert seen.keys() == last.keys()
    assert set(seen.values()) <= {torch.float32}, seen
