"""Switches of methods between what the released code does and what is done here, each against a plain loop."""

from __future__ import annotations

import math
from contextlib import nullcontext

import method_examples as example
import pytest
import torch
from torch import nn

from engine.config import Config
from losses.masked_language import hidden_units
from models import TrainingCaption, check_options
from models.backbones.blip.tokenizer import BlipTokenizer
from models.methods.fusion import FusionEncoder

LABELS = [0, 0, 1, 2, 1, 3]


@pytest.mark.parametrize("normalise", [True, False])
def test_tsn_clusters_the_fused_feature_with_or_without_its_length(words, normalise):
    model = example.model("tsn", words, normalise_fused=normalise).eval()
    image, text, mask = torch.randn(3, 9, 128), torch.randn(3, 7, 128), torch.ones(3, 7).bool()
    found = model.cluster_features(image, None, text, None, mask)
    for row in range(3):
        fused = model.fusion(image[row : row + 1], text[row : row + 1], mask[row : row + 1])[0].tolist()
        length = math.sqrt(sum(value * value for value in fused)) if normalise else 1.0
        assert found[row].tolist() == pytest.approx([value / length for value in fused], rel=1e-4, abs=1e-6)
    assert found.shape[1] == model.size.embed_dim


def test_tsns_fusion_encoder_starts_normal_or_as_torch_does(words):
    torch.manual_seed(0)
    width = 256
    matrices = {
        start: [m for m in FusionEncoder(width, 128, 64, start).modules() if isinstance(m, nn.Linear)]
        for start in ("torch", "normal")
    }
    for layer in matrices["normal"]:
        values = layer.weight.detach().flatten()
        spread = math.sqrt(sum(v * v for v in values.tolist()) / len(values))
        assert spread == pytest.approx(width**-0.5, rel=0.02)
        beyond = (values.abs() > 2 * width**-0.5).double().mean().item()
        assert beyond == pytest.approx(0.0455, abs=0.01), (
            "a normal distribution has tails, a uniform one none"
        )
        assert not layer.bias.any()
    for layer in matrices["torch"]:
        assert layer.weight.abs().max() <= layer.in_features**-0.5
    assert {
        name: example.model("tsn", words, **options).fusion.projection.bias.any().item()
        for name, options in {"default": {}, "normal": {"fusion_start": "normal"}}.items()
    } == {"default": True, "normal": False}


def states_with_padding(model, caption: str, width: int, image_tokens: torch.Tensor) -> torch.Tensor:
    """(width, D) hidden states of one pair with every padding position computed: an unpacked pass, a mask over the keys."""
    ids = model.tokenizer([caption]).ids
    length = ids.shape[1]
    padded = torch.nn.functional.pad(ids, (0, width - length))
    padded[0, 0] = model.tokenizer.enc_id
    stack = model.text_encoder
    words, places = stack.embeddings.word_embeddings.weight, stack.embeddings.position_embeddings.weight
    hidden = stack.embeddings.LayerNorm(words[padded] + places[:width])
    seen = torch.arange(width) < length
    for layer in stack.encoder.layer:
        hidden = attended(layer.attention, hidden, hidden, seen)
        hidden = attended(layer.crossattention, hidden, image_tokens, None)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden[0]


def attended(attention, hidden, source, seen):
    """Attention by softmax written out, head by head."""
    query, key, value = attention.self.query(hidden), attention.self.key(source), attention.self.value(source)
    width = query.shape[-1] // attention.heads
    heads = []
    for head in range(attention.heads):
        columns = slice(head * width, (head + 1) * width)
        scores = query[..., columns] @ key[..., columns].transpose(1, 2) / math.sqrt(width)
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        heads.append(scores.softmax(-1) @ value[..., columns])
    return attention.output(torch.cat(heads, -1), hidden)


