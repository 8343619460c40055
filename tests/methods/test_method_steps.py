"""Every method takes a training step, and its losses are what its formulas give pair by pair."""

from __future__ import annotations

import math
from contextlib import nullcontext

import method_examples as example
import pytest
import torch
from torch.nn.functional import normalize

from losses.masked_language import hidden_units
from models import TrainingCaption

LABELS = [0, 0, 1, 2, 1, 3]
LOSSES = {
    "pspd": {"ndf", "itm", "local"},
    "tsn": {"ndf", "itm", "identity"},
    "cada": {"ndf", "itm", "atp", "ara"},
    "ssan": {
        f"{kind}_{level}" for kind in ("identity", "ranking") for level in ("global", "local", "relation")
    },
    "irra": {"sdm", "identity", "mlm"},
    "rde": {"tal_global", "tal_selected"},
    "syntbpr": {"n_itc", "r_itc"},
    "tbps_clip": {"n_itc", "r_itc", "c_itc", "ss_i"},
}


@pytest.mark.parametrize("method", example.all_methods())
def test_every_parameter_learns(method, words):
    model = example.model(method, words)
    losses = model.losses(example.batch(model, LABELS))
    assert set(losses) == LOSSES[method]
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []  # a parameter without gradient would stop training on several processes


@pytest.mark.parametrize("encoder", ["image", "text"])
@pytest.mark.parametrize("method", example.all_methods())
def test_a_frozen_encoder_gives_the_features_it_began_with_after_a_step(method, encoder, words):
    model = example.model(method, words)
    model.freeze([encoder])
    batch = example.batch(model, LABELS)

    def features() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            model.eval()
            return {"image": model.encode_images(batch.images)[1], "text": model.encode_texts(batch.texts)[1]}

    before = features()
    sum(model.train().losses(batch).values()).backward()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learning)
    with torch.no_grad():
        for parameter in learning:
            parameter -= 0.1 * parameter.grad
    after = features()
    other = "text" if encoder == "image" else "image"
    assert not torch.equal(before[other], after[other])
    if method not in ("ssan", "rde"):  # their features end in layers of neither encoder, which go on learning
        assert torch.equal(before[encoder], after[encoder])
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        name for name, p in model.named_parameters() if p.grad is None
    }


@pytest.mark.parametrize("method", example.all_methods())
def test_a_batch_of_one_label_has_no_negatives(method, words):
    model = example.model(method, words)
    batch = example.batch(model, [4] * 6)
    losses = model.losses(batch)
    sum(losses.values()).backward()
    if model.has_matching:
        tokens, _ = model.encode_images(batch.images)
        positives = torch.log_softmax(model.match(batch.texts, tokens), 1)[:, 1]
        assert losses["itm"].item() == pytest.approx(-positives.mean().item(), rel=1e-4)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("method", example.all_methods())
def test_a_step_never_waits_for_the_device(method, words, monkeypatch):
    """Tensors without values: reading one, or a shape that depends on one, raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # has no type on this device
    model = example.model(method, words)
    batch = example.batch(model, LABELS).to("meta")
    losses = model.to("meta").losses(batch)
    sum(losses.values()).backward()
    assert all(loss.device.type == "meta" for loss in losses.values())


@pytest.mark.parametrize("method", example.all_methods())
def test_half_precision_follows_single(method, words):
    model = example.model(method, words)
    batch = example.batch(model, LABELS)
    exact = model.losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(batch)
    sum(losses.values()).backward()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        # Rounding changes which negatives are semi-hard, and with each the ranking loss jumps.
        share = 0.25 if name.startswith("ranking") else 0.05
        assert loss.item() == pytest.approx(exact[name].item(), rel=share), name


@pytest.mark.integration
@pytest.mark.parametrize("method", example.all_methods())
def test_a_small_batch_is_learnt_by_heart(method, words):
    model = example.model(method, words)
    batch = example.batch(model, LABELS)
    optimizer = torch.optim.AdamW(model.parameter_groups(3e-4, 0.05))
    history = []
    for _ in range(35):
        losses = model.losses(batch)
        history.append(losses)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    if "ndf" in history[0]:
        assert history[-1]["ndf"] < 0.7 * history[0]["ndf"]
    assert sum(history[-1].values()) < 0.8 * sum(history[0].values())


def pairs_by_loop(model, batch):
    """(text, image, match) of the positives and of every sample's hardest negatives, mined in plain loops."""
    images = model.encode_images(batch.images)[1].tolist()
    texts = model.encode_texts(batch.texts)[1].tolist()
    labels = batch.labels.tolist()
    score = [[sum(a * b for a, b in zip(t, v, strict=True)) for v in images] for t in texts]
    pairs = [(b, b, 1) for b in range(len(labels))]
    for b, label in enumerate(labels):
        others = [j for j in range(len(labels)) if labels[j] != label]
        if others:
            pairs.append((b, max(others, key=lambda j: score[b][j]), 0))
            pairs.append((max(others, key=lambda j: score[j][b]), b, 0))
    return pairs


