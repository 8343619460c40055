"""Finding images in an index: by a sentence, with or without ITM re-ranking, and by another image of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.errors import UserError
from engine.log import LOGGER
from retrieval.encode import Gallery, TokenStore, encode_gallery, encode_queries
from retrieval.itm import cosine, rerank
from retrieval.verbs import RetrievalModel, device_of
from serving.crop_table import Origin
from serving.index import SearchIndex
from serving.origins import EVERYTHING, Wanted
from serving.store import Indexed

QUERY_LENGTH = 500  # characters; the model reads the first 72 words
MOST_HITS = 1000
_BATCH = 32  # images encoded at once


@dataclass(frozen=True)
class Hit:
    """An image that was found: its row in the index, its path below the image folder, and its scores.

    `similarity` is the cosine of both features. `match` is ITM logit + cosine, what re-ranked images are ordered by;
    None where nothing was re-ranked. `origin` is where the image is from, if the index knows it.
    """

    row: int
    image: str
    similarity: float
    match: float | None = None
    origin: Origin | None = None

    @property
    def score(self) -> float:
        """What the image's place comes from."""
        return self.similarity if self.match is None else self.match


def checked_query(text: str) -> str:
    """The query without spaces around it; UserError for one without a letter or digit, and for one that is too long."""
    text = " ".join(str(text).split())
    if not any(character.isalnum() for character in text):
        raise UserError("The query has no word in it: describe a person, as in 'a woman in a red coat'.")
    if len(text) > QUERY_LENGTH:
        raise UserError(f"The query has {len(text)} characters: use at most {QUERY_LENGTH}.")
    return text


class Searcher:
    """Searches an index with the model that it was made with.

    `look` opens an image of the index (a path below its image folder) as the model takes it, (3, H, W), or raises UserError:
    re-ranking needs it where the index keeps no tokens.
    """

    def __init__(
        self,
        index: SearchIndex,
        model: RetrievalModel,
        look: Callable[[SearchIndex, str], Tensor] | None = None,
    ) -> None:
        self.index, self.model, self._look = index, model, look

    @property
    def can_rerank(self) -> bool:
        """Whether the model reads a sentence and an image together."""
        return self.model.has_matching

    def by_sentence(
        self, text: str, top: int = 10, rerank_best: int = 0, wanted: Wanted = EVERYTHING
    ) -> list[Hit]:
        """The `top` images for a sentence, best first.

        The `rerank_best` most similar ones are put into the order of their ITM logit + cosine and stand before the
        others, as in the evaluation; 0 leaves the order of the features alone. `wanted` leaves images out beforehand.
        Raises UserError for a query, a number or a filter that can't be used, and for re-ranking by a model without matching.
        """
        text = checked_query(text)
        _check_count("top", top, 1)
        _check_count("the number of re-ranked images", rerank_best, 0)
        if rerank_best and not self.can_rerank:
            raise UserError(
                "This index's model compares features alone and can't re-rank: search without re-ranking (--rerank)."
            )
        feature = encode_queries(self.model, [text])
        hits = _hits(self.index.nearest(feature[0].numpy(), max(top, rerank_best), wanted))
        if rerank_best and hits:
            hits[:rerank_best] = self._reranked(text, feature, hits[:rerank_best])
        return hits[:top]

    def like(self, hit: Hit, top: int = 10, wanted: Wanted = EVERYTHING) -> list[Hit]:
        """The `top` images whose features are most similar to those of an image found before, without that image.

        `wanted` is as in `by_sentence`.

        Raises UserError for an image that is no longer in the index.
        """
        _check_count("top", top, 1)
        if not self.index.holds(hit.row, hit.image):
            raise UserError(f"{hit.image} is no longer in the index: search again.")
        hits = _hits(self.index.nearest(self.index.feature(hit.row), top + 1, wanted))
        return [other for other in hits if other.row != hit.row][:top]

    def _reranked(self, text: str, feature: Tensor, hits: list[Hit]) -> list[Hit]:
        """The same images in the order of ITM logit + cosine; behind them those whose tokens nobody keeps and whose files are gone."""
        if self.index.has_tokens:
            gallery, left = self._kept(hits), []
        else:
            hits, pixels, left = self._looked_at(hits)
            if not hits:
                return left
            batches = (torch.stack(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
            gallery = encode_gallery(self.model, batches, len(pixels))
        with gallery:
            device = device_of(self.model)
            similarity = cosine(feature.to(device), gallery.features.to(device))
            ranked = rerank(self.model, [text], gallery, similarity, len(hits))
        return [
            replace(hits[place], match=float(score))
            for place, score in zip(ranked.indices[0], ranked.scores[0], strict=True)
        ] + left

    def _kept(self, hits: list[Hit]) -> Gallery:
        """The images as the index keeps them."""
        rows = np.array([hit.row for hit in hits])
        store = TokenStore((len(rows), *self.index.header["tokens"]))
        store.write(0, torch.from_numpy(self.index.tokens(rows)))
        return Gallery(torch.from_numpy(self.index.features(rows)), store)

    def _looked_at(self, hits: list[Hit]) -> tuple[list[Hit], list[Tensor], list[Hit]]:
        """Those whose images open, the images, and the others."""
        seen, pixels, left = [], [], []
        for hit in hits:
            try:
                pixels.append(self._look(self.index, hit.image))
                seen.append(hit)
            except UserError as error:
                LOGGER.warning("Not re-ranked: %s", error)
                left.append(hit)
        return seen, pixels, left


def _hits(found: Iterable[tuple[Indexed, float]]) -> list[Hit]:
    return [Hit(one.row, one.image, similarity, origin=one.origin) for one, similarity in found]


def _check_count(name: str, value: int, least: int) -> None:
    if not least <= value <= MOST_HITS:
        raise UserError(f"{name} is {value}: give a number from {least} to {MOST_HITS}.")
