"""Pseudo labels: DBSCAN over re-ranked distances.

Two metrics. "profile" compares whole rows of the distance matrix in Euclidean distance, as the released training
code does; "jaccard" uses the distances themselves, as most of the field does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from clustering.distances import automatic_eps, jaccard_neighbours, profile_neighbours, source_term
from clustering.inputs import ClusteringError, as_features
from clustering.rerank import exact_similarity

METRICS = {"profile": profile_neighbours, "jaccard": jaccard_neighbours}


@dataclass(frozen=True)
class Clusters:
    """The clustering of N samples.

    labels: (N,) int64, -1 is noise, the others 0..n_clusters - 1 in the order of their first core sample.
    core: (N,) bool, samples with at least min_samples neighbours, themselves counted.
    eps: the radius used. n_clusters, n_noise: counts. pair_share: share of all pairs that are within eps.
    """

    labels: np.ndarray
    core: np.ndarray
    eps: float
    n_clusters: int
    n_noise: int
    pair_share: float


def cluster(
    features: np.ndarray | torch.Tensor,
    source: np.ndarray | torch.Tensor | None = None,
    *,
    metric: str = "profile",
    eps: float | str = "auto",
    ratio: float = 0.051,
    lam: float = 0.1,
    min_samples: int = 4,
    k1: int = 20,
    k2: int = 6,
    device: torch.device | str = "cpu",
) -> Clusters:
    """Cluster features (N, F) into pseudo classes.

    source: features (M, F) of a labelled source dataset, if there is one; lam weighs its term.
    metric: "profile" or "jaccard". eps: the radius, or "auto" for the mean of the smallest `ratio` of the distances.
    k1, k2: see rerank.jaccard_similarity. device: where the neighbour search runs.
    Raises ClusteringError for too few samples, features that aren't finite, and options out of range.
    """
    _check_options(metric, eps, ratio, lam, min_samples)
    features = as_features(features)
    similarity = exact_similarity(features, k1, k2, device)
    if source is None:
        lam, term = 0.0, np.zeros(len(features))
    else:
        term = source_term(features, as_features(source, "source features"), device)
    if eps == "auto":
        eps = automatic_eps(similarity, term, lam, ratio)
    rows, columns = METRICS[metric](similarity, term, lam, float(eps))
    labels, core = dbscan(len(features), rows, columns, min_samples)
    pairs = len(features) * (len(features) - 1) / 2
    return Clusters(
        labels=labels,
        core=core,
        eps=float(eps),
        n_clusters=int(labels.max()) + 1,
        n_noise=int((labels < 0).sum()),
        pair_share=len(rows) / pairs,
    )


def dbscan(
    count: int, rows: np.ndarray, columns: np.ndarray, min_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """DBSCAN (Ester et al., KDD 1996) over a neighbour graph, as (labels (N,) int64, core (N,) bool).

    rows, columns: the pairs i < j within eps; a sample counts as its own neighbour. Clusters are the connected
    components of the core samples, numbered by their first one; a border sample joins the lowest-numbered cluster
    that reaches it, as in scikit-learn.
    """
    degree = 1 + np.bincount(rows, minlength=count) + np.bincount(columns, minlength=count)
    core = degree >= min_samples
    both = core[rows] & core[columns]
    links = sparse.coo_matrix((np.ones(both.sum(), bool), (rows[both], columns[both])), shape=(count, count))
    components = connected_components(links, directed=False)[1][core]
    first, inverse = np.unique(components, return_index=True, return_inverse=True)[1:]
    labels = np.full(count, -1, dtype=np.int64)
    labels[core] = np.argsort(np.argsort(first))[inverse]
    reached = np.full(count, count, dtype=np.int64)
    for border, centre in ((rows, columns), (columns, rows)):
        joins = core[centre] & ~core[border]
        np.minimum.at(reached, border[joins], labels[centre[joins]])
    joined = reached < count
    labels[joined] = reached[joined]
    return labels, core


def _check_options(metric: str, eps: float | str, ratio: float, lam: float, min_samples: int) -> None:
    if metric not in METRICS:
        raise ClusteringError(f"There is no metric {metric!r}; use one of {', '.join(METRICS)}.")
    if eps != "auto" and not (isinstance(eps, (int, float)) and math.isfinite(eps) and eps >= 0):
        raise ClusteringError(f'eps must be "auto" or a number of at least 0; got {eps!r}.')
    if not 0 < ratio <= 1:
        raise ClusteringError(
            f"ratio must be in 0..1 (0.051 keeps the smallest 5.1 % of the pairs); got {ratio}."
        )
    if not 0 <= lam < 1:
        raise ClusteringError(f"lam must be at least 0 and below 1; got {lam}.")
    if min_samples < 1:
        raise ClusteringError(f"min_samples must be at least 1; got {min_samples}.")
