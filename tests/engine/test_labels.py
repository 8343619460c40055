"""Pseudo labels of a round: what clusters, what is told when nothing does, and what is reported."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clustering.pseudo_labels import cluster
from data.errors import UserError
from engine import labels as labels_module
from engine.feeds import ImageFeed
from engine.labels import PseudoLabels, log_report, pseudo_labels, report
from retrieval.division import ALONE
from tests.in_threads import together


class Colours(nn.Module):
    """A model that sees an image's mean colour and nothing in a text; every pair matches as well as any other."""

    has_matching = True

    def __init__(self, tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.scale = nn.Parameter(torch.ones(1))
        self.images = self.texts = 0  # how many were encoded

    def encode_images(self, images):
        self.images += len(images)
        colours = images.mean((2, 3))
        return colours[:, None], colours

    def encode_texts(self, texts):
        ids = (texts if hasattr(texts, "ids") else self.tokenizer(texts)).ids
        self.texts += len(ids)
        return torch.ones(len(ids), 1, 3), torch.ones(len(ids), 3)

    def match(self, texts, image_tokens, image_index=None):
        return torch.zeros(len(texts), 2)

    def cluster_features(self, image_tokens, image_features, text_tokens, text_features, text_mask):
        return torch.cat([nn.functional.normalize(image_features, dim=1), 0 * text_features], dim=1)


@pytest.fixture
def label(crops, tokenizer, config, machine):
    """label(**settings of cluster) -> the labels of twelve crops, reds at odd places and blues at even ones."""
    feed = ImageFeed(crops, (32, 16), None)
    captions = ["a man in a shirt"] * len(crops)

    def call(
        first_eps=None, correction: bool = False, figure=None, model=None, processes=ALONE, **settings
    ) -> PseudoLabels | None:
        config.correction.enabled = correction
        for name, value in {"min_samples": 2, "k1": 6, "k2": 3, "ratio": 0.4, **settings}.items():
            setattr(config.cluster, name, value)
        model = model or Colours(tokenizer)
        members = replace(machine, processes=processes)
        return pseudo_labels(model, feed, captions, config, members, first_eps, figure=figure)

    return call


def test_two_groups_of_images_make_two_clusters(label):
    labels = label(metric="jaccard", eps=0.95).after
    assert labels.tolist() == [labels[0], labels[1]] * 6
    assert labels[0] != labels[1]


def test_a_clustering_is_described_and_drawn(label, messages, tmp_path):
    label(metric="jaccard", eps=0.95, figure=tmp_path / "labels" / "round-0.png")
    assert any("Clusters: 2 clusters" in message for message in messages)
    assert (tmp_path / "labels" / "round-0.png").stat().st_size > 1000


def test_the_radius_of_the_first_round_is_kept_unless_a_number_is_given(label):
    first = label()
    assert label(first.eps, ratio=0.3).eps == first.eps
    assert label(ratio=0.3).eps != first.eps
    assert label(first.eps, eps=first.eps * 1.01).eps == pytest.approx(first.eps * 1.01)


def test_the_correction_gives_labels_of_clusters_that_are_there(label):
    labels = label(correction=True)
    assert set(labels.after) <= set(labels.before)
    assert (labels.before == label().before).all()


def test_the_neighbours_are_searched_on_the_machines_device(label, machine, monkeypatch):
    asked = []

    def watched(*arguments, device="cpu", **options):
        asked.append(device)
        return cluster(*arguments, device=device, **options)

    monkeypatch.setattr(labels_module, "cluster", watched)
    label()
    assert asked == [machine.device]
    assert isinstance(asked[0], torch.device)


def test_labels_in_half_precision(label, machine, config, tokenizer):
    """The encoders see bf16 where the model says so; what is clustered and corrected is float32."""
    model = Colours(tokenizer)
    model.precision = torch.bfloat16
    seen = []
    encode = model.encode_images
    model.encode_images = lambda images: (seen.append(torch.is_autocast_enabled("cpu")), encode(images))[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = label(correction=True, model=model)
    assert set(seen) == {True}
    assert (found.after == label(correction=True).after).all()


def test_labels_made_in_portions_are_those_made_at_once(label, tokenizer, messages):
    model, plain = Colours(tokenizer), Colours.encode_images

    def encode_images(images):
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(model, images)

    model.encode_images = encode_images
    found, expected = label(correction=True, model=model), label(correction=True)
    assert (found.before == expected.before).all()
    assert (found.after == expected.after).all()
    assert (model.images, model.texts) == (12, 12)
    assert [said for said in messages if "at a time" in said] == [
        "Memory does not hold 12 images at once: going on with 3 at a time."
    ]


@pytest.mark.parametrize("correction", [True, False])
def test_every_image_and_every_caption_is_encoded_once(label, tokenizer, correction):
    model = Colours(tokenizer)
    label(correction=correction, model=model)
    assert (model.images, model.texts) == (12, 12)


@pytest.mark.parametrize("correction", [True, False])
@pytest.mark.parametrize(("size", "batch"), [(2, 3), (2, 5), (3, 5), (3, 12)])
def test_processes_share_the_images_and_the_first_has_the_labels(
    label, tokenizer, config, size, batch, correction
):
    config.test.batch_size = batch
    models = [Colours(tokenizer) for _ in range(size)]
    whole = label(correction=correction)
    first, *others = together(
        size,
        lambda member: label(correction=correction, model=models[member.rank], processes=member),
    )
    assert others == [None] * (size - 1)
    assert (first.before.tolist(), first.after.tolist()) == (whole.before.tolist(), whole.after.tolist())
    assert first.eps == whole.eps
    assert sum(model.images for model in models) == sum(model.texts for model in models) == 12
    assert max(model.images for model in models) <= batch * -(-12 // (batch * size))


class Reader(Colours):
    """A model that remembers which captions were matched, and from which token on."""

    def __init__(self, tokenizer) -> None:
        super().__init__(tokenizer)
        self.first, self.matched = "enc", set()

    @contextmanager
    def matching_from(self, first_token):
        self.first = first_token
        yield
        self.first = "enc"

    def encode_texts(self, texts):
        tokens, _ = super().encode_texts(texts)
        return tokens, torch.stack([texts.ids.sum(1), texts.ids[:, 1], texts.mask.sum(1)], dim=1).float()

    def match(self, texts, image_tokens, image_index=None):
        rows = [tuple(ids[mask].tolist()) for ids, mask in zip(texts.ids, texts.mask, strict=True)]
        self.matched |= {(self.first, row) for row in rows}
        return super().match(texts, image_tokens, image_index)


def test_the_correction_matches_the_captions_that_are_clustered_or_others(crops, tokenizer, config, machine):
    """`correction.captions` and `correction.first_token`: which texts the cross-encoder reads, and how they begin."""
    for name, value in {"min_samples": 2, "k1": 6, "k2": 3, "ratio": 0.4}.items():
        setattr(config.cluster, name, value)
    feed = ImageFeed(crops, (32, 16), None)
    clustered, others = ["a man in a red shirt"] * 12, ["he has a jacket"] * 12

    def rows(captions):
        return {tuple(tokenizer([caption]).ids[0].tolist()) for caption in captions}

    found = []
    for first, given in (("enc", None), ("cls", None), ("cls", others)):
        model = Reader(tokenizer)
        config.correction.first_token = first
        found.append(pseudo_labels(model, feed, clustered, config, machine, None, correction_captions=given))
        assert model.matched == {(first, row) for row in rows(given or clustered)}
        assert model.first == "enc"
    assert all((one.before == found[0].before).all() for one in found), "what is clustered stays"


def test_all_noise_is_one_sentence_with_the_remedy(label, config):
    with pytest.raises(UserError, match=r"noise.*cluster\.ratio") as caught:
        label(min_samples=11)
    assert "Raise cluster.ratio" in str(caught.value)


def test_a_single_cluster_is_one_sentence_with_the_remedy(label):
    with pytest.raises(UserError, match=r"Everything clusters together.*cluster\.ratio") as caught:
        label(eps=1e6)
    assert "Lower cluster.ratio" in str(caught.value)


def test_too_few_images_are_one_sentence_with_the_remedy(label):
    with pytest.raises(UserError, match=r"12 images are too few.*cluster\.min_samples"):
        label(min_samples=12)


@pytest.mark.parametrize("content", [None, b"no array"])
def test_source_features_that_cannot_be_read_are_named(label, tmp_path, content):
    path = tmp_path / "source.npy"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cluster\.source .*source\.npy"):
        label(source=str(path))


def test_labels_survive_saving(tmp_path):
    labels = PseudoLabels(np.array([0, -1, 1]), np.array([0, 0, 1]), 0.25)
    labels.save(tmp_path / "deep" / "round-0.npz")
    again = PseudoLabels.load(tmp_path / "deep" / "round-0.npz")
    assert (again.before == labels.before).all()
    assert (again.after == labels.after).all()
    assert again.eps == 0.25
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["round-0.npz"]


def test_the_report_counts_clusters_noise_and_agreement(messages):
    labels = PseudoLabels(np.array([0, 0, 2, -1]), np.array([0, 0, 2, 2]), 0.5)
    content = report(labels, np.array([5, 5, 7, 7]))
    assert (content["clusters"], content["noise"], content["images"]) == (2, 0.0, 4)
    assert content["before"]["noise"] == 0.25
    assert (content["after"]["size_max"], content["after"]["size_mean"]) == (2, 2.0)
    assert content["after"]["nmi"] == pytest.approx(1.0)
    assert content["after"]["ari"] == pytest.approx(1.0)
    assert content["before"]["ari"] < 1
    assert "nmi" not in report(labels, None)["after"]
    log_report(3, content)
    assert "Round 3: 2 clusters" in messages[-1]
    nothing = report(PseudoLabels(np.full(3, -1), np.full(3, -1), 0.5), np.arange(3))
    assert (nothing["clusters"], nothing["noise"], nothing["after"]["ari"]) == (0, 1.0, 1.0)
    log_report(0, nothing)
    assert "noise" in messages[-1]
