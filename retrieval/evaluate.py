"""Evaluation of a model on queries and a gallery, with and without ITM re-ranking, in bounded memory.

Neither the image tokens (half precision, on disk when large) nor the score matrix (made block by block) are ever held
as a whole, so ICFG-PEDES' 19,848 images and as many queries fit in 8 GB. Processes of a run share all of it: images, texts,
pairs and rows of scores, and each ends with the whole result.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retrieval.division import ALONE, Division, Processes
from retrieval.encode import MEMORY_LIMIT, Progress, encode_gallery, encode_queries
from retrieval.itm import Reranked, Similarity, cosine, merged, rerank, row_blocks
from retrieval.metrics import QueryRanks, check_hits, rank_queries
from retrieval.verbs import RetrievalModel, TokenisedCaptions, device_of

LIST_LENGTH = 10


@dataclass(frozen=True)
class Ranking:
    """One ranking of the gallery for every query.

    Attributes: `metrics` in percent; `first_hit` (Q,) int64 rank from 1; `average_precision` (Q,) in [0, 1];
    `indices` (Q, <= 10) int64 of the best gallery images, best first, and their `scores`.
    """

    metrics: dict[str, float]
    first_hit: np.ndarray
    average_precision: np.ndarray
    indices: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """`cosine` ranks by features alone, `reranked` by ITM logit + cosine on top of it (None where nothing is matched)."""

    cosine: Ranking
    reranked: Ranking | None
    queries: int
    gallery: int
    seconds: float

    @property
    def itc(self) -> dict[str, float]:
        """Metrics in percent without ITM re-ranking."""
        return self.cosine.metrics

    @property
    def itm(self) -> dict[str, float] | None:
        """Metrics in percent with ITM re-ranking."""
        return None if self.reranked is None else self.reranked.metrics

    @property
    def best(self) -> Ranking:
        """The re-ranked ranking where there is one."""
        return self.reranked or self.cosine


@dataclass(frozen=True)
class StyleTexts:
    """Texts of TSN's MSM protocol (methods page of TSN): queries and gallery images in one fixed style.

    score(q, g) = (1 - weight) cos(t_q, v_g) + weight cos(t_norm(q), t_gen(g)); a pair of which either text is empty
    keeps cos(t_q, v_g). This protocol reads the gallery with a captioner: never report it as the plain one.
    """

    queries: Sequence[str]
    gallery: Sequence[str]
    weight: float = 0.1


def evaluate(
    model: RetrievalModel,
    image_batches: Iterable[Tensor],
    captions: Sequence[str],
    query_ids: Sequence[int] | np.ndarray,
    gallery_ids: Sequence[int] | np.ndarray,
    *,
    k_test: int = 32,
    style: StyleTexts | None = None,
    text_batch_size: int = 256,
    token_dtype: torch.dtype = torch.float16,
    directory: str | Path | None = None,
    memory_limit: int = MEMORY_LIMIT,
    division: Division | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Ranks the gallery for every caption and measures it.

    Args:
        image_batches: (B, 3, H, W) normalised images in the order of `gallery_ids` (G,).
        captions, query_ids: (Q,).
        k_test: images per query that ITM re-ranks; 0 for none, and none by a model without matching.
        style: the MSM protocol's texts, where that is asked for.
        directory: where image tokens beyond `memory_limit` bytes lie, in a temporary file.
        division: divides the images over processes that all call this with their own `image_batches` and the same texts;
            None: there is one process.
        progress: called with (done, total) of this process's images, then of its queries, then of its ITM pairs.

    Raises:
        ValueError: counts differ or a query has no image in the gallery; before anything is encoded.
    """
    started = time.monotonic()
    query_ids, gallery_ids = np.asarray(query_ids, np.int64), np.asarray(gallery_ids, np.int64)
    if len(captions) != len(query_ids):
        raise ValueError(f"There are {len(captions)} captions but {len(query_ids)} query identities.")
    check_hits(query_ids, gallery_ids)
    division = Division(len(gallery_ids)) if division is None else division
    processes = division.processes
    k_test = k_test if model.has_matching else 0
    texts = TokenisedCaptions(model, captions)
    with encode_gallery(
        model,
        image_batches,
        division,
        token_dtype=token_dtype if k_test else None,
        directory=directory,
        memory_limit=memory_limit,
        progress=progress,
    ) as gallery:
        features = encode_queries(model, texts, text_batch_size, processes=processes, progress=progress)
        device = device_of(model)
        similarity = cosine(features.to(device), gallery.features.to(device))
        if style is not None:
            similarity = style_similarity(model, similarity, style, len(texts), len(gallery), processes)
        reranked = rerank(model, texts, gallery, similarity, k_test, progress=progress) if k_test else None
    plain, best = _rank(similarity, reranked, query_ids, gallery_ids, processes)
    return Evaluation(plain, best, len(query_ids), len(gallery_ids), time.monotonic() - started)


