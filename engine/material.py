"""What a training learns from: images, the captions of each, and nothing that its supervision does not allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captioning.attributes import group
from captioning.files import CAPTIONS, PRE_CAPTIONS, Caption, both_captions, load_captions, load_pre_captions
from data import PedesDataset
from data.errors import UserError
from data.records import NO_IDENTITY
from data.views import CaptionedImages, LabelledPairs
from engine.building import method_class, supervision
from engine.config import Config
from engine.feeds import Pairs
from engine.sources import fixed_captions, generated_captions, open_synthetic, training_images
from models.batch import TrainingCaption
from models.texts import TextBatch

CAPTIONER_KINDS = frozenset({"base", "styled"})  # what stages A to C make; "fixed" is stage A's alone


@dataclass
class Material:
    """N images with their captions.

    Attributes:
        images: their files.
        owners: (P,) int64, which image each caption belongs to.
        captions: P captions.
        cluster_texts: one caption per image, which the pseudo labels are made from.
        identities: (N,) int64, -1 where none is read. Images without one come before those that have one.
        source: the name of what is learnt from, for `trained_on` in results.
        tokenizer_directory: where a vocabulary trained on `texts()` is kept.
        vocabulary_texts: what such a vocabulary is made of where it is not these captions.
        correction_texts: one caption per image without identity, which its pseudo label is corrected by; None: the same.
    """

    images: list[Path]
    owners: np.ndarray
    captions: list[TrainingCaption]
    cluster_texts: list[str]
    identities: np.ndarray
    source: str
    tokenizer_directory: Path
    vocabulary_texts: list[str] | None = None
    correction_texts: list[str] | None = None

    @property
    def unlabelled(self) -> int:
        """How many images, the first ones, have no identity: what they are taken for is found while training."""
        return int((self.identities < 0).sum())

    def labels(self, found: np.ndarray | None = None) -> np.ndarray:
        """(N,) int64, what every image is taken for: no identity is ever the number of a label that was found.

        Args:
            found: (unlabelled,) of the images without identity, -1 for noise; None: there are no such images.
        """
        found = self.identities[:0] if found is None else found
        known = self.identities[len(found) :]
        return np.concatenate([found, known + found.max(initial=-1) + 1])

    def texts(self) -> list[str]:
        """The sentences that a vocabulary trained from scratch is made of."""
        return self.vocabulary_texts or [caption.text for caption in self.captions]

    def pairs(self, texts: TextBatch, labels: np.ndarray) -> Pairs:
        """The image-text pairs of every image whose label (N,) is not noise (-1).

        Args:
            texts: the P captions as the method prepared them.
        """
        kept = np.flatnonzero(labels[self.owners] >= 0)
        return Pairs(self.owners[kept], texts[kept.tolist()], labels[self.owners[kept]])


class Materials(NamedTuple):
    """What a run learns from: `own`, and what its starting weights learn from before, where there is anything."""

    own: Material
    before: Material | None


def materials_of(dataset: PedesDataset, config: Config) -> Materials:
    """What the configuration's `train.data` and supervision allow; of a source that it does not name nothing is read.

    Raises:
        UserError: captions, identities or a synthetic set that it needs are missing.
    """
    data = config.train.data
    if data == "synthetic":
        return Materials(synthetic_material(config), None)
    real = material_of(dataset, config)
    if data == "real":
        return Materials(real, None)
    synthetic = synthetic_material(config)
    if data == "mixed":
        both = joined(real, synthetic)
        if supervision(config) == "pseudo":  # its vocabulary is one with the captioner's and its warm-up's
            both.vocabulary_texts = real.texts()
        return Materials(both, None)
    # One vocabulary for both trainings, as the second starts from the first one's weights.
    own = replace(
        real,
        source=f"{synthetic.source}, then {real.source}",
        tokenizer_directory=synthetic.tokenizer_directory,
        vocabulary_texts=[*synthetic.texts(), *real.texts()],
    )
    return Materials(own, synthetic)


def joined(first: Material, second: Material) -> Material:
    """The images of both, the first's before the second's, whose identities are numbered on from the first's.

    Args:
        second: has an identity for every image.
    """
    return Material(
        [*first.images, *second.images],
        np.concatenate([first.owners, second.owners + len(first.images)]),
        [*first.captions, *second.captions],
        [*first.cluster_texts, *second.cluster_texts],
        np.concatenate([first.identities, second.identities + first.identities.max(initial=-1) + 1]),
        f"{first.source} + {second.source}",
        first.tokenizer_directory,
        correction_texts=first.correction_texts,
    )


def synthetic_material(config: Config) -> Material:
    """The synthetic set's images with the captions and identities that came of making them.

    Raises:
        UserError: there is no such set.
    """
    settings = config.gen_images
    made = {"few": ", generator tuned on real images", "all": ", generator tuned on real images and captions"}
    source = f"{Path(settings.root).name} (synthetic{made.get(settings.scenario, '')})"
    return _labelled(open_synthetic(config), source, config)


def generated_material(dataset: PedesDataset, config: Config) -> Material:
    """Images and generated captions: neither identities nor human captions are read.

    Raises:
        UserError: the stage that makes a kind of caption has not run, or its file lacks them.
    """
    kinds = caption_kinds(config)
    wanted = training_images(dataset)
    made = GeneratedCaptions(
        generated_captions(config, wanted) if CAPTIONER_KINDS & set(kinds) else {},
        fixed_captions(config, wanted) if "fixed" in kinds else {},
    )
    images = [image for image in wanted if image in made.records or image in made.fixed]
    captions = [(owner, made.caption(image, kind)) for owner, image in enumerate(images) for kind in kinds]
    captions = [(owner, caption) for owner, caption in captions if caption is not None]
    if not captions:
        raise UserError(
            f"There are no {' or '.join(kinds)} captions: make them again with gen_text.py --force."
        )
    corrected_by = config.correction.captions
    directory = config.caption_directory / "tokenizer"
    shared = None if made.records else _vocabulary_texts(config, wanted)
    if not made.records and shared is None:
        directory = directory.with_name("tokenizer-fixed")
    return Material(
        [dataset.image_root / image for image in images],
        np.asarray([owner for owner, _ in captions]),
        [caption for _, caption in captions],
        [made.text_at_least(image, kinds[-1]) for image in images],
        np.full(len(images), NO_IDENTITY),
        config.dataset.label,
        directory,
        shared,
        [made.text_at_least(image, corrected_by) for image in images] if corrected_by else None,
    )


@dataclass(frozen=True)
class GeneratedCaptions:
    """What the stages before have made: `records` of the captioner's two kinds, and texts in one `fixed` style, by image."""

    records: Mapping[str, Caption]
    fixed: Mapping[str, str]

    def text(self, image: str, kind: str) -> str:
        """An image's caption of one kind; empty where it has none."""
        if kind == "fixed":
            return self.fixed.get(image, "")
        return getattr(self.records.get(image), f"{kind}_caption", "")

    def text_at_least(self, image: str, kind: str) -> str:
        """An image's caption of this kind; where it has none, another."""
        return next(text for each in (kind, "base", "fixed") if (text := self.text(image, each)))

    def caption(self, image: str, kind: str) -> TrainingCaption | None:
        """An image's caption of one kind with its attribute words, which stage C groups of the styled ones alone."""
        text = self.text(image, kind)
        if not text:
            return None
        grouped = (self.records[image].upper, self.records[image].lower) if kind == "styled" else ()
        return training_caption(text, *grouped)


