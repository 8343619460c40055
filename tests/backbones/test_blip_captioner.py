"""The captioner: its loss against a loop, its cached steps against full passes, its sampling against the definition."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from models.backbones.attention import Dense
from models.backbones.blip import captioner
from models.backbones.blip.captioner import BlipCaptioner, likeliest, sample_nucleus
from models.backbones.blip.text import DecoderCache

SHORT = {"min_length": 20, "max_length": 32}
PROMPTS = ["what does a man or woman wear?", "the man is wearing", "", "a woman"]


@pytest.fixture(scope="module")
def model(tokenizer, randomise) -> BlipCaptioner:
    model = BlipCaptioner("tiny", tokenizer=tokenizer).eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def image_tokens(model) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_images(torch.randn(4, 3, 96, 48, generator=torch.Generator().manual_seed(2)))


def test_loss_equals_a_loop_over_predicted_words(model, image_tokens, captions):
    prompts = ["the man is wearing", "a woman", "", "the girl"]
    texts = model.tokenizer(captions, max_length=77)
    lengths = model.prompt_lengths(prompts)
    assert lengths.tolist() == [1 + len(model.tokenizer([prompt]).ids[0]) - 2 for prompt in prompts]
    total, count, vocabulary = 0.0, 0, model.tokenizer.vocab_size
    for row in range(4):
        ids = texts.ids[row][texts.mask[row]].tolist()
        read = [model.tokenizer.dec_id, *ids[1:]]
        for place in range(max(1, int(lengths[row])), len(ids)):
            logits = model.logits(image_tokens[row : row + 1], torch.tensor([read[:place]]))[0, -1]
            log_probabilities = logits.log_softmax(0)
            total -= 0.9 * log_probabilities[ids[place]] + 0.1 * log_probabilities.sum() / vocabulary
            count += 1
    loss = model.loss(image_tokens, texts, lengths, label_smoothing=0.1)
    assert math.isclose(loss.item(), (total / count).item(), rel_tol=1e-5)


def test_loss_of_all_columns_equals_that_of_the_predicted_ones(model, image_tokens, captions, monkeypatch):
    """A GPU can't be asked for the number of predicted words without waiting: there the others are left out of the mean."""
    texts = model.tokenizer(captions, max_length=77)
    lengths = model.prompt_lengths(["the man is wearing", "a woman", "", "the girl"])

    def loss_and_gradients():
        model.zero_grad()
        loss = model.loss(image_tokens, texts, lengths)
        loss.backward()
        return loss.detach(), [one.grad.clone() for one in model.text_decoder.parameters()]

    expected, gradients = loss_and_gradients()
    monkeypatch.setattr(captioner, "layout_of", lambda mask: Dense())
    found, others = loss_and_gradients()
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_loss_ignores_prompts_and_padding(model, image_tokens, captions):
    texts = model.tokenizer(captions, max_length=77)
    lengths = model.prompt_lengths(["the man", "a woman", "he has", "the girl"])
    reference = model.loss(image_tokens, texts, lengths)
    texts.ids[~texts.mask] = 7
    assert torch.allclose(model.loss(image_tokens, texts, lengths), reference, atol=1e-6)
    assert not torch.allclose(model.loss(image_tokens, texts, lengths - 2), reference)
    with pytest.raises(ValueError, match="as many"):
        model.loss(image_tokens[:2], texts, lengths)


