"""Why an image was found: which of its regions each word of the sentence goes with, as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.errors import UserError
from data.images import resize
from data.transforms import normalise
from engine.building import pixels_of
from engine.log import LOGGER
from retrieval.pictures import save_small
from retrieval.verbs import RetrievalModel, inference
from serving.explanation_picture import Maps, explanation_picture
from serving.opening import open_image
from serving.searcher import Hit, Searcher, checked_query


def word_maps(model: RetrievalModel, sentence: str, crop: Image.Image) -> Maps:
    """What the model says of one image and one sentence.

    Args:
        model: any; each backbone has its own way, which `models.word_maps` names.
        sentence: as in a search.
        crop: RGB, of any size.

    Raises UserError for a sentence without a word, and for one that is too long.
    """
    pixels = pixels_of(model)
    values = resize(crop, model.image_size, pixels.interpolation)
    images = normalise(torch.from_numpy(np.stack([values])), statistics=pixels.statistics)
    with inference(model) as device:
        return model.word_maps(images.to(device), [checked_query(sentence)])[0]


def explain(searcher: Searcher, sentence: str, hit: Hit) -> Image.Image:
    """The picture for an image of the index.

    Raises UserError for an image that is gone or does not open any more, and as `word_maps`.
    """
    crop = open_image(searcher.index, hit.image)
    return explanation_picture(crop, sentence, hit.image, word_maps(searcher.model, sentence, crop))


def draw_explanations(
    searcher: Searcher, sentence: str, hits: Sequence[Hit], folder: Path
) -> Iterator[Path | None]:
    """Writes a picture for each hit, `001.jpg` for the first, and yields its path; None for an image that is gone.

    Pictures of that name are replaced.

    Raises UserError where the folder can't be written.
    """
    for place, hit in enumerate(hits, 1):
        path = folder / f"{place:03d}.jpg"
        try:
            picture = explain(searcher, sentence, hit)
        except UserError as error:
            LOGGER.warning("%s can't be explained: %s", hit.image, error)
            yield None
            continue
        try:
            save_small(picture, path)
        except OSError as error:
            raise UserError(
                f"The explanation {path} can't be written ({error.strerror}): name another folder."
            ) from None
        yield path