def _vocabulary_texts(config: Config, images: Sequence[str]) -> list[str] | None:
    """The captions that a warm-up learns, so that its vocabulary is one whichever method trains first; None without any."""
    path = config.caption_directory / PRE_CAPTIONS
    if path.exists():
        records = load_pre_captions(path)
        known = sorted(records.keys() & set(images))
    elif path.with_name(CAPTIONS).exists():
        records = load_captions(path.with_name(CAPTIONS))
        known = [image for image in images if image in records]
    else:
        return None
    return both_captions(records, known)


def caption_kinds(config: Config) -> tuple[str, ...]:
    """The kinds of generated captions that training uses, each image once with each.

    Raises:
        UserError: no such method.
    """
    return tuple(config.train.captions or method_class(config.model.method).caption_kinds)


def training_caption(
    text: str, upper: Sequence[str] | None = None, lower: Sequence[str] | None = None
) -> TrainingCaption:
    """A caption with its attribute words: those of stage C where it grouped this text, the rules' otherwise."""
    if upper is None or lower is None:
        upper, lower = group(text)
    return TrainingCaption(text, tuple(upper), tuple(lower))


def material_of(dataset: PedesDataset, config: Config) -> Material:
    """What the configuration's supervision allows of the data set.

    Raises:
        UserError: captions or identities that it needs are missing.
    """
    made = {"pseudo": generated_material, "pairs": captioned_material, "labels": supervised_material}
    return made[supervision(config)](dataset, config)


