"""The source term: another data set, which every round's model encodes anew, or features that stay as they are."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captioning.files import Caption, write_captions
from clustering.pseudo_labels import cluster
from data import load_dataset
from data.errors import UserError
from data.images import DEFAULT_PIXELS
from engine import labels as labels_module
from engine.cluster_source import ClusterSource, check_cluster_source, open_cluster_source
from engine.config import load_config
from engine.feeds import ImageFeed
from engine.labels import pseudo_labels
from models.backbones.blip.tokenizer import BlipTokenizer

SETTINGS = {"min_samples": 2, "k1": 6, "k2": 3, "ratio": 0.4}


class Seen(nn.Module):
    """A model whose image feature is the mean colour and whose text feature counts tokens, both times its one weight."""

    has_matching = False

    def __init__(self, tokenizer: BlipTokenizer, weight: float) -> None:
        super().__init__()
        self.tokenizer, self.weight = tokenizer, nn.Parameter(torch.tensor(weight))

    def encode_images(self, images):
        colours = self.weight * images.mean((2, 3))
        return colours[:, None], colours

    def encode_texts(self, texts):
        counts = self.weight * texts.mask.sum(1, keepdim=True).expand(-1, 2).float()
        return counts[:, None], counts

    def cluster_features(self, image_tokens, image_features, text_tokens, text_features, text_mask):
        return torch.cat([image_features, 0.1 * text_features], dim=1)


def feature_by_hand(path, caption: str, tokenizer: BlipTokenizer, weight: float) -> list[float]:
    """The fused feature of one image and its caption, without batches."""
    with Image.open(path) as image:
        pixel = image.resize((16, 32)).getpixel((0, 0))
    colours = [
        (value / 255 - mean) / std
        for value, mean, std in zip(pixel, DEFAULT_PIXELS.mean, DEFAULT_PIXELS.std, strict=True)
    ]
    count = tokenizer([caption]).ids.shape[1]
    return [weight * colour for colour in colours] + [0.1 * weight * count] * 2


@pytest.fixture
def source_images(tmp_path):
    paths = []
    for number, colour in enumerate([(160, 30, 30), (20, 40, 190), (90, 200, 90)]):
        paths.append(tmp_path / f"source-{number}.png")
        Image.new("RGB", (16, 32), colour).save(paths[-1])
    return paths


@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_the_source_is_encoded_by_the_rounds_model(
    crops, source_images, tokenizer, config, machine, monkeypatch, weight
):
    """Its features, and with them the term, are those of the model that labels: image by image, as a loop has them."""
    for name, value in SETTINGS.items():
        setattr(config.cluster, name, value)
    config.correction.enabled = False
    given = {}

    def watched(features, source, **options):
        given.update(features=features, source=source)
        return cluster(features, source, **options)

    monkeypatch.setattr(labels_module, "cluster", watched)
    captions = ["a red shirt", "a man in a red shirt and black trousers", "the woman wears a dress"]
    source = ClusterSource(ImageFeed(source_images, (32, 16), None), captions)
    feed = ImageFeed(crops, (32, 16), None)
    own = ["a man in a shirt"] * len(crops)
    labels = pseudo_labels(Seen(tokenizer, weight), feed, own, config, machine, None, source=source)

    expected = [
        feature_by_hand(*pair, tokenizer, weight) for pair in zip(source_images, captions, strict=True)
    ]
    features = [feature_by_hand(*pair, tokenizer, weight) for pair in zip(crops, own, strict=True)]
    np.testing.assert_allclose(given["source"], expected, rtol=1e-4, atol=1e-5)
    term = [
        1 - math.exp(-min(sum((a - b) ** 2 for a, b in zip(f, s, strict=True)) for s in expected))
        for f in features
    ]
    without = pseudo_labels(Seen(tokenizer, weight), feed, own, config, machine, None)
    # eps is the mean of the smallest of (1 - lam) J + lam (s_i + s_j), so it says which term it was made with.
    assert labels.eps != without.eps
    scaled = np.array(term) / max(term)
    found = labels_module.cluster(given["features"], np.asarray(expected), eps="auto", **SETTINGS)
    assert labels.eps == pytest.approx(found.eps, abs=1e-5)
    assert found.eps == pytest.approx(eps_by_loop(given["features"], scaled), abs=1e-4)


def eps_by_loop(features: np.ndarray, term: np.ndarray, lam: float = 0.1) -> float:
    """The mean of the smallest 40 % of the pairs' distances that are not zero."""
    from clustering.rerank import jaccard_similarity

    jaccard = 1.0 - jaccard_similarity(features, SETTINGS["k1"], SETTINGS["k2"]).toarray()
    distances = sorted(
        distance
        for i in range(len(features))
        for j in range(i + 1, len(features))
        if (distance := (1 - lam) * jaccard[i, j] + lam * (term[i] + term[j])) > 1e-9
    )
    kept = max(1, round(SETTINGS["ratio"] * len(distances)))
    return sum(distances[:kept]) / kept


