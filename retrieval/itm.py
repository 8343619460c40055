"""Image-text matching over many pairs: re-ranking of a gallery, and the candidates of the label correction.

What makes it fast, with scores equal to those of a loop over queries: every caption is tokenised once; pairs are
batched across queries and padded only to their batch's longest text; the pairs of an image sit in the same batch, so
that the model projects its keys and values once for all of them; image tokens stream through in blocks. Of a divided
gallery each process matches the pairs of the images whose tokens it holds: tokens never leave their process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from retrieval.division import ALONE, Division, Processes, assembled
from retrieval.encode import Gallery, Progress
from retrieval.memory import in_portions
from retrieval.verbs import (
    MatchingModel,
    RetrievalModel,
    TokenisedCaptions,
    device_of,
    inference,
    precision_of,
)

Similarity = Callable[[slice], Tensor]  # rows of a score matrix, computed when asked for

_BLOCK_BYTES = 256 << 20  # image tokens on the device at a time
_MAX_BANDS = 6
_BLOCK_ENTRIES = 1 << 24  # scores of a matrix held at a time
_BLOCK_ROWS = 128  # few, so that they divide evenly over many processes
# Keys and values of one image token cost 2 products with a D x D matrix in every layer, one text token costs 14
# (8 in self- and cross-attention less those keys and values, 8 in the feed-forward part).
_IMAGE_TOKEN_COST = 2 / 14
# What a column of padding costs, in text tokens: on a CPU the text stack computes attention alone on it.
_PADDING_COST = {"cpu": 0.2, "cuda": 1.0}


@dataclass(frozen=True)
class Reranked:
    """The images re-ranked for each query: `indices` (Q, k) int64 and `scores` (Q, k) float32, best first."""

    indices: np.ndarray
    scores: np.ndarray


def score_pairs(
    model: MatchingModel,
    captions: Sequence[str] | TokenisedCaptions,
    gallery: Gallery,
    pairs: np.ndarray,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """The ITM logit "match" of every pair.

    Args:
        pairs: (P, 2) integers, each [caption, image].
        batch_size: pairs per call of the model; by default as many as keep the gathered keys and values small.
        progress: called with (pairs done, all) of this process's pairs.

    Returns:
        (P,) float32, on every process of a divided gallery.

    Raises:
        ValueError: indices outside captions or gallery, or a gallery without tokens.
    """
    division = gallery.division
    if gallery.tokens is None and len(division.rows()):
        raise ValueError(
            "This gallery was encoded without image tokens; encode it with a token_dtype to match pairs."
        )
    texts = captions if isinstance(captions, TokenisedCaptions) else TokenisedCaptions(model, captions)
    pairs = _checked(pairs, len(texts), len(gallery))
    owners = division.owners(pairs[:, 1])
    own = _score_own(model, texts, gallery, pairs[owners == division.processes.rank], batch_size, progress)
    return assembled(division.processes, owners, [own])


def _score_own(
    model: MatchingModel,
    texts: TokenisedCaptions,
    gallery: Gallery,
    pairs: np.ndarray,
    batch_size: int | None,
    progress: Progress | None,
) -> np.ndarray:
    """Logits (P,) of pairs (P, 2) whose images' tokens this process holds."""
    logits = np.empty(len(pairs), np.float32)
    done = 0
    if not len(pairs):  # nor need there be tokens
        return logits
    with inference(model) as device:
        batch_size = batch_size or _default_batch(gallery, device)
        for members in _image_blocks(pairs[:, 1], gallery):
            images, local = np.unique(pairs[members, 1], return_inverse=True)
            tokens = gallery.tokens.read(gallery.division.places(images)).to(device, non_blocking=True)
            scored: list[tuple[np.ndarray, Tensor]] = []
            for batch in _batches(texts.lengths[pairs[members, 0]], local, batch_size, tokens):
                match = partial(_match, model, texts, pairs[members[batch], 0], tokens, local[batch])
                scored.append((members[batch], torch.cat([*in_portions(model, "pairs", len(batch), match)])))
                if progress is not None:
                    done += len(batch)
                    progress(done, len(pairs))
            # Read back once per block: the device is not waited for in between.
            for positions, values in scored:
                logits[positions] = values.cpu().numpy()
    return logits


