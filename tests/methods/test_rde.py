"""RDE's embeddings and losses sample by sample, what is selected, and what a feature and a weight are."""

from __future__ import annotations

import math

import method_examples as example
import pytest
import torch
from torch.nn.functional import cosine_similarity, linear, relu

from models import TrainingCaption
from models.backbones.clip.token_selection import TokenSelection, select
from models.methods.rde import ADDED

LABELS = [0, 0, 1, 2, 1, 3]


def best(attention, columns, count):
    """The columns that are looked at most, in a plain sort, repeated where there are fewer than `count`."""
    ranked = sorted(columns, key=lambda column: -attention[column])[:count]
    return [ranked[place % len(ranked)] for place in range(count)]


def embedded(part: TokenSelection, tokens: list[torch.Tensor]) -> torch.Tensor:
    """Of samples of selected tokens (k, D) each, one matrix at a time, with the batch's statistics in training."""
    norm = part.mlp[1]
    tokens = [one / one.square().sum(1, keepdim=True).sqrt() for one in tokens]
    hidden = [linear(one, part.mlp[0].weight, part.mlp[0].bias) for one in tokens]
    rows = torch.cat(hidden)
    mean, variance = norm.running_mean, norm.running_var
    if part.training:
        mean = rows.sum(0) / len(rows)
        variance = ((rows - mean) ** 2).sum(0) / len(rows)
    found = []
    for one, inner in zip(tokens, hidden, strict=True):
        inner = relu((inner - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias)
        values = linear(inner, part.mlp[3].weight, part.mlp[3].bias)
        values = values + linear(one, part.linear.weight, part.linear.bias)
        found.append(torch.stack([max(column) for column in values.T]))
    return torch.stack(found)


def by_hand(model, batch):
    """Both embeddings of the images and of the texts, from the backbone's tokens and rows of attention."""
    tokens, images, attention = model.attend_images(batch.images)
    part = model.image_selection
    columns = [best(row, range(1, len(row)), part.count) for row in attention.tolist()]
    selected = [one[chosen] for one, chosen in zip(tokens, columns, strict=True)]
    result = [images, embedded(part, selected)]
    tokens, texts, attention, mask = model.attend_texts(batch.texts)
    part, selected = model.text_selection, []
    for one, row, length in zip(tokens, attention.tolist(), mask.sum(1).tolist(), strict=True):
        selected.append(one[best(row, range(1, length - 1), part.count)])
    return [*result, texts, embedded(part, selected)]


def tal(images, texts, labels):
    """The paper's formula in plain loops: the losses of each pair."""
    score = [[float(cosine_similarity(v, t, 0)) for t in texts] for v in images]
    costs = []
    for i, label in enumerate(labels):
        cost = 0.0
        for row in (score[i], [line[i] for line in score]):
            positives = [s for s, other in zip(row, labels, strict=True) if other == label]
            powers = [math.exp(s / 0.015 - max(positives) / 0.015) for s in positives]
            positive = sum(power * s for power, s in zip(powers, positives, strict=True)) / sum(powers)
            negatives = [math.exp(s / 0.015) for s, other in zip(row, labels, strict=True) if other != label]
            cost += max(0.0, 0.1 - positive + 0.015 * math.log(sum(negatives)))
        costs.append(cost)
    return costs


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_features_and_losses_sample_by_sample(training, words):
    model = example.model("rde", words).double().train(training)
    for part in (model.image_selection, model.text_selection):
        part.mlp[1].running_mean.normal_()
        part.mlp[1].weight.normal_()
    batch = example.batch(model, LABELS, dtype=torch.float64)
    image, image_selected, text, text_selected = by_hand(model, batch)
    _, image_features = model.encode_images(batch.images)
    _, text_features = model.encode_texts(batch.texts)
    for feature, whole, selected in (
        (image_features, image, image_selected),
        (text_features, text, text_selected),
    ):
        expected = torch.cat([whole / whole.norm(dim=1, keepdim=True), selected / selected.norm(dim=1, keepdim=True)], 1)  # fmt: skip
        torch.testing.assert_close(feature, expected, rtol=1e-9, atol=1e-9)
    both = tal(image, text, LABELS), tal(image_selected, text_selected, LABELS)
    assert min(min(costs) for costs in both) > 0
    losses = model.losses(batch)
    assert losses["tal_global"].item() == pytest.approx(sum(both[0]), rel=1e-9)
    assert losses["tal_selected"].item() == pytest.approx(sum(both[1]), rel=1e-9)
    if not training:
        assert model.pair_losses(batch).tolist() == [pytest.approx(costs, rel=1e-9) for costs in both]


@torch.no_grad()
def test_the_cosine_of_two_features_is_the_mean_of_both_cosines(words):
    model = example.model("rde", words).eval()
    batch = example.batch(model, LABELS)
    image, image_selected, text, text_selected = by_hand(model, batch)
    expected = (cosine_similarity(image, text) + cosine_similarity(image_selected, text_selected)) / 2
    found = cosine_similarity(model.encode_images(batch.images)[1], model.encode_texts(batch.texts)[1])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_selected():
    attention = torch.tensor([[9.0, 1.0, 3.0, 2.0, 8.0], [9.0, 1.0, 3.0, 2.0, 8.0], [0.0] * 5])
    candidates = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]]).bool()
    assert select(attention, candidates, 2).tolist() == [[2, 3], [0, 4], [1, 2]]
    assert select(attention, candidates, 6)[:, :5].tolist() == [[2, 3, 1, 2, 3], [0, 4, 2, 3, 1], [1, 2, 1, 2, 1]]  # fmt: skip
    assert select(attention, candidates, 7).shape == (3, 7)  # more than there are columns


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_thirty_percent_of_all_positions(size, words):
    with torch.device("meta"):
        model = example.build("rde", words, size=size, image_size=(384, 128))
    patches = 192 if size == "base" else 48 * 16
    assert model.image_selection.count == int(0.3 * patches)
    assert model.text_selection.count == 22  # of 75 between start and end
    if size == "base":
        assert model.image_selection.linear.weight.shape == (1024, 512)
        assert [tuple(model.image_selection.mlp[number].weight.shape) for number in (0, 3)] == [(512, 512), (1024, 512)]  # fmt: skip