def style_similarity(
    model: RetrievalModel,
    plain: Similarity,
    style: StyleTexts,
    queries: int,
    gallery: int,
    processes: Processes = ALONE,
) -> Similarity:
    """Rows of the MSM protocol's score matrix; `plain` gives rows of cos(t_q, v_g).

    Raises ValueError when the texts' counts differ from queries and gallery or the weight is outside [0, 1].
    """
    if len(style.queries) != queries or len(style.gallery) != gallery:
        raise ValueError(
            f"MSM needs one text per query and per gallery image: {len(style.queries)} texts for {queries} queries, "
            f"{len(style.gallery)} texts for {gallery} images; give an empty text where there is none."
        )
    if not 0.0 <= style.weight <= 1.0:
        raise ValueError(f"MSM's weight is {style.weight}; it is a share between 0 and 1.")
    device = device_of(model)
    styled = cosine(
        encode_queries(model, style.queries, processes=processes).to(device),
        encode_queries(model, style.gallery, processes=processes).to(device),
    )
    has_query = torch.tensor([bool(text.strip()) for text in style.queries], device=device)
    has_gallery = torch.tensor([bool(text.strip()) for text in style.gallery], device=device)

    def rows(block: slice) -> Tensor:
        weight = style.weight * (has_query[block, None] & has_gallery[None, :])
        return (1 - weight) * plain(block) + weight * styled(block)

    return rows


def _rank(
    similarity: Similarity,
    reranked: Reranked | None,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    processes: Processes,
) -> tuple[Ranking, Ranking | None]:
    """Both rankings, from blocks of the score matrix that the processes share."""
    queries = row_blocks(len(query_ids), len(gallery_ids), processes)
    plain, best = _Collector(queries), _Collector(queries)
    for rows in queries.pieces():
        scores = similarity(rows)
        plain.add(scores, query_ids[rows], gallery_ids)
        if reranked is not None:
            best.add(merged(scores, reranked, rows), query_ids[rows], gallery_ids)
    if reranked is None:
        return plain.ranking(), None
    return plain.ranking(), best.ranking(reranked)


class _Collector:
    """Gathers what a ranking keeps of each block of scores; `queries` says whose block is whose."""

    def __init__(self, queries: Division) -> None:
        self._queries = queries
        self._ranks: list[QueryRanks] = []
        self._indices: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def add(self, scores: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> None:
        """Ranks one block of queries: scores (B, G)."""
        self._ranks.append(rank_queries(scores, query_ids, gallery_ids))
        best = scores.topk(min(LIST_LENGTH, scores.shape[1]), dim=1)
        self._indices.append(best.indices.cpu().numpy())
        self._scores.append(best.values.cpu().numpy())

    def ranking(self, reranked: Reranked | None = None) -> Ranking:
        """The whole; re-ranked images are listed with their own scores rather than the shifted ones."""
        ranks = QueryRanks.cat(self._ranks, self._queries.gather)
        indices, scores = self._queries.gather(self._indices), self._queries.gather(self._scores)
        if reranked is not None:
            width = min(indices.shape[1], reranked.indices.shape[1])
            indices[:, :width] = reranked.indices[:, :width]
            scores[:, :width] = reranked.scores[:, :width]
        return Ranking(ranks.summary(), ranks.first_hit, ranks.average_precision, indices, scores)
