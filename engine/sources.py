"""What the stages read: the data set, its images, the generated captions, the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from captioning.files import CAPTIONS, FIXED_CAPTIONS, Caption, load_captions, load_fixed_captions
from data import PedesDataset, load_dataset
from data.errors import UserError
from data.views import UnlabelledImages
from engine import checkpoints, distributed
from engine.config import Config
from engine.hub import located
from engine.log import LOGGER
from models.texts import TextTokenizer
from synthesis.demo import make_demo

Content = TypeVar("Content")


def open_dataset(config: Config) -> PedesDataset:
    """The configured data set; demo pedestrians are drawn first where the configuration asks for them.

    Raises:
        UserError: a bare folder that nobody named, or a data set that can't be read.
    """
    settings = config.dataset
    if settings.name == "folder" and "root" not in settings.model_fields_set:
        raise UserError(
            "dataset.root is not set: say which folder of person crops is meant, such as "
            "--set dataset.root=DIR dataset.tag=NAME."
        )
    if settings.synthesis is not None:
        with distributed.main_first():
            if distributed.is_main():
                make_demo(
                    settings.root,
                    fmt=settings.name,
                    workers=config.runtime.workers,
                    **settings.synthesis.model_dump(),
                )
    return load_dataset(settings.name, settings.root)


def open_synthetic(config: Config) -> PedesDataset:
    """The synthetic data set of the configuration (`gen_images`).

    Raises:
        UserError: it is not there, or damaged, or has no training image with a caption.
    """
    root = config.gen_images.root
    dataset = load_dataset("synthetic", root)
    if not any(record.captions for record in dataset.train):
        raise UserError(
            f"The synthetic data set in {root} has no training image with a caption: make it with gen_images.py."
        )
    return dataset


def training_images(dataset: PedesDataset) -> list[str]:
    """The training images' paths, relative to the image folder: all that unsupervised training may see."""
    images = list(UnlabelledImages(dataset, "train"))
    if not images:
        raise UserError(f"The data set under {dataset.image_root} has no training images.")
    return images


def generated_captions(config: Config, images: Sequence[str]) -> dict[str, Caption]:
    """Stage C's captions of these images, by image path; images without one are counted and left out.

    Raises:
        UserError: the file is missing, or holds none of these images.
    """
    path = config.caption_directory / CAPTIONS
    return _of_images(load_captions(path), images, path)


def fixed_captions(config: Config, images: Sequence[str]) -> dict[str, str]:
    """The texts in the fixed style of these images, by image path; images without one are counted and left out.

    Raises:
        UserError: the file is missing, or holds none of these images.
    """
    path = config.caption_directory / FIXED_CAPTIONS
    return _of_images(load_fixed_captions(path), images, path)


def _of_images(known: Mapping[str, Content], images: Sequence[str], path: Path) -> dict[str, Content]:
    found = {image: known[image] for image in images if image in known}
    if not found:
        raise UserError(
            f"{path} has captions, but for none of the {len(images)} training images of this data set."
        )
    if len(found) < len(images):
        LOGGER.warning(
            "%d of %d training images have no caption and are left out.",
            len(images) - len(found),
            len(images),
        )
    return found


def named_tokenizer(kind: type[TextTokenizer], named: str) -> TextTokenizer:
    """The vocabulary of a file, a folder, a hub's name or a checkpoint of this project (.pth)."""
    path = located(named, vocabulary=kind.file)
    return checkpoints.load_vocabulary(kind, path) if path.suffix == ".pth" else kind.load(path)


def open_tokenizer(
    kind: type[TextTokenizer], named: str, captions: Sequence[str], directory: Path, size: int
) -> TextTokenizer:
    """A vocabulary from a file, a folder or a hub, or one trained on ``captions`` once.

    Args:
        named: the vocabulary's file or folder, a hub's name, or a checkpoint of this project (.pth), whose vocabulary is
            taken; empty: it is trained.
        directory: where a trained vocabulary is kept.
        size: of a trained vocabulary, in entries.
    """
    if named:
        return named_tokenizer(kind, named)
    with distributed.main_first():
        if distributed.is_main() and not (directory / kind.file).exists():
            kind.train(list(captions), directory, vocab_size=size)
    return kind.load(directory)


def say_what_is_cut(tokenizer: TextTokenizer, captions: Sequence[str], whose: str) -> None:
    """Log how many captions are longer than the text encoder reads: their ends say nothing to the model."""
    if cut := tokenizer.cut(captions):
        LOGGER.warning(
            "%d of %d %s captions are longer than the text encoder reads; their ends are left out.",
            cut,
            len(captions),
            whose,
        )