def captioned_material(dataset: PedesDataset, config: Config) -> Material:
    """The data set's own captions: no identity is read.

    Raises:
        UserError: a data set without captions, such as a bare folder.
    """
    view = CaptionedImages(dataset)
    if not view.images:
        raise UserError(
            "train.supervision=pairs learns from the data set's own captions, and this one has none: use pseudo."
        )
    return Material(
        [dataset.image_root / image for image in view.images],
        np.repeat(np.arange(len(view.images)), [len(captions) for captions in view.captions]),
        [training_caption(text) for captions in view.captions for text in captions],
        [captions[0] for captions in view.captions],
        np.full(len(view.images), NO_IDENTITY),
        config.dataset.label,
        config.run_directory / "tokenizer",
    )


def supervised_material(dataset: PedesDataset, config: Config) -> Material:
    """The data set's own captions and identities: for supervised methods and upper bounds only.

    Raises:
        UserError: a data set without captions or identities, such as a bare folder.
    """
    pairs = LabelledPairs(dataset.train)
    if not pairs.captions or min(record.identity for record in dataset.train) < 0:
        raise UserError(
            f"The method '{config.model.method}' is supervised and needs captions and identities, which this data set "
            "does not have: use an unsupervised method such as pspd, or --set train.supervision=pseudo."
        )
    return _labelled(dataset, config.dataset.label, config)


def _labelled(dataset: PedesDataset, source: str, config: Config) -> Material:
    """The train split with its captions and identities, these numbered from 0 without gaps."""
    pairs = LabelledPairs(dataset.train)
    identities = np.asarray([record.identity for record in dataset.train])
    return Material(
        [dataset.image_root / record.image for record in dataset.train],
        pairs.image_indices,
        [training_caption(text) for text in pairs.captions],
        [record.captions[0] if record.captions else "" for record in dataset.train],
        np.unique(identities, return_inverse=True)[1],
        source,
        config.run_directory / "tokenizer",
    )


def report_identities(dataset: PedesDataset, images: Sequence[Path]) -> np.ndarray | None:
    """Identities for the cluster REPORT (NMI, ARI), None where there are none; training never sees them."""
    known = {dataset.image_root / record.image: record.identity for record in dataset.train}
    identities = np.asarray([known[image] for image in images])
    return None if (identities < 0).any() else identities


def compact(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels renumbered 0 .. count - 1 in order, -1 staying -1, and the count."""
    kept = labels >= 0
    values, numbers = np.unique(labels[kept], return_inverse=True)
    result = np.full_like(labels, -1)
    result[kept] = numbers
    return result, len(values)