def test_loss_falls_when_trained(tokenizer, captions):
    torch.manual_seed(0)
    model = BlipCaptioner("tiny", tokenizer=tokenizer, dropout=0.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, texts, lengths = torch.randn(4, 3, 96, 48), tokenizer(captions), model.prompt_lengths(["a"] * 4)
    losses = []
    for _ in range(12):
        loss = model.loss(model.encode_images(images), texts, lengths)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("prompts", [PROMPTS, ["the man"] * 4])
def test_cached_steps_equal_the_full_pass(model, image_tokens, prompts):
    """Prompts of unequal lengths side by side; after every step the logits are those of each text on its own."""
    starts = [model.tokenizer.prompt_ids(prompt) for prompt in prompts]
    width, room = max(map(len, starts)), 20
    generator = torch.Generator().manual_seed(5)
    later = torch.randint(7, model.tokenizer.vocab_size, (4, room), generator=generator)
    bert = model.text_decoder.bert
    cache = DecoderCache(bert, image_tokens, room)
    ids = torch.tensor([start + [0] * (width - len(start)) for start in starts])
    lengths = torch.tensor([len(start) for start in starts])
    with torch.no_grad():
        hidden = bert.extend(ids, cache)[torch.arange(4), lengths - 1]
        for step in range(room - width):
            logits = model.text_decoder.word_logits(hidden)
            for row, start in enumerate(starts):
                whole = torch.tensor([start + later[row, :step].tolist()])
                full = model.logits(image_tokens[row : row + 1], whole)[0, -1]
                assert torch.allclose(logits[row], full, atol=1e-4, rtol=1e-4)
            hidden = bert.extend(later[:, step : step + 1], cache, lengths + step)[:, 0]


def test_text_does_not_depend_on_the_rest_of_the_batch(model, image_tokens):
    together = model.generate(image_tokens, PROMPTS, seeds=[11, 12, 13, 14], **SHORT)
    for row in range(4):
        alone = model.generate(image_tokens[row : row + 1], [PROMPTS[row]], seeds=[11 + row], **SHORT)
        assert alone == [together[row]]
    backwards = model.generate(image_tokens.flip(0), PROMPTS[::-1], seeds=[14, 13, 12, 11], **SHORT)
    assert backwards[::-1] == together
    assert model.generate(image_tokens, PROMPTS, seeds=[1, 2, 3, 4], **SHORT) != together
    for text, prompt in zip(together, PROMPTS, strict=True):
        assert text.startswith(prompt)


def test_greedy_needs_no_seed_and_sampling_without_mass_is_greedy(model, image_tokens):
    greedy = model.generate(image_tokens, PROMPTS, seeds=[0] * 4, greedy=True, **SHORT)
    assert greedy == model.generate(image_tokens, PROMPTS, seeds=[5] * 4, greedy=True, **SHORT)
    assert greedy == model.generate(image_tokens, PROMPTS, seeds=[5] * 4, top_p=1e-9, **SHORT)


def test_lengths_count_the_prompt(model, image_tokens, monkeypatch):
    """With a head that always prefers to stop, texts end at min_length; with one that never does, at max_length."""
    bias = model.text_decoder.cls.predictions.decoder.bias
    end = model.tokenizer.sep_id
    for shift, expected in ((1e4, 20), (-1e4, 26)):
        original = bias[end].item()
        with torch.no_grad():
            bias[end] = shift
        rows = _token_counts(model, image_tokens, monkeypatch, min_length=20, max_length=26)
        with torch.no_grad():
            bias[end] = original
        assert rows == [expected] * 4


def _token_counts(model, image_tokens, monkeypatch, **rules) -> list[int]:
    from models.backbones.blip import captioner

    kept = []
    monkeypatch.setattr(captioner, "_continued", lambda tokenizer, prompt, ids: kept.append(ids) or "")
    model.generate(image_tokens, PROMPTS, seeds=[1, 2, 3, 4], **rules)
    monkeypatch.undo()
    return [
        len(model.tokenizer.prompt_ids(prompt)) + len(ids) for prompt, ids in zip(PROMPTS, kept, strict=True)
    ]


def test_repetition_penalty_and_no_special_pieces(model, image_tokens):
    plain = model.generate(image_tokens, PROMPTS, seeds=[1] * 4, greedy=True, repetition_penalty=1.0)
    firm = model.generate(image_tokens, PROMPTS, seeds=[1] * 4, greedy=True, repetition_penalty=50.0)

    def most_repeated(texts: list[str]) -> int:
        return max(max(Counter(model.tokenizer([text]).ids[0].tolist()).values()) for text in texts)

    assert most_repeated(firm) < most_repeated(plain)
    for text in plain + firm:
        assert "[" not in text


def test_training_mode_survives_generation(model, image_tokens):
    reference = model.generate(image_tokens, PROMPTS, seeds=[1] * 4, **SHORT)
    model.train()
    assert model.generate(image_tokens, PROMPTS, seeds=[1] * 4, **SHORT) == reference
    assert model.training
    model.eval()


def test_bad_requests(model, image_tokens):
    assert model.generate(image_tokens[:0], [], seeds=[]) == []
    with pytest.raises(ValueError, match="as many"):
        model.generate(image_tokens, PROMPTS[:2], seeds=[1, 2])
    with pytest.raises(ValueError, match="leaves no room"):
        model.generate(image_tokens, PROMPTS, seeds=[1] * 4, max_length=4)


def nucleus_by_definition(probabilities: list[float], top_p: float) -> set[int]:
    """The smallest set of likeliest entries, not empty, that sums to top_p or more."""
    chosen, total = set(), 0.0
    for entry in sorted(range(len(probabilities)), key=lambda entry: -probabilities[entry]):
        if chosen and total >= top_p:
            break
        chosen.add(entry)
        total += probabilities[entry]
    return chosen


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 4.0, 40.0])
def test_nucleus_equals_the_definition(sharpness):
    generator = torch.Generator().manual_seed(0)
    for top_p in (0.0, 0.05, 0.5, 0.9, 1.0):
        logits = sharpness * torch.randn(3, 40, generator=generator) + 1e-4 * torch.arange(40)
        probabilities = logits.softmax(-1)
        for draw in (0.0, 0.17, 0.5, 0.93, 1 - 1e-12):
            drawn = sample_nucleus(probabilities, torch.full((3,), draw, dtype=torch.float64), top_p)
            for row in range(3):
                values = probabilities[row].tolist()
                nucleus = nucleus_by_definition(values, top_p)
                mass, cumulative, expected = sum(values[i] for i in nucleus), 0.0, None
                for entry in sorted(nucleus):
                    cumulative += values[entry]
                    if cumulative > draw * mass:
                        expected = entry
                        break
                assert drawn[row].item() == expected