@torch.no_grad()
def test_cadas_halves_take_in_padding_or_leave_it_out(words):
    """Positions 1-36 and 37-72 of the text padded to 73 tokens, one pair at a time, over the mined pairs."""
    from test_method_steps import cross_entropy, pairs_by_loop

    plain, released = (example.model("cada", words, half_padding=wanted) for wanted in (False, True))
    batch = example.batch(released, LABELS)
    tokens, _ = released.encode_images(batch.images)
    costs, itm = [], []
    for text, image, match in pairs_by_loop(released, batch):
        states = states_with_padding(released, example.CAPTIONS[text].text, 73, tokens[image : image + 1])
        itm.append(cross_entropy(released.itm_head(states[0]), match))
        for start, stop in ((1, 37), (37, 73)):
            mean = sum(states[i] for i in range(start, stop)) / (stop - start)
            costs.append(cross_entropy(released.itm_local_head(mean), match))
    losses = released.losses(batch)
    assert losses["atp"].item() == pytest.approx(sum(costs) / len(costs), rel=1e-4)
    assert losses["itm"].item() == pytest.approx(sum(itm) / len(itm), rel=1e-4), "padding reaches no token"
    without = plain.losses(example.batch(plain, LABELS))
    assert without["itm"].item() == pytest.approx(losses["itm"].item(), rel=1e-4)
    assert abs(without["atp"].item() - losses["atp"].item()) > 1e-4


@torch.no_grad()
def test_cadas_decoder_sees_both_sides_of_a_gap_or_what_is_before_it(words):
    """A hidden word is guessed from the caption cut off behind it: what comes after it says nothing."""
    model = example.model("cada", words, causal_decoder=True)
    batch = example.batch(model, LABELS)
    tokens, _ = model.encode_images(batch.images)
    costs = []
    for b in range(6):
        ids = batch.texts.ids[b][batch.texts.mask[b]]
        units = batch.texts.extras["units"][b : b + 1, : len(ids)]
        hidden = hidden_units(units, batch.seeds[b : b + 1], 0.4)[0]
        masked = torch.where(hidden, model.tokenizer.mask_id, ids)
        masked[0] = model.tokenizer.dec_id
        for i in range(len(ids)):
            if hidden[i]:
                states = model.text_decoder.bert(masked[None, : i + 1], None, tokens[b : b + 1], causal=True)
                logs = torch.log_softmax(model.text_decoder.word_logits(states)[0, i], 0)
                costs.append(-logs[ids[i]].item())
    assert len(costs) > 4
    found = model.losses(batch)["ara"].item()
    assert found == pytest.approx(0.1 * sum(costs) / len(costs), rel=1e-4)
    both = example.model("cada", words)
    assert abs(both.losses(example.batch(both, LABELS))["ara"].item() - found) > 1e-4


@pytest.mark.parametrize("method", ["pspd", "tsn", "cada"])
def test_unknown_words_are_left_out_or_read_as_unknown(words, method):
    """BERT's own rule, written out: a word of which no piece is known is one [UNK]."""
    sentence = "a man in a zzyqx shirt"
    model = example.model(method, words, keep_unknown=True)
    tokenizer = model.tokenizer
    known = {word: tokenizer([word]).ids[0, 1:-1].tolist() for word in sentence.split()}
    assert known.pop("zzyqx") == [tokenizer.unknown_id]
    expected = [tokenizer.cls_id]
    for word in sentence.split():
        expected += known.get(word, [tokenizer.unknown_id])
    assert model.prepare([TrainingCaption(sentence)]).ids.tolist() == [[*expected, tokenizer.sep_id]]
    assert tokenizer.words(sentence)[len(expected) - 2] == "zzyqx" or "zzyqx" in tokenizer.words(sentence)
    assert tokenizer.portable().rules["left_out_ids"] == []
    assert tokenizer.vocabulary == words[BlipTokenizer].vocabulary, "a checkpoint's vocabulary stays the same"
    plain = example.model(method, words)
    left = plain.prepare([TrainingCaption(sentence)]).ids.tolist()
    assert left == plain.prepare([TrainingCaption("a man in a shirt")]).ids.tolist()
    assert plain.tokenizer.portable().rules["left_out_ids"] == [tokenizer.unknown_id]


