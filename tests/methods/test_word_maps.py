"""Which regions words go with: against plain loops over attention that torch's own way is made to give, and what must hold."""

from __future__ import annotations

import method_examples as example
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import normalize

from models import KINDS
from models.backbones.linear import narrow

SENTENCES = ["a man in a red shirt, and black trousers", "a woman with white shoes"]


def build(method: str, words, **options):
    return example.model(method, words, **options).eval()


def images_for(model, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *model.image_size, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def recorded(monkeypatch) -> list[Tensor]:
    """The attention of every layer that computes from now on, in order: torch's fused operator is replaced by its formula."""
    kept: list[Tensor] = []

    def plain(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if attn_mask is not None:
            hidden = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask == -torch.inf
            scores = scores.masked_fill(hidden, -torch.inf)
        kept.append(scores.softmax(-1))
        return kept[-1] @ value

    monkeypatch.setattr(F, "scaled_dot_product_attention", plain)
    return kept


def positive_part(attention: Tensor, gradient: Tensor, sample: int) -> Tensor:
    """mean over heads of max(0, A ⊙ ∂y/∂A), entry by entry."""
    _, heads, rows, columns = attention.shape
    found = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            for head in range(heads):
                at = (sample, head, row, column)
                found[row, column] += max(0.0, float(attention[at].detach() * gradient[at])) / heads
    return found


def made_of(layers: list[Tensor]) -> Tensor:
    """Chefer et al.'s R of self-attention layers, whose rows without the tokens themselves are brought to the sum 1."""
    size = len(layers[0])
    relevancy = torch.eye(size)
    for layer in layers:
        relevancy = relevancy + layer @ relevancy
    others = relevancy - torch.eye(size)
    return torch.eye(size) + others / others.sum(1, keepdim=True)


def test_matching_is_explained_as_a_plain_loop_does(words, recorded):
    """The logit is that of `match` itself, by its own fast ways: packed texts, a last layer of one row."""
    model = build("pspd", words)
    images = images_for(model)
    tokens, _ = model.encode_images(images)
    model.match(SENTENCES, tokens)[:, 1].sum().backward(inputs=[a.retain_grad() or a for a in recorded])
    size = tokens.shape[1]
    in_image = [a for a in recorded if a.shape[2] == size]
    across = [a for a in recorded if a.shape[2] != size and a.shape[3] == size]
    assert (len(in_image), len(across)) == (model.size.vision_depth, model.size.text_layers)
    assert across[-1].shape[2] == 1

    found = model.word_maps(images, SENTENCES)
    for sample, (sentence, maps) in enumerate(zip(SENTENCES, found, strict=True)):
        spelled = model.tokenizer.words(sentence)
        taken = torch.zeros(len(spelled), size)
        for attention in across:
            layer = positive_part(attention, attention.grad, sample)[: len(spelled)]
            taken[: len(layer)] += layer
        relevance = taken @ made_of([positive_part(a, a.grad, sample) for a in in_image])
        patches = relevance[:, 1:].reshape(len(spelled), *model.visual_encoder.grid)
        torch.testing.assert_close(maps.overall, patches.sum(0) / patches.sum())
        by_word: dict[int, Tensor] = {}
        numbers = model.tokenizer([sentence]).words[0].tolist()
        for number, word, rows in zip(numbers, spelled, patches, strict=True):
            if word is not None:
                by_word[number] = by_word.get(number, 0) + rows
        expected = torch.stack([rows / rows.sum() for rows in by_word.values()])
        torch.testing.assert_close(maps.maps, expected, atol=1e-5, rtol=1e-3)
        assert maps.explains == "match"
        assert maps.score == pytest.approx(model.match(SENTENCES, tokens)[sample, 1].item(), abs=1e-5)


def left_out(sentence: str) -> list[str]:
    parts = sentence.split()
    return [" ".join(parts[:place] + parts[place + 1 :]) for place in range(len(parts))]


@pytest.mark.parametrize("method", ["irra", "syntbpr", "clip"])
def test_a_cosine_is_explained_as_a_plain_loop_does(words, recorded, method):
    rotary = method == "syntbpr"
    size = KINDS["irra"].sizes["tiny"]
    size = size.__class__(**{**vars(size), "rotary": rotary})
    model = example_of(method, words, size=size)
    images, sentence = images_for(model), SENTENCES[1]
    found = model.word_maps(images, [sentence] * 2)
    with torch.no_grad():
        texts = normalize(model.encode_texts([sentence, *left_out(sentence)])[1], dim=1)
    recorded.clear()
    features = normalize(model.encode_images(images)[1], dim=1)
    attentions = list(recorded)
    assert len(attentions) == model.size.vision_layers
    for number, direction in enumerate([texts[0], *(texts[0] - texts[1:])]):
        gradients = torch.autograd.grad((features @ direction).sum(), attentions, retain_graph=True)
        for sample, maps in enumerate(found):
            taken = sum(
                positive_part(a, g, sample).sum(0) for a, g in zip(attentions, gradients, strict=True)
            )
            expected = (taken[1:] / taken[1:].sum()).reshape(model.visual.grid)
            got = maps.overall if number == 0 else maps.maps[number - 1]
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
            value = maps.score if number == 0 else float(maps.effects[number - 1])
            assert value == pytest.approx(float(features[sample].detach() @ direction), abs=1e-5)
    assert {maps.explains for maps in found} == {"cosine"}


def example_of(method: str, words, **options):
    """A method's smallest model, or a backbone's without any training."""
    if method in example.all_methods():
        return build(method, words, **options)
    kind = KINDS[method]
    torch.manual_seed(0)
    given = {"size": "tiny", "image_size": (32, 16), "tokenizer": words[kind.tokenizer_class], **options}
    return kind(**given).eval()


def test_a_feature_map_is_explained_as_a_plain_loop_does(words):
    model = build("ssan", words)
    images = images_for(model)
    sentence = "a man and a man"  # of which SSAN's vocabulary here knows every word
    found = model.word_maps(images, [sentence] * 2)
    kept: list[Tensor] = []
    hook = model.image_encoder.layer4.register_forward_hook(lambda *parts: kept.append(parts[2]))
    features = normalize(model.encode_images(images)[1], dim=1)
    hook.remove()
    texts = normalize(model.encode_texts([sentence, *left_out(sentence)])[1], dim=1).detach()
    for number, direction in enumerate([texts[0], *(texts[0] - texts[1:])]):
        [gradient] = torch.autograd.grad((features @ direction).sum(), kept, retain_graph=True)
        _, channels, rows, columns = gradient.shape
        for sample, maps in enumerate(found):
            expected = torch.zeros(rows, columns)
            for row in range(rows):
                for column in range(columns):
                    parts = [
                        float(kept[0][sample, c, row, column].detach() * gradient[sample, c, row, column])
                        for c in range(channels)
                    ]
                    expected[row, column] = max(0.0, sum(parts))
            got = maps.overall if number == 0 else maps.maps[number - 1]
            torch.testing.assert_close(got, expected / expected.sum(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", [*example.all_methods(), "blip", "clip"])
def test_what_holds_of_every_models_maps(words, method):
    model = example_of(method, words)
    images = images_for(model, 3)
    sentences = [*SENTENCES, "a man"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        found = model.word_maps(images, sentences)
    for sentence, one in zip(sentences, found, strict=True):
        read = [word for word in model.tokenizer.words(sentence) if word is not None]
        assert set(one.words) <= set(sentence.replace(",", "").split())
        assert len(one.words) == len(one.maps) == len(one.effects) <= len(read)
        assert one.maps.dtype == torch.float32
        assert not one.maps.requires_grad
        assert bool((one.maps >= 0).all())
        assert bool((one.overall >= 0).all())
        sums = one.maps.sum((1, 2))
        assert bool(((sums - 1).abs() < 1e-5).logical_or(sums == 0).all())
        assert float(one.overall.sum()) == pytest.approx(1, abs=1e-5)

    order = [2, 0, 1]
    again = model.word_maps(images[order], [sentences[place] for place in order])
    alone = [model.word_maps(images[[place]], [sentences[place]])[0] for place in order]
    for place, *others in zip(order, again, alone, strict=True):
        for other in others:
            assert other.words == found[place].words
            torch.testing.assert_close(other.maps, found[place].maps, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(other.effects, found[place].effects, atol=1e-5, rtol=1e-4)
            assert other.score == pytest.approx(found[place].score, abs=1e-5)

    parameters = list(model.parameters())
    assert all(parameter.grad is None for parameter in parameters)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", ["pspd", "irra", "ssan"])
def test_a_sentence_of_which_no_word_is_known(words, method):
    model = build(method, words)
    [found] = model.word_maps(images_for(model, 1), ["漢字 ..."])
    assert found.words == ()
    assert found.maps.shape == (0, *found.overall.shape)
    assert found.effects.shape == (0,)


@pytest.mark.parametrize("method", ["pspd", "irra", "syntbpr"])
def test_in_half_precision_maps_stay_close(words, method):
    """As the search sets a model up: weights of linear layers are bf16, and autocast is on."""
    model = build(method, words)
    images = images_for(model)
    exact = model.word_maps(images, SENTENCES)
    narrow(model)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rounded = model.word_maps(images, SENTENCES)
    for one, other in zip(exact, rounded, strict=True):
        assert other.maps.dtype == torch.float32
        assert float((one.overall - other.overall).abs().sum()) < 0.2
        assert other.score == pytest.approx(one.score, abs=0.05)


def test_pieces_of_a_word_are_one_word(words):
    for method in ("pspd", "irra"):
        model = build(method, words)
        [found] = model.word_maps(images_for(model, 1), ["shirts-and trousersblack man"])
        pieces = model.tokenizer.words("shirts-and trousersblack man")
        assert len(found.words) < len([piece for piece in pieces if piece is not None])
        assert list(dict.fromkeys(piece for piece in pieces if piece)) == list(found.words)
