"""How little a caption agrees with the others of its label: one that is wrong about its image stands alone among them."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def caption_disagreement(tokens: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - the mean cosine between a caption's words and those of each other caption of its label.

    A caption is the vector of its tokens, each counted once and weighed by log(P / captions that have it), as in tf-idf: what
    nearly all captions have, a full stop or "the man", says little. Ours; no paper's.

    Args:
        tokens: (P, L) whole numbers from 0.
        mask: (P, L) bool, False at padding.
        labels: (P,) of whole numbers.

    Returns:
        (P,) float64 in 0..1. About a caption that is alone with its label nothing is known: it gets the mean of the others, or 0
        if there are none.
    """
    words = _normalised_words(np.asarray(tokens), np.asarray(mask, dtype=bool))
    _, labels, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    members = sparse.csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))))
    sums = (members @ words)[labels]
    own = np.asarray(words.multiply(words).sum(axis=1)).ravel()
    cosines = np.asarray(words.multiply(sums).sum(axis=1)).ravel() - own
    others = sizes[labels] - 1
    known = others > 0
    found = np.full(len(labels), 0.0)
    found[known] = np.clip(1 - cosines[known] / others[known], 0, 1)
    if known.any():
        found[~known] = found[known].mean()
    return found


def _normalised_words(tokens: np.ndarray, mask: np.ndarray) -> sparse.csr_matrix:
    """(P, V) rows of length 1; of a caption without a word of its own, zeros."""
    rows = np.nonzero(mask)[0]
    counts = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, tokens[mask])), shape=(len(tokens), tokens.max() + 1)
    )
    counts.data[:] = 1  # equal places have been summed
    frequency = np.asarray(counts.sum(axis=0)).ravel()
    words = counts.multiply(np.log(len(tokens) / np.maximum(frequency, 1))).tocsr()
    lengths = np.sqrt(np.asarray(words.multiply(words).sum(axis=1)).ravel())
    return sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ words