@pytest.mark.parametrize("shape", [(5, 3), (5,), (0, 5)])
def test_a_file_of_features_of_another_method_is_refused(crops, tokenizer, config, machine, tmp_path, shape):
    """TSN's fused feature has 256 columns and PSPD's 512: which it is, the model that clusters says."""
    np.save(tmp_path / "source.npy", np.zeros(shape))
    config.correction.enabled = False
    for name, value in {**SETTINGS, "source": str(tmp_path / "source.npy")}.items():
        setattr(config.cluster, name, value)
    feed = ImageFeed(crops, (32, 16), None)
    with pytest.raises(UserError, match=r"source\.npy has the shape .*has 5 columns"):
        pseudo_labels(Seen(tokenizer, 1.0), feed, ["a"] * len(crops), config, machine, None)


def test_a_file_of_features_stays_as_it_is(crops, tokenizer, config, machine, tmp_path, monkeypatch):
    fixed = np.arange(10.0).reshape(2, 5)
    np.save(tmp_path / "source.npy", fixed)
    config.correction.enabled = False
    for name, value in {**SETTINGS, "source": str(tmp_path / "source.npy")}.items():
        setattr(config.cluster, name, value)
    given = []

    def watched(features, source, **options):
        given.append(source)
        return cluster(features, source, **options)

    monkeypatch.setattr(labels_module, "cluster", watched)
    feed = ImageFeed(crops, (32, 16), None)
    for weight in (1.0, 0.6):
        pseudo_labels(Seen(tokenizer, weight), feed, ["a"] * len(crops), config, machine, None)
    assert [source.tolist() for source in given] == [fixed.tolist()] * 2


def write_rstp(root, captions: bool = True) -> None:
    """Three training images and one of test, the first training image with two captions."""
    folder = root / "RSTPReid"
    (folder / "imgs").mkdir(parents=True)
    records = []
    for number, split in enumerate(["train", "train", "train", "test"]):
        Image.new("RGB", (8, 16), (60 * number, 9, 9)).save(folder / "imgs" / f"{number}.png")
        said = [f"person {number} in red", f"person {number} again"] if captions else []
        records.append({"id": number, "img_path": f"{number}.png", "captions": said, "split": split})
    (folder / "data_captions.json").write_text(json.dumps(records), "utf-8")


@pytest.fixture
def sourced(tmp_path):
    """sourced(*settings) -> a configuration whose source lies in other/ and whose own data set is in own/."""
    write_rstp(tmp_path / "own")
    write_rstp(tmp_path / "other")

    def load(*settings: str):
        places = [
            f"output={tmp_path}/output",
            f"dataset.root={tmp_path}/own",
            "dataset.name=rstpreid",
            f"cluster.source={{name: rstpreid, root: {tmp_path}/other, tag: other}}",
        ]
        return load_config([], [*places, *settings])

    return load


def opened(config) -> ClusterSource | None:
    return open_cluster_source(config, load_dataset(config.dataset.name, config.dataset.root), DEFAULT_PIXELS)


def test_a_source_is_its_training_images_and_one_caption_of_each(sourced, tmp_path):
    source = opened(sourced())
    assert [path.name for path in source.feed.paths] == ["0.png", "1.png", "2.png"]
    assert {path.parents[2].name for path in source.feed.paths} == {"other"}
    assert source.captions == [f"person {number} in red" for number in range(3)]
    check_cluster_source(sourced())


def test_a_source_with_generated_captions_reads_those(sourced, tmp_path):
    folder = tmp_path / "generated"
    write_captions(
        folder / "captions.json",
        [Caption(f"{number}.png", f"base {number}", f"styled {number}") for number in (2, 0)],
    )
    settings = "cluster.source.captions=generated", f"cluster.source.pre_gen_data={folder}"
    source = opened(sourced(*settings))
    assert [path.name for path in source.feed.paths] == ["0.png", "2.png"]
    assert source.captions == ["styled 0", "styled 2"]  # PSPD clusters by the styled caption
    missing = sourced("cluster.source.captions=generated", f"cluster.source.pre_gen_data={tmp_path}/none")
    check_cluster_source(missing)  # they may be made before training begins
    with pytest.raises(UserError, match=r"cluster\.source: .*gen_text\.py"):
        opened(missing)


def test_the_data_set_itself_is_no_source(sourced, tmp_path):
    for root in (tmp_path / "own", tmp_path / "own" / "RSTPReid"):
        config = sourced(f"cluster.source.root={root}")
        for look in (opened, check_cluster_source):
            with pytest.raises(UserError, match="3 of its images are in the one that is clustered"):
                look(config)


def test_a_source_that_cannot_be_read_is_one_sentence(sourced, tmp_path):
    with pytest.raises(UserError, match=r"cluster\.source: The dataset root .*absent does not exist"):
        opened(sourced(f"cluster.source.root={tmp_path}/absent"))
    write_rstp(tmp_path / "silent", captions=False)
    with pytest.raises(UserError, match=r"other has no captions .*cluster\.source\.captions=generated"):
        check_cluster_source(sourced(f"cluster.source.root={tmp_path}/silent"))


@pytest.mark.parametrize(
    "setting",
    [
        "cluster.source=''",
        "cluster.source=a.npy",
        "train.supervision=labels",
        "train.rounds=0",
        "cluster.enabled=false",
    ],
)
def test_where_nothing_is_clustered_by_it_no_source_is_opened(sourced, setting):
    assert opened(sourced(setting)) is None
    check_cluster_source(
        sourced(setting, "cluster.source.root=absent") if "source" not in setting else sourced(setting)
    )
