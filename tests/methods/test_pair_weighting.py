"""What weights of pairs do to the losses of every method that weighs them, and the losses by which pairs are told apart."""

from __future__ import annotations

import math

import method_examples as example
import pytest
import torch
from torch.nn.functional import normalize

from losses.itm import hard_negatives
from models import METHODS
from models.methods.base import Method

LABELS = [0, 0, 1, 2, 1, 3]
OF_IMAGES_ALONE = {"ss_i"}  # no caption is learnt from, so none makes it wrong
WEIGHING = [name for name, kind in METHODS.items() if kind.weighs_pairs]


def losses_of(model, weights):
    return {
        name: loss.item()
        for name, loss in model.losses(
            example.batch(model, LABELS, dtype=torch.float64, weights=weights)
        ).items()
    }


@pytest.mark.parametrize("method", WEIGHING)
def test_every_loss_is_the_sum_of_what_its_pairs_add_times_their_weights(method, words):
    model = example.model(method, words).double()
    plain = losses_of(model, None)
    assert losses_of(model, [1.0] * 6) == pytest.approx(plain, rel=1e-12)
    parts = [losses_of(model, row) for row in torch.eye(6).tolist()]
    weights = [1.0, 0.25, 0.0, 0.5, 1.0, 0.75]
    for name, found in losses_of(model, weights).items():
        if name in OF_IMAGES_ALONE:
            assert found == pytest.approx(plain[name], rel=1e-12)
            continue
        shares = [part[name] for part in parts]
        assert sum(shares) == pytest.approx(plain[name], rel=1e-6), name
        assert found == pytest.approx(
            sum(w * share for w, share in zip(weights, shares, strict=True)), rel=1e-6
        )
    without = losses_of(model, [0.0] * 6)
    assert {loss for name, loss in without.items() if name not in OF_IMAGES_ALONE} == {0.0}


def test_a_match_decision_weighs_what_the_pair_of_its_text_does(words):
    model = example.model("pspd", words)
    weights = [1.0, 0.25, 0.0, 0.5, 1.0, 0.75]
    batch = example.batch(model, LABELS, weights=weights)
    encoded = model.encode(batch)
    pairs = model.matching_pairs(batch, encoded)
    hardest, _ = hard_negatives(encoded.image_features @ encoded.text_features.T, batch.labels, batch.labels)
    assert pairs.weights.tolist() == [*weights, *weights, *(weights[text] for text in hardest.tolist())]


@pytest.mark.parametrize("method", [name for name in WEIGHING if METHODS[name].has_matching])
@torch.no_grad()
def test_pair_losses_of_a_method_with_matching(method, words):
    """By features: the divergence of NDF's targets from its fit, in a plain loop; by matching: -log P(match)."""
    model = example.model(method, words).eval()
    batch = example.batch(model, LABELS)
    by_features, by_matching = model.pair_losses(batch).tolist()
    tokens, image = model.encode_images(batch.images)
    _, text = model.encode_texts(batch.texts)
    cosine = (normalize(image, dim=1) @ normalize(text, dim=1).T).double()
    for i in range(6):
        expected = 0.0
        for logits in (50 * cosine[i], 50 * cosine[:, i]):
            fitted = torch.log_softmax(logits, 0).tolist()
            same = [j for j in range(6) if LABELS[j] == LABELS[i]]
            expected += sum(-math.log(len(same)) - fitted[j] for j in same) / len(same) / 2
        assert by_features[i] == pytest.approx(expected, abs=1e-4)
        no, yes = model.match(batch.texts[i : i + 1].trim(), tokens[i : i + 1])[0].tolist()
        assert by_matching[i] == pytest.approx(math.log(1 + math.exp(no - yes)), rel=1e-4)


def test_a_dual_encoder_has_the_opinion_of_its_features(words):
    model = example.model("pspd", words).eval()
    batch = example.batch(model, LABELS)
    with torch.no_grad():
        assert torch.equal(Method.pair_losses(model, batch), model.pair_losses(batch)[0])
