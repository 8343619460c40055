"""Cross-modal label correction: dual mutual matching, vote, distance judgement.

Image i and text i belong together. Two samples match when each one's image and text are among the candidates of the
other's text and image, in both directions; matched samples vote for a common label, and a sample that several votes
reach takes the label with the nearest centre. docs/clustering.md says where released code computes something else.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from clustering.inputs import ClusteringError, as_features
from clustering.neighbours import pair_distances


def correct_labels(
    labels: np.ndarray,
    core: np.ndarray,
    features: np.ndarray | torch.Tensor,
    image_to_text: np.ndarray | torch.Tensor,
    text_to_image: np.ndarray | torch.Tensor,
    agreement: float = 0.0,
) -> np.ndarray:
    """Labels (N,) int64 after the correction; -1 stays noise.

    labels (N,) with -1 for noise, core (N,) bool: of a clustering. features (N, F): the fused features it was made of.
    image_to_text, text_to_image (N, k): indices of the best candidates of every image and of every text.
    agreement: a vote is cast if at least this share of the sample and its matched samples, noise among them, have the label
    (0: always, as the paper has it).
    Ties: a vote between labels goes to the sample's own, else to the nearest centre, else to the lowest label; equally
    near centres leave a sample with the label of the earlier vote.
    Raises ClusteringError for arrays that don't belong together and for a label without a core sample.
    """
    labels, core = np.asarray(labels, dtype=np.int64), np.asarray(core, dtype=bool)
    features = as_features(features)
    count = len(labels)
    if core.shape != (count,) or len(features) != count:
        raise ClusteringError(
            f"{count:,} labels need as many core flags and features; got {core.shape}, {features.shape}."
        )
    if not (labels >= 0).any():
        return labels.copy()
    centres = _centres(labels, core, features)
    matched = matched_samples(_candidates(image_to_text, count), _candidates(text_to_image, count))
    members = (matched + sparse.identity(count, np.int32, "csr")).tocsr()
    return _judge(labels, _votes(labels, members, features, centres, agreement), members, features, centres)


def matched_samples(image_to_text: np.ndarray, text_to_image: np.ndarray) -> sparse.csr_matrix:
    """M (N, N), symmetric indicator: the j != i with j in I2T(i), i in T2I(j), j in T2I(i) and i in I2T(j)."""
    both = _indicator(image_to_text).multiply(_indicator(text_to_image)).tocsr()
    mutual = both.multiply(both.T).tocsr()
    mutual.setdiag(0)
    mutual.eliminate_zeros()
    return mutual


def _candidates(candidates: np.ndarray | torch.Tensor, count: int) -> np.ndarray:
    if isinstance(candidates, torch.Tensor):
        candidates = candidates.cpu().numpy()
    table = np.asarray(candidates, dtype=np.int64)
    if table.ndim != 2 or len(table) != count or (table.size and not 0 <= table.min() <= table.max() < count):
        raise ClusteringError(
            f"candidates must be a table of indices below {count:,}, a row per sample; got {table.shape}."
        )
    return table


def _indicator(candidates: np.ndarray) -> sparse.csr_matrix:
    count, width = candidates.shape
    ones = np.ones(candidates.size, np.int32)
    matrix = sparse.csr_matrix((ones, candidates.ravel(), np.arange(count + 1) * width), shape=(count, count))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _centres(labels: np.ndarray, core: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean feature (C, F) of the core samples of every label."""
    kept = np.flatnonzero(core & (labels >= 0))
    sizes = np.bincount(labels[kept], minlength=labels.max() + 1)
    if (sizes == 0).any():
        raise ClusteringError(
            f"label {np.flatnonzero(sizes == 0)[0]} has no core sample, so it has no centre."
        )
    shape = (len(sizes), len(labels))
    return (
        sparse.csr_matrix((np.ones(len(kept)), (labels[kept], kept)), shape=shape) @ features / sizes[:, None]
    )


def _votes(
    labels: np.ndarray,
    members: sparse.csr_matrix,
    features: np.ndarray,
    centres: np.ndarray,
    agreement: float,
) -> np.ndarray:
    """The label (N,) that every sample's members vote for; -1 where all are noise, or too few agree."""
    known = np.flatnonzero(labels >= 0)
    one_hot = sparse.csr_matrix(
        (np.ones(len(known), np.int32), (known, labels[known])), shape=(len(labels), len(centres))
    )
    ballots = (members @ one_hot).tocoo()
    most = np.zeros(len(labels), dtype=np.int64)
    np.maximum.at(most, ballots.row, ballots.data)
    enough = most >= agreement * np.diff(members.indptr) - 1e-9
    winning = (ballots.data == most[ballots.row]) & enough[ballots.row]
    voter, label = ballots.row[winning], ballots.col[winning].astype(np.int64)
    distance = pair_distances(features, centres, voter, label)
    distance[label == labels[voter]] = -1.0  # a sample's own label wins its ties
    votes = np.full(len(labels), -1, dtype=np.int64)
    order = np.lexsort((label, distance, voter))
    voter, label = voter[order], label[order]
    first = np.flatnonzero(np.diff(voter, prepend=-1))
    votes[voter[first]] = label[first]
    return votes


def _judge(
    labels: np.ndarray,
    votes: np.ndarray,
    members: sparse.csr_matrix,
    features: np.ndarray,
    centres: np.ndarray,
) -> np.ndarray:
    """Give every sample, of the votes that reach it, the one with the nearest centre, the earliest if equal."""
    pairs = members.tocoo()
    cast = votes[pairs.row] >= 0
    voter, member = pairs.row[cast], pairs.col[cast]
    distance = pair_distances(features, centres, member, votes[voter])
    order = np.lexsort((voter, distance, member))
    voter, member = voter[order], member[order]
    first = np.flatnonzero(np.diff(member, prepend=-1))
    corrected = labels.copy()
    corrected[member[first]] = votes[voter[first]]
    return corrected