def cross_entropy(logits, target):
    no, yes = logits.tolist()
    return math.log(math.exp(no) + math.exp(yes)) - (yes if target else no)


def region_of(tokens, marks):
    chosen = [tokens[i] for i, mark in enumerate(marks.tolist()) if mark] or [tokens[0]]
    return torch.stack(chosen).mean(0)


@torch.no_grad()
def matching_by_loop(model, batch, regions):
    """ITM and region losses, one pair at a time; `regions` gives a text's masks."""
    tokens, _ = model.encode_images(batch.images)
    itm, local = [], []
    for text, image, match in pairs_by_loop(model, batch):
        states = model.cross_encode(batch.texts[text : text + 1].trim(), tokens[image : image + 1])[0]
        itm.append(cross_entropy(model.itm_head(states[0]), match))
        for marks in regions(batch.texts, text):
            local.append(cross_entropy(model.itm_local_head(region_of(states, marks)), match))
    return sum(itm) / len(itm), sum(local) / max(1, len(local))


@pytest.mark.parametrize("labels", [LABELS, [0, 0, 0, 0, 0, 7], [0, 1, 2, 3, 4, 5], [2] * 6], ids=str)
def test_pspd_pair_by_pair(labels, words):
    model = example.model("pspd", words)
    batch = example.batch(model, labels)
    losses = model.losses(batch)

    def garments(texts, text):
        width = texts.mask[text].sum()
        return [texts.extras[name][text, :width] for name in ("upper", "lower")]

    itm, local = matching_by_loop(model, batch, garments)
    assert losses["itm"].item() == pytest.approx(itm, rel=1e-4)
    assert losses["local"].item() == pytest.approx(local, rel=1e-4)


def test_cada_pair_by_pair(words, monkeypatch):
    model = example.model("cada", words)
    # Captions here are short: halves of six tokens instead of 36 try both of them.
    monkeypatch.setattr("models.methods.cada.HALVES", ((1, 7), (7, 13)))
    batch = example.batch(model, LABELS)

    def halves(texts, text):
        width = int(texts.mask[text].sum())
        return [torch.tensor([start <= i < stop for i in range(width)]) for start, stop in ((1, 7), (7, 13))]

    itm, atp = matching_by_loop(model, batch, halves)
    losses = model.losses(batch)
    assert losses["itm"].item() == pytest.approx(itm, rel=1e-4)
    assert losses["atp"].item() == pytest.approx(atp, rel=1e-4)


def test_pspd_marks_the_words_of_garments(words):
    model = example.model("pspd", words)
    texts = model.prepare(example.CAPTIONS)
    for row, caption in enumerate(example.CAPTIONS):
        of_token = model.tokenizer.words(caption.text)
        for region in ("upper", "lower"):
            marks = texts.extras[region][row].tolist()
            assert marks[: len(of_token)] == [word in getattr(caption, region) for word in of_token]
            assert not any(marks[len(of_token) :])


