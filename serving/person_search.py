"""Three lines from Python: a model by name that encodes images and sentences and searches an index (see `hubconf.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.errors import UserError
from data.images import read_image, resize, rgb
from data.transforms import normalise
from engine import checkpoints
from engine.building import pixels_of
from engine.machine import lone_machine
from engine.opening import Opened, open_model
from retrieval.encode import encode_gallery, encode_queries
from retrieval.verbs import device_of
from serving.explaining import word_maps
from serving.explanation_picture import explanation_picture
from serving.index import CHECKPOINT, SearchIndex
from serving.indexing import digest_of
from serving.opening import decoder, looker
from serving.searcher import Searcher, checked_query

_BATCH = 32


@dataclass(frozen=True)
class Found:
    """An image that a search has found.

    `score` is what its place comes from: the cosine, or ITM logit + cosine where it was re-ranked; `cosine` is always the former.
    """

    path: Path
    score: float
    cosine: float


class PersonSearch:
    """A model that compares images of persons with sentences.

    Args:
        checkpoint: a training's `best.pth`, a published folder, released weights of BLIP or CLIP, or a hub's name
            (`hf:OWNER/NAME`).
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: of the network's body, "auto", "fp32" or "bf16"; features are float32 in any case.

    Attributes:
        model: the torch module, in evaluation mode.
        image_size: (height, width) in pixels that images are resized to.
        feature_size: F.

    Raises UserError (a ValueError) for a model that can't be had or read, and for a device that is not there.
    """

    def __init__(self, checkpoint: str | Path, *, device: str = "auto", precision: str = "auto") -> None:
        machine = lone_machine(device, precision)
        self._opened: Opened = open_model(checkpoint)
        self.model: torch.nn.Module = machine.for_use(self._opened.model).place(self._opened.model)
        self.image_size: tuple[int, int] = tuple(self._opened.content["image_size"])
        self._searchers: dict[Path, Searcher] = {}
        self.feature_size: int = self.encode_texts(["a person"]).shape[1]

    def __repr__(self) -> str:
        content = self._opened.content
        return f"PersonSearch({self._opened.source}: {content['method']} {content['size']}, {self.image_size} px, {device_of(self.model)})"

    @property
    def can_rerank(self) -> bool:
        """Whether the model reads a sentence and an image together."""
        return self.model.has_matching

    def encode_images(self, images: Sequence[str | Path | Image.Image]) -> Tensor:
        """L2-normalised features (N, F), float32 on the CPU, of files or PIL images with one person in each.

        Raises UserError for an image that does not open, and TypeError for anything else than paths and PIL images.
        """
        images = [images] if isinstance(images, (str, Path, Image.Image)) else list(images)
        if not images:
            return torch.empty(0, self.feature_size)
        with encode_gallery(self.model, self._batches(images), len(images), token_dtype=None) as gallery:
            return gallery.features.clone()

    def _batches(self, images: Sequence[str | Path | Image.Image]) -> Iterator[Tensor]:
        pixels, device = pixels_of(self.model), device_of(self.model)
        for start in range(0, len(images), _BATCH):
            read = [_read(image) for image in images[start : start + _BATCH]]
            values = np.stack([resize(image, self.image_size, pixels.interpolation) for image in read])
            yield normalise(torch.from_numpy(values), statistics=pixels.statistics).to(device)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised features (N, F), float32 on the CPU, of English sentences; their product with images' is the cosine.

        Raises UserError for a sentence without a word, and for one that is too long.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return torch.empty(0, self.feature_size)
        return encode_queries(self.model, [checked_query(text) for text in texts])

    def search(self, sentence: str, index: str | Path, *, top: int = 10, rerank: int = 0) -> list[Found]:
        """The `top` images for a sentence, best first, of an index that `search.py index` made with this model.

        Args:
            rerank: so many of the most similar ones are put into the order of their ITM logit + cosine, before the others.

        Raises UserError for an index of another model, one that is not finished, and for a query or number that can't be used.
        """
        searcher = self._searcher(Path(index))
        root = searcher.index.root
        return [
            Found(root / hit.image, hit.score, hit.similarity)
            for hit in searcher.by_sentence(sentence, top, rerank)
        ]

    def explain(self, sentence: str, image: str | Path | Image.Image) -> Image.Image:
        """A picture of which regions of an image each word of a sentence goes with (docs/search.md says what it does not show).

        Raises UserError for an image that does not open and a sentence without a word, and TypeError as `encode_images`.
        """
        crop, sentence = _read(image), checked_query(sentence)
        name = Path(image).name if isinstance(image, (str, Path)) else ""
        return explanation_picture(crop, sentence, name, word_maps(self.model, sentence, crop))

    def _searcher(self, directory: Path) -> Searcher:
        directory = directory.resolve()
        known = self._searchers.get(directory)
        if known is None or known.index.is_outdated():
            found = SearchIndex(directory)
            if known is None:
                self._check_same_model(found)
            else:
                known.index.close()
            look = looker(decoder(self.image_size, pixels_of(self.model)))
            known = self._searchers[directory] = Searcher(found, self.model, look)
        return known

    def _check_same_model(self, index: SearchIndex) -> None:
        """By the file that the index was made from; where that is another, as of a model that was published since, by its weights."""
        if index.header["checkpoint"] == digest_of(self._opened.weights):
            return
        theirs, ours = checkpoints.load(index.directory / CHECKPOINT), self._opened.content
        described = ("method", "size", "image_size", "options", "vocabulary")
        if not (
            all(theirs[name] == ours[name] for name in described)
            and theirs["model"].keys() == ours["model"].keys()
            and all(
                torch.equal(tensor, ours["model"][name].cpu()) for name, tensor in theirs["model"].items()
            )
        ):
            raise UserError(
                f"The index {index.directory} was made with another model than {self._opened.source}: make one with "
                "python search.py index --checkpoint, or open its own model."
            )


def _read(image: str | Path | Image.Image) -> Image.Image:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return rgb(image)
    raise TypeError(f"an image is a path or a PIL image, not a {type(image).__name__}")