def test_no_such_share(words):
    with pytest.raises(ValueError, match=r"selected_share is 1\.5"):
        example.build("rde", words, selected_share=1.5)


def test_padding_changes_no_feature_and_no_statistic(words):
    """Not in training either, where features depend on the batch."""
    found = []
    for width in (None, 60):
        model = example.model("rde", words).double()
        texts = model.prepare(example.CAPTIONS)
        _, features = model.encode_texts(texts if width is None else texts.widened(width))
        found.append((features, model.text_selection.mlp[1].running_var.clone()))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_caption_without_words_selects_its_end(words):
    model = example.model("rde", words).eval()
    texts = model.prepare([TrainingCaption(""), TrainingCaption("a man")])
    assert texts.mask.sum(1).tolist() == [2, 4]
    tokens, _, _, _ = model.attend_texts(texts)
    _, features = model.encode_texts(texts)
    expected = embedded(model.text_selection, [tokens[0, 1:2]])[0]
    width = model.size.embed_dim
    torch.testing.assert_close(features[0, width:], expected / expected.norm(), rtol=1e-5, atol=1e-6)


def test_a_pair_that_does_not_count_is_absent_and_others_count_by_their_weight(words):
    model = example.model("rde", words).double()
    weighted = [1.0, 0.25, 0.0, 0.5, 1.0, 0.75]
    model.eval()
    each = model.pair_losses(example.batch(model, LABELS, dtype=torch.float64))
    assert (each[:, 2] > 0).all()
    losses = model.losses(example.batch(model, LABELS, dtype=torch.float64, weights=weighted))
    for name, costs in zip(("tal_global", "tal_selected"), each.tolist(), strict=True):
        expected = sum(w * cost for w, cost in zip(weighted, costs, strict=True))
        assert losses[name].item() == pytest.approx(expected, rel=1e-7)


def test_attention_is_looked_at_and_not_learnt(words):
    """What is selected follows from it; no gradient goes through it, so none is kept for it."""
    model = example.model("rde", words)
    batch = example.batch(model, LABELS)
    assert not model.attend_images(batch.images)[2].requires_grad
    assert not model.attend_texts(batch.texts)[2].requires_grad


def test_who_learns_how_fast(words):
    model = example.model("rde", words)
    factors = {name: model.learning_rate_factor(name) for name, _ in model.named_parameters()}
    expected = {
        "visual.class_embedding": 1,
        "visual.transformer.resblocks.0.attn.in_proj_bias": 2,
        "text.ln_final.weight": 1,
        "text_projection.weight": 1,
        "image_selection.linear.weight": 5,
        "image_selection.mlp.1.weight": 5,
        "text_selection.mlp.3.weight": 5,
        "text_selection.mlp.3.bias": 2,
    }
    assert {name: factors[name] for name in expected} == expected


def test_a_file_of_clips_towers_lacks_the_selections_alone(words, tmp_path):
    model = example.model("rde", words)
    towers = {name: value for name, value in model.state_dict().items() if not name.startswith(ADDED)}
    torch.save(towers, tmp_path / "towers.pt")
    other = example.build("rde", words)
    report = other.load_pretrained(tmp_path / "towers.pt")
    assert set(report.missing) == set(model.state_dict()) - set(towers)
    assert "missing: image_selection.linear.weight" in str(report)
    assert all(other.state_dict()[name].equal(value) for name, value in towers.items())