def test_pspd_without_the_local_loss_has_no_local_head(words):
    model = example.model("pspd", words, local_weight=0)
    whole = example.model("pspd", words)
    model.load_state_dict(whole.state_dict(), strict=False)
    losses, reference = (m.losses(example.batch(m, LABELS)) for m in (model, whole))
    assert set(losses) == {"ndf", "itm"}
    assert not any("local" in name for name in model.state_dict())
    assert losses["itm"].item() == pytest.approx(reference["itm"].item(), rel=1e-5)


def test_pspd_local_weight_scales(words):
    single, double = (example.model("pspd", words, local_weight=w) for w in (1.0, 2.0))
    one, two = (m.losses(example.batch(m, LABELS))["local"].item() for m in (single, double))
    assert two == pytest.approx(2 * one)


@pytest.mark.parametrize("method", ["pspd", "cada"])
def test_cluster_features_are_both_normalised_features(method, words):
    model = example.model(method, words)
    v, t = torch.randn(3, 5), torch.randn(3, 5)
    features = model.cluster_features(
        torch.randn(3, 9, 4), v, torch.randn(3, 7, 4), t, torch.ones(3, 7).bool()
    )
    torch.testing.assert_close(features, torch.cat([normalize(v), normalize(t)], 1))


class TestTSN:
    def test_padding_does_not_change_the_fused_feature(self, words):
        model = example.model("tsn", words).eval()
        image, text = torch.randn(2, 9, 128), torch.randn(2, 7, 128)
        mask = torch.arange(7).expand(2, 7) < 4
        features = model.cluster_features(image, None, text, None, mask)
        cut = model.cluster_features(image, None, text[:, :4], None, mask[:, :4])
        torch.testing.assert_close(features, cut)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2))

    def test_the_first_token_leaves_the_whole_block(self, words):
        """The block written out for every token, from torch's own attention."""
        fusion = example.model("tsn", words).fusion
        image, text, mask = torch.randn(2, 9, 128), torch.randn(2, 7, 128), torch.arange(7).expand(2, 7) < 5

        def attend(attention, tokens, source, hidden):
            key, value = attention.key_value.weight.chunk(2)
            key_bias, value_bias = attention.key_value.bias.chunk(2)
            return torch.nn.functional.multi_head_attention_forward(
                tokens.transpose(0, 1), source.transpose(0, 1), source.transpose(0, 1), 128, attention.heads, None,
                torch.cat([attention.query.bias, key_bias, value_bias]), None, None, False, 0.0,
                attention.output.weight, attention.output.bias, key_padding_mask=hidden, need_weights=False,
                use_separate_proj_weight=True, q_proj_weight=attention.query.weight, k_proj_weight=key,
                v_proj_weight=value,
            )[0].transpose(0, 1)  # fmt: skip

        x = attend(fusion.crossattention, fusion.image_norm(image), fusion.text_norm(text), ~mask)
        normed = fusion.norm1(x)
        x = x + attend(fusion.attention, normed, normed, None)
        x = x + fusion.mlp(fusion.norm2(x))
        expected = fusion.projection(fusion.norm(x)[:, 0])
        torch.testing.assert_close(fusion(image, text, mask), expected, rtol=1e-4, atol=1e-5)

    def test_the_identity_loss_reaches_the_encoders_through_the_text_only(self, words):
        model = example.model("tsn", words)
        torch.nn.init.normal_(model.classifier.weight)
        model.losses(example.batch(model, LABELS))["identity"].backward()
        assert all(p.grad is None for p in model.visual_encoder.parameters())
        assert model.text_proj.weight.grad.any()
        assert model.fusion.projection.weight.grad.any()

    def test_classes_must_be_known(self, words):
        model = example.build("tsn", words)
        with pytest.raises(ValueError, match="set_identities"):
            model.losses(example.batch(model, LABELS))


