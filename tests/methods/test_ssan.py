"""SSAN's losses put together from plain loops, its score, and its full size."""

from __future__ import annotations

import math
import resource
import time

import method_examples as example
import pytest
import torch
from torch.nn.functional import normalize

from losses.compound_ranking import COMPANION, OWN_CAPTION, companion_margins, negative_draws
from models import Batch, build_model
from models.backbones.resnet_lstm.words import Words

LABELS = [0, 0, 1, 2, 1, 3]
WEIGHTS = {"global": 1.0, "local": 0.5, "relation": 0.5}


@pytest.fixture(scope="module")
def problem(words):
    model = example.model("ssan", words).double()
    return model, example.batch(model, LABELS, dtype=torch.float64)


def levels(parts):
    """The vectors (B, ...) of the three levels, flat and of length 1."""
    return [normalize(values.flatten(1), dim=1) for values in (parts.global_, parts.local, parts.relation)]


def term_by_loop(matrix, labels, margins, draws):
    """Both directions of one ranking term, anchor by anchor."""
    total = 0.0
    for direction, scores in enumerate((matrix.tolist(), matrix.T.tolist())):
        for a, own in enumerate(labels):
            found = [
                n
                for n, other in enumerate(labels)
                if other != own and scores[a][a] - margins[a] < scores[a][n] < scores[a][a]
            ]
            if found:
                n = max(found, key=lambda n, a=a: draws[direction][a][n])
                total += max(0.0, margins[a] - scores[a][a] + scores[a][n])
    return total


@pytest.mark.parametrize("epoch", [0, 5])
def test_ranking_term_by_term(problem, epoch):
    model, batch = problem
    batch.epoch = epoch
    model.train()
    with torch.no_grad():
        losses = model.losses(batch)
        image, text, other = (
            levels(parts)
            for parts in (
                model.image_parts(batch.images),
                model.text_parts(batch.texts),
                model.text_parts(batch.companions),
            )
        )
    for number, (level, weight) in enumerate(WEIGHTS.items()):
        own, companion = image[number] @ text[number].T, image[number] @ other[number].T
        margins = companion_margins(own, companion, batch.companion_found, epoch).tolist()
        draws = [negative_draws(batch.seeds, number, term).tolist() for term in (OWN_CAPTION, COMPANION)]
        expected = term_by_loop(own, LABELS, [0.2] * 6, draws[0])
        expected += 0.1 * term_by_loop(companion, LABELS, margins, draws[1])
        assert losses[f"ranking_{level}"].item() == pytest.approx(weight * expected, rel=1e-9, abs=1e-12)


def test_identities_part_by_part(problem):
    model, batch = problem
    model.train()
    with torch.no_grad():
        for classifier in model.classifiers:  # a bias that is seen, besides
            torch.nn.init.normal_(classifier.bias, generator=torch.Generator().manual_seed(2))
        losses = model.losses(batch)
        both = [model.image_parts(batch.images), model.text_parts(batch.texts)]
    for number, (level, weight) in enumerate(WEIGHTS.items()):
        classifier, total = model.classifiers[number], 0.0
        for parts in both:
            features = (parts.global_[:, None], parts.local, parts.relation)[number]
            for k in range(features.shape[1]):
                for b, label in enumerate(LABELS):
                    logits = (classifier.weight[k] @ features[b, k] + classifier.bias[k]).tolist()
                    cost = math.log(sum(map(math.exp, logits))) - logits[label]
                    total += cost / features.shape[1] / len(LABELS)
        assert losses[f"identity_{level}"].item() == pytest.approx(weight * total, rel=1e-9)


def test_the_score_is_the_sum_of_three_cosines_and_gives_the_same_ten(problem):
    model, batch = problem
    model.eval()
    images = torch.randn(
        24, 3, *model.image_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    with torch.no_grad():
        seen, said = model.encode_images(images)[1], model.encode_texts(batch.texts)[1]
        cosines = normalize(said, dim=1) @ normalize(seen, dim=1).T
        three = zip(levels(model.text_parts(batch.texts)), levels(model.image_parts(images)), strict=True)
        total = sum(text @ image.T for text, image in three)
    torch.testing.assert_close(3 * cosines, total, rtol=0, atol=1e-12)
    assert cosines.topk(10, dim=1).indices.equal(total.topk(10, dim=1).indices)


def test_it_needs_companions_and_classes(words):
    model = example.build("ssan", words)
    batch = example.batch(model, LABELS)
    with pytest.raises(ValueError, match="set_identities"):
        model.losses(batch)
    model.set_identities(4)
    batch.companions = None
    with pytest.raises(ValueError, match="companions"):
        model.losses(batch)


def test_a_warm_up_ranks_and_classifies_nobody(words):
    model = example.build("ssan", words, dropout=0.0)
    losses = model.warm_up_losses(example.batch(model, [0, 1, 2, 3, 4, 5]), matching=False)
    assert set(losses) == {f"ranking_{level}" for level in WEIGHTS}


def test_the_image_encoder_learns_at_its_own_rate(words):
    model = example.build("ssan", words)
    rates = {name: model.learning_rate_factor(name) for name, _ in model.named_parameters()}
    assert {rate for name, rate in rates.items() if name.startswith("image_encoder.")} == {0.1}
    assert {rate for name, rate in rates.items() if not name.startswith("image_encoder.")} == {1.0}
    assert (
        example.build("ssan", words, image_lr_factor=1.0).learning_rate_factor("image_encoder.conv1.weight")
        == 1.0
    )


@pytest.mark.slow
def test_a_step_at_full_size(capsys):
    """384 x 128 pixels, width 2048, a vocabulary and as many classes as CUHK-PEDES has."""
    torch.manual_seed(0)
    words = Words([f"w{number}" for number in range(5000)])
    model = build_model("ssan", tokenizer=words).train()
    model.set_identities(11003)
    assert sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith("classifiers.")
    ) == pytest.approx(97.9e6, rel=1e-2)
    texts = words([" ".join(f"w{(7 * b + i) % 5000}" for i in range(25)) for b in range(8)])
    batch = Batch(
        torch.randn(8, 3, 384, 128),
        texts,
        torch.arange(8) // 2,
        torch.arange(8),
        companions=texts[[1, 0, 3, 2, 5, 4, 7, 6]],
        companion_found=torch.ones(8, dtype=torch.bool),
    )
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-3, 0.0), fused=True)
    history, seconds = [], []
    for _ in range(3):
        started = time.perf_counter()
        losses = model.losses(batch)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        history.append(sum(losses.values()).item())
    assert all(math.isfinite(total) for total in history)
    assert history[-1] < history[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with capsys.disabled():
        print(f"SSAN base, 8 pairs: {min(seconds):.2f} s a step, {peak:.2f} GiB at most")