@torch.no_grad()
def test_matching_may_begin_with_cls(words):
    """Inside `matching_from`, what the stack is given begins with the token that texts alone begin with."""
    model = example.model("pspd", words).eval()
    batch = example.batch(model, LABELS)
    tokens, _ = model.encode_images(batch.images)
    usual = model.match(batch.texts, tokens)
    with model.matching_from("cls"):
        found = model.match(batch.texts, tokens)
    for b in range(6):
        ids = batch.texts.ids[b : b + 1, : int(batch.texts.mask[b].sum())].clone()
        for first, logits in ((model.tokenizer.cls_id, found), (model.tokenizer.enc_id, usual)):
            ids[0, 0] = first
            expected = model.itm_head(model.text_encoder(ids, None, tokens[b : b + 1])[:, 0])
            torch.testing.assert_close(logits[b : b + 1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.match(batch.texts, tokens), usual)
    assert not torch.allclose(found, usual, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("counts", [False, True])
def test_ssans_maxima_are_over_padding_or_words_alone(words, counts):
    """Over 100 positions, the states of which are zero behind a caption's end."""
    from models.backbones.resnet_lstm.words import MOST_WORDS, Words

    tokenizer = words[Words]
    model = example.model("ssan", words, padding_counts=counts).eval()
    assert model.text_encoder.padding_counts == counts
    known = tokenizer.vocabulary[0]
    captions = ["a man in a red shirt", f"{known} " * MOST_WORDS]
    encoder = model.text_encoder
    batch = tokenizer(captions)
    whole, parts = encoder(batch.ids, batch.mask)
    for row in range(2):
        length = int(batch.mask[row].sum())
        ids, mask = batch.ids[row : row + 1, :length], batch.mask[row : row + 1, :length]
        own = encoder.lstm(encoder.global_words(ids), mask)[0]
        local = encoder.lstm(encoder.local_words(ids), mask)[0]
        weights = encoder.word_attention(local).sigmoid()
        missing = (MOST_WORDS - length) if counts else 0
        for d in range(0, own.shape[1], 7):
            values = own[:, d].tolist() + [0.0] * missing
            assert whole[row, d].item() == pytest.approx(max(values), abs=1e-6)
            for k in (0, 5):
                values = (weights[:, k] * local[:, d]).tolist() + [0.0] * missing
                assert parts[row, k, d].item() == pytest.approx(max(values), abs=1e-6)
    assert bool((whole[0] < 0).any()) is not counts
    assert (whole[1] < 0).any(), "a caption of a hundred words has no padding"


@pytest.mark.parametrize("method", example.all_methods())
@pytest.mark.parametrize("vectors", [False, True])
def test_vectors_are_decayed_or_not(words, method, vectors):
    model = example.model(method, words)
    groups = model.parameter_groups(1e-4, 0.05, decay_vectors=vectors)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 or vectors else 0.0), name


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("tsn", "normalise_fused", "no"),
        ("tsn", "fusion_start", "uniform"),
        ("cada", "half_padding", 1),
        ("cada", "causal_decoder", None),
        ("pspd", "keep_unknown", "yes"),
        ("ssan", "padding_counts", 0),
    ],
)
def test_what_is_no_switch_is_refused_before_anything_is_built(words, method, option, value):
    with pytest.raises(ValueError, match=option):
        check_options(method, {option: value})
    with pytest.raises(ValueError, match=option):
        example.build(method, words, **{option: value})


def test_checkpoints_made_before_the_switches_load(words, tmp_path):
    """They name none of them: what they were trained with is what the defaults still are."""
    from engine import checkpoints

    for method in ("pspd", "tsn", "cada", "ssan"):
        model = example.model(method, words).eval()
        content = checkpoints.describe(model, method, "tiny")
        content["options"] = {}
        checkpoints.save(tmp_path / "best.pth", content)
        loaded, _ = checkpoints.load_retrieval_model(tmp_path / "best.pth")
        expected, found = (one.encode_texts(["a man in a zzyqx shirt"])[1] for one in (model, loaded))
        torch.testing.assert_close(found, expected)
    assert Config().train.decay_vectors is False


RELEASED = {
    "pspd": {"keep_unknown": True},
    "tsn": {"normalise_fused": False, "fusion_start": "normal", "keep_unknown": True},
    "cada": {"half_padding": True, "causal_decoder": True, "keep_unknown": True},
    "ssan": {"padding_counts": True},
}


@pytest.mark.parametrize("method", RELEASED)
def test_every_parameter_learns_and_nothing_waits_for_the_device(method, words, monkeypatch):
    """As with the defaults (tests/methods/test_method_steps.py): no shape that depends on a value, no idle parameter."""
    model = example.model(method, words, **RELEASED[method])
    sum(model.losses(example.batch(model, LABELS)).values()).backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # has no type on this device
    batch = example.batch(model, LABELS).to("meta")
    sum(model.to("meta").losses(batch).values()).backward()


def test_texts_that_are_wider_than_a_caption_can_be_are_cut(words):
    """On a GPU widths are multiples of 16, so 80: ATP's halves still end at position 72."""
    model = example.model("cada", words, half_padding=True)
    batch = example.batch(model, LABELS)
    losses = model.losses(batch)
    batch.texts = batch.texts.widened(80)
    for name, loss in model.losses(batch).items():
        assert loss.item() == pytest.approx(losses[name].item(), rel=1e-4), name