class TestCADA:
    def test_units_are_attribute_words(self, words):
        model = example.model("cada", words)
        units = model.prepare([TrainingCaption("a man in a red shirt, and black trousers")]).extras["units"][
            0
        ]
        of_token = model.tokenizer.words("a man in a red shirt, and black trousers")
        pieces = [
            model.tokenizer.decode([i])
            for i in model.tokenizer(["a man in a red shirt, and black trousers"]).ids[0].tolist()
        ]
        numbered = {}
        for word, piece, unit in zip(of_token, pieces, units.tolist(), strict=True):
            assert piece != "," or unit == 0
            numbered.setdefault(unit, []).append(word)
        named = [list(dict.fromkeys(numbered[unit])) for unit in sorted(numbered) if unit]
        assert named == [["man"], ["red"], ["shirt"], ["black"], ["trousers"]]

    def test_units_are_phrases(self, words):
        model = example.model("cada", words, masking="phrases")
        text = "a man in a red shirt, and black trousers"
        units = model.prepare([TrainingCaption(text), TrainingCaption("a person")]).extras["units"]
        grouped = {}
        for word, unit in zip(model.tokenizer.words(text), units[0].tolist(), strict=True):
            grouped.setdefault(unit, []).append(word)
        assert {unit: set(group) - {None} for unit, group in grouped.items() if unit} == {
            1: {"red", "shirt"},
            2: {"black", "trousers"},
        }
        assert not units[1].any()

    @torch.no_grad()
    def test_attribute_loss_caption_by_caption(self, words):
        model = example.model("cada", words)
        batch = example.batch(model, LABELS)
        tokens, _ = model.encode_images(batch.images)
        costs = []
        for b in range(6):
            ids = batch.texts.ids[b][batch.texts.mask[b]]
            hidden = hidden_units(
                batch.texts.extras["units"][b : b + 1, : len(ids)], batch.seeds[b : b + 1], 0.4
            )[0]
            masked = torch.where(hidden, model.tokenizer.mask_id, ids)
            masked[0] = model.tokenizer.dec_id
            states = model.text_decoder.bert(masked[None], None, tokens[b : b + 1])
            logs = torch.log_softmax(model.text_decoder.word_logits(states)[0], 1)
            costs += [-logs[i, ids[i]].item() for i in range(len(ids)) if hidden[i]]
        assert len(costs) > 4
        loss = model.losses(batch)["ara"].item()
        assert loss == pytest.approx(0.1 * sum(costs) / len(costs), rel=1e-4)

    def test_seeds_must_be_given(self, words):
        model = example.model("cada", words)
        batch = example.batch(model, LABELS)
        batch.seeds = None
        with pytest.raises(ValueError, match="one seed per sample"):
            model.losses(batch)

    def test_no_such_masking(self, words):
        with pytest.raises(ValueError, match="words or phrases"):
            example.model("cada", words, masking="sentences")

    def test_without_attributes_there_is_no_decoder(self, words):
        model = example.model("cada", words, attribute_weight=0)
        assert set(model.losses(example.batch(model, LABELS))) == {"ndf", "itm", "atp"}
        assert not any(name.startswith("text_decoder") for name in model.state_dict())

    def test_the_language_head_learns_five_times_as_fast(self, words):
        model = example.model("cada", words)
        names = {id(p): name for name, p in model.named_parameters()}
        fast = {
            names[id(p)] for g in model.parameter_groups(1e-5, 0.05) if g["lr"] == 5e-5 for p in g["params"]
        }
        assert fast == {name for name in names.values() if name.startswith("text_decoder.cls.")}
        assert fast


@pytest.mark.parametrize("method", example.all_methods())
def test_parameter_groups_hold_everything_once_and_decay_matrices(method, words):
    model = example.model(method, words)
    next(p for p in model.parameters() if p.ndim == 1).requires_grad_(False)
    groups = model.parameter_groups(1e-4, 0.05)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.05) for p in group["params"])
        assert group["weight_decay"] in (0.0, 0.05)
