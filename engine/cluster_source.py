"""The source term's data set: another one, whose images and captions the model of every round encodes anew.

Its identities are read by nobody: the term asks how far a training image is from the nearest image of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import PedesDataset
from data.errors import UserError
from data.images import Pixels
from data.views import CaptionedImages
from engine.building import supervision
from engine.config import Config, SourceConfig
from engine.feeds import ImageFeed
from engine.material import generated_material
from engine.sources import open_dataset


@dataclass(frozen=True)
class ClusterSource:
    """M training images of the source data set, and one caption of each."""

    feed: ImageFeed
    captions: list[str]


def open_cluster_source(config: Config, dataset: PedesDataset, pixels: Pixels) -> ClusterSource | None:
    """The configured source data set; None where there is none, a file of features in its place, or nothing is clustered.

    Args:
        dataset: the one that is clustered.
        pixels: how the method's backbone wants its images.

    Raises:
        UserError: it can't be read, has no captions of the configured kind, or has images of `dataset`.
    """
    settings = config.cluster.source
    if not isinstance(settings, SourceConfig) or not _clusters(config):
        return None
    own = _of_source(config, settings)
    paths, captions = _read(own, settings, dataset)
    return ClusterSource(ImageFeed.of(paths, own, pixels=pixels), captions)


def check_cluster_source(config: Config) -> None:
    """Refuse a source data set that can't be used, before a stage spends hours on what comes before it.

    One with generated captions, which may be made meanwhile, is read when training begins.

    Raises:
        UserError: as `open_cluster_source`.
    """
    settings = config.cluster.source
    if isinstance(settings, SourceConfig) and settings.captions == "own" and _clusters(config):
        _read(_of_source(config, settings), settings, open_dataset(config))


def _of_source(config: Config, settings: SourceConfig) -> Config:
    """The configuration with the source as its data set."""
    return config.model_copy(update={"dataset": settings, "pre_gen_data": settings.pre_gen_data})


def _read(own: Config, settings: SourceConfig, dataset: PedesDataset) -> tuple[list[Path], list[str]]:
    """The source's images and a caption of each; `own` is `_of_source`."""
    try:
        source = open_dataset(own)
        images, captions = _captioned(source, own, settings)
    except UserError as error:
        raise UserError(f"cluster.source: {error}") from None
    paths = _paths(source, images)
    everybody = [record.image for name in ("train", "val", "test") for record in dataset.split(name)]
    if shared := set(paths).intersection(_paths(dataset, everybody)):
        raise UserError(
            f"cluster.source is to be another data set, and {len(shared)} of its images are in the one that is clustered, too "
            f"(such as {min(shared)}): name another root, or none."
        )
    return paths, captions


def _paths(dataset: PedesDataset, images: Sequence[str]) -> list[Path]:
    root = dataset.image_root.resolve()
    return [root / image for image in images]


def _clusters(config: Config) -> bool:
    """Whether training makes pseudo labels."""
    wanted = config.cluster.enabled and config.train.rounds > 0 and config.train.data != "synthetic"
    return wanted and supervision(config) in ("pseudo", "pairs")


def _captioned(source: PedesDataset, config: Config, settings: SourceConfig) -> tuple[list[str], list[str]]:
    """The training images that have captions, and of each the one that is encoded."""
    if settings.captions == "generated":
        material = generated_material(source, config)
        images = [path.relative_to(source.image_root).as_posix() for path in material.images]
        return images, material.cluster_texts
    view = CaptionedImages(source)
    if not view.images:
        raise UserError(
            f"{settings.label} has no captions of its own: set cluster.source.captions=generated, with captions made by "
            "gen_text.py."
        )
    return list(view.images), [captions[0] for captions in view.captions]