def _checked(pairs: np.ndarray, captions: int, images: int) -> np.ndarray:
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    for column, size, what in ((0, captions, "captions"), (1, images, "gallery images")):
        if len(pairs) and (pairs[:, column].min() < 0 or pairs[:, column].max() >= size):
            raise ValueError(
                f"Some pairs point outside the {size} {what}; pairs are [caption, image] indices."
            )
    return pairs


def _default_batch(gallery: Gallery, device: torch.device) -> int:
    """Pairs per call, such that one layer's keys and values of all pairs stay in cache (CPU) or memory (GPU)."""
    _, tokens, width = gallery.tokens.shape
    budget = (4 << 30) if device.type == "cuda" else (5 << 20)
    return int(np.clip(budget // (2 * 4 * tokens * width), 32, 4096))


def _image_blocks(images: np.ndarray, gallery: Gallery) -> Iterator[np.ndarray]:
    """Positions of pairs, grouped by blocks of images whose tokens fit on the device together."""
    _, tokens, width = gallery.tokens.shape
    block = max(1, _BLOCK_BYTES // (tokens * width * gallery.tokens.dtype.itemsize))
    order = np.argsort(images, kind="stable")
    _, starts = np.unique(images[order], return_index=True)
    yield from np.split(order, starts[block::block]) if len(order) else ()


def _batches(
    lengths: np.ndarray, images: np.ndarray, batch_size: int, tokens: Tensor
) -> Iterator[np.ndarray]:
    """Positions of pairs in batches: by bands of text length, within a band by image.

    Few bands pad short texts to long ones, many bands project an image's keys and values again in each: the cheapest
    number is counted out.
    """
    by_length = np.argsort(lengths, kind="stable")
    options = [np.array_split(by_length, count) for count in range(1, min(_MAX_BANDS, len(lengths)) + 1)]

    def cost(bands: list[np.ndarray]) -> float:
        padding = sum(int((lengths[band[-1]] - lengths[band]).sum()) for band in bands)
        projected = sum(len(np.unique(images[band])) for band in bands) * tokens.shape[1]
        return _PADDING_COST.get(tokens.device.type, 1.0) * padding + _IMAGE_TOKEN_COST * projected

    for band in min(options, key=cost):
        by_image = band[np.argsort(images[band], kind="stable")]
        yield from np.array_split(by_image, -(-len(band) // batch_size))


def _match(
    model: MatchingModel,
    texts: TokenisedCaptions,
    captions: np.ndarray,
    tokens: Tensor,
    images: np.ndarray,
    part: slice,
) -> Tensor:
    """Logits "match" of the pairs captions[part], images[part]; each image of them is handed over once."""
    rows, index = np.unique(images[part], return_inverse=True)
    chosen = tokens[torch.from_numpy(rows).to(tokens.device)]
    chosen = chosen.to(precision_of(model))
    batch = texts.select(captions[part], tokens.device)
    return model.match(batch, chosen, torch.from_numpy(index).to(tokens.device))[:, 1].float()


def cosine(text_features: Tensor, image_features: Tensor) -> Similarity:
    """Rows of the cosine matrix of normalised features (Q, F) and (G, F), float32, computed when asked for."""
    text_features, image_features = text_features.float(), image_features.float()

    def rows_of(rows: slice) -> Tensor:
        # Cosines of a trained model lie within a few hundredths: in bfloat16 many would tie, and ties count against a hit.
        with torch.autocast(text_features.device.type, enabled=False):
            return text_features[rows] @ image_features.T

    return rows_of


def row_blocks(queries: int, gallery: int, processes: Processes = ALONE) -> Division:
    """The rows of a (Q, G) score matrix in blocks that fit in memory."""
    return Division(queries, min(max(1, _BLOCK_ENTRIES // gallery), _BLOCK_ROWS), processes)


def top(
    similarity: Similarity, queries: int, gallery: int, k: int, processes: Processes = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (Q, k) int64 and scores (Q, k) float32 of each query's k best, best first; `processes` share the rows."""
    rows = row_blocks(queries, gallery, processes)
    found = [similarity(block).topk(k, dim=1) for block in rows.pieces()]
    indices = rows.gather([part.indices.cpu().numpy() for part in found])
    return indices, rows.gather([part.values.cpu().numpy() for part in found])


def rerank(
    model: MatchingModel,
    captions: Sequence[str] | TokenisedCaptions,
    gallery: Gallery,
    similarity: Similarity,
    k_test: int,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Reranked:
    """Each query's `k_test` most similar images, ordered by ITM logit + similarity.

    `similarity` gives rows of the (Q, G) matrix (see `cosine`); a `k_test` beyond the gallery takes all of it.
    Images outside the k_test keep their order behind these: `merged` writes that down.
    """
    texts = captions if isinstance(captions, TokenisedCaptions) else TokenisedCaptions(model, captions)
    if k_test < 1:
        raise ValueError(f"k_test is {k_test}; re-ranking takes at least 1 image per query.")
    k = min(k_test, len(gallery))
    indices, scores = top(similarity, len(texts), len(gallery), k, gallery.division.processes)
    pairs = np.stack([np.repeat(np.arange(len(texts)), k), indices.ravel()], axis=1)
    logits = score_pairs(model, texts, gallery, pairs, batch_size=batch_size, progress=progress)
    return _best(indices, scores + logits.reshape(indices.shape), k)


def merged(similarity: Tensor, reranked: Reranked, rows: slice) -> Tensor:
    """Scores (B, G) whose order is the re-ranked one: re-ranked images above the rest, the rest by similarity.

    The re-ranked scores are shifted above the row's best similarity; the rest stays untouched, so that no close
    similarities melt into ties.
    """
    scores = torch.from_numpy(reranked.scores[rows]).to(similarity.device)
    indices = torch.from_numpy(reranked.indices[rows]).to(similarity.device)
    above = similarity.amax(dim=1, keepdim=True) + 1.0
    return similarity.scatter(1, indices, scores - scores.amin(dim=1, keepdim=True) + above)


def candidates(
    model: RetrievalModel,
    captions: Sequence[str] | TokenisedCaptions,
    gallery: Gallery,
    text_features: Tensor,
    k_tests: int = 26,
    k: int = 20,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Matched candidates of the label correction, in both directions.

    For each image the `k_tests` texts of the largest cosine are re-scored by ITM logit + cosine and the best `k` kept,
    and the same from texts to images. A pair that is a candidate in both directions is scored once.
    A model without matching keeps the `k` of the largest cosine.

    Args:
        text_features: (N, F) L2-normalised features of `captions`, as of `encode_queries`.

    Returns:
        image_to_text (G, k) and text_to_image (N, k), int64, best first; with fewer than k texts or images, as many as
        there are.

    Raises:
        ValueError: unless 1 <= k <= k_tests.
    """
    if not 1 <= k <= k_tests:
        raise ValueError(f"k is {k} and k_tests is {k_tests}; keep between 1 and k_tests candidates.")
    texts = captions if isinstance(captions, TokenisedCaptions) else TokenisedCaptions(model, captions)
    n_texts, n_images = len(texts), len(gallery)
    t, v = text_features.to(device_of(model)), gallery.features.to(device_of(model))
    processes = gallery.division.processes
    t_index, t_cosine = top(cosine(v, t), n_images, n_texts, min(k_tests, n_texts), processes)
    i_index, i_cosine = top(cosine(t, v), n_texts, n_images, min(k_tests, n_images), processes)
    if not model.has_matching:
        return t_index[:, :k], i_index[:, :k]
    image_keys = t_index * n_images + np.arange(n_images)[:, None]
    text_keys = np.arange(n_texts)[:, None] * n_images + i_index
    keys, inverse = np.unique(np.concatenate([image_keys.ravel(), text_keys.ravel()]), return_inverse=True)
    pairs = np.stack(np.divmod(keys, n_images), axis=1)
    logits = score_pairs(model, texts, gallery, pairs, batch_size=batch_size, progress=progress)[inverse]
    to_text, to_image = np.split(logits, [image_keys.size])
    return (
        _best(t_index, t_cosine + to_text.reshape(t_index.shape), k).indices,
        _best(i_index, i_cosine + to_image.reshape(i_index.shape), k).indices,
    )


def _best(indices: np.ndarray, scores: np.ndarray, k: int) -> Reranked:
    """The k best of each row; equal scores keep the order they came in."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Reranked(np.take_along_axis(indices, order, 1), np.take_along_axis(scores, order, 1))