def test_nucleus_draws_in_proportion():
    probabilities = torch.tensor([[0.5, 0.0, 0.3, 0.15, 0.05]])
    draws = torch.rand(20000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = sample_nucleus(probabilities.expand(20000, -1), draws, 0.9)
    shares = torch.bincount(drawn, minlength=5) / 20000
    assert torch.allclose(shares, torch.tensor([0.5, 0, 0.3, 0.15, 0]) / 0.95, atol=0.02)


@pytest.mark.parametrize("top_k", [1, 3, 39, 40, 100])
def test_only_the_k_likeliest_are_kept(top_k):
    """Row by row in plain numbers; what ties with the k-th stays, as in transformers."""
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(1))
    logits[2, :7] = 9.0
    kept = likeliest(logits, top_k)
    for row, values in enumerate(logits.tolist()):
        last = sorted(values, reverse=True)[min(top_k, 40) - 1]
        expected = [value if value >= last else -float("inf") for value in values]
        assert kept[row].tolist() == pytest.approx(expected)
    assert likeliest(logits, 0) is logits


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.9), (2, 0.9), (5, 0.6), (1, 1.0)])
def test_sampling_equals_transformers_warpers(top_k, top_p):
    """The nucleus is taken of what top-k has left, in the order of `generate`."""
    logits = 2.0 * torch.randn(3, 40, generator=torch.Generator().manual_seed(5))
    warped = TopKLogitsWarper(top_k)(None, logits.clone()) if top_k else logits
    probabilities = TopPLogitsWarper(top_p)(None, warped).softmax(-1).double()
    draws = torch.tensor([0.03, 0.4, 0.99], dtype=torch.float64)
    drawn = sample_nucleus(likeliest(logits, top_k).softmax(-1), draws, top_p)
    for row, draw in enumerate(draws.tolist()):
        cumulative, expected = 0.0, None
        for entry, share in enumerate(probabilities[row].tolist()):
            cumulative += share
            if cumulative > draw:
                expected = entry
                break
        assert drawn[row].item() == expected


def test_captions_follow_top_k(model, image_tokens):
    """With one word to choose from, sampling is greedy."""
    greedy = model.generate(image_tokens, PROMPTS, seeds=[0] * 4, greedy=True, **SHORT)
    assert model.generate(image_tokens, PROMPTS, seeds=[7, 8, 9, 10], top_p=1.0, top_k=1, **SHORT) == greedy
    free = model.generate(image_tokens, PROMPTS, seeds=[7, 8, 9, 10], top_p=1.0, **SHORT)
    assert free != greedy
    assert model.generate(image_tokens, PROMPTS, seeds=[7, 8, 9, 10], top_p=1.0, top_k=0, **SHORT) == free
