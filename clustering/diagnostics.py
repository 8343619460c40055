"""What a clustering looks like, and a warning with advice when it is of no use."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clustering.inputs import as_features
from clustering.pseudo_labels import Clusters

_CROWDED = 0.5  # of all samples in one cluster: far beyond any person's share of a dataset
# Noise from here on leaves too little to train on; first rounds from good weights stay well below.
_NOISY = 0.8
_MAP_POINTS = 20_000


@dataclass(frozen=True)
class Diagnosis:
    """sizes: samples per cluster (C,), largest first. noise_share, pair_share: shares in 0..1 of the samples that are
    noise and of the pairs within eps. usable: there are at least two classes to tell apart. warnings: sentences."""

    sizes: np.ndarray
    noise_share: float
    eps: float
    pair_share: float
    usable: bool
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """One line for a log."""
        sizes = (
            f"sizes {self.sizes[-1]}..{self.sizes[0]}, median {np.median(self.sizes):g}; "
            if self.sizes.size
            else ""
        )
        return (
            f"{self.sizes.size:,} clusters; {sizes}noise {self.noise_share:.1%}; "
            f"eps {self.eps:.4f} covers {self.pair_share:.3%} of the pairs"
        )


def diagnose(clusters: Clusters) -> Diagnosis:
    """Sizes, shares and warnings of a clustering."""
    count = len(clusters.labels)
    sizes = np.sort(np.bincount(clusters.labels[clusters.labels >= 0], minlength=clusters.n_clusters))[::-1]
    noise_share = clusters.n_noise / count
    return Diagnosis(
        sizes=sizes,
        noise_share=noise_share,
        eps=clusters.eps,
        pair_share=clusters.pair_share,
        usable=clusters.n_clusters >= 2,
        warnings=_warnings(sizes, noise_share, clusters.eps, count),
    )


def _warnings(sizes: np.ndarray, noise_share: float, eps: float, count: int) -> tuple[str, ...]:
    if not sizes.size:
        return (
            f"Nothing clusters: all {count:,} samples are noise at eps = {eps:.4f}. Raise cluster.ratio (or cluster.eps, "
            "if you set it) or lower cluster.min_samples; features of an untrained model need a longer warm-up.",
        )
    if sizes[0] > _CROWDED * count:
        share = "Everything clusters together" if sizes.size == 1 else "One cluster takes nearly everything"
        return (
            f"{share}: the largest of {sizes.size:,} holds {sizes[0] / count:.0%} of {count:,} samples at eps = {eps:.4f}. "
            "Lower cluster.ratio (or cluster.eps, if you set it) or cluster.k1; if that doesn't help, the features have collapsed.",
        )
    if noise_share > _NOISY:
        return (
            f"{noise_share:.0%} of {count:,} samples are noise at eps = {eps:.4f}: this round trains on the rest only. Raise "
            "cluster.ratio (or cluster.eps, if you set it) or lower cluster.min_samples.",
        )
    if sizes.size == 1:
        return (
            f"There is a single cluster, of {sizes[0]:,} samples, at eps = {eps:.4f}: nothing to tell apart. Change "
            "cluster.ratio (or cluster.eps, if you set it); more images help, too.",
        )
    return ()


def principal_plane(features: np.ndarray | torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(coordinates (N, 2) on the first two principal axes, share of the variance on each (2,)). features (N, F)."""
    centred = as_features(features)
    centred = centred - centred.mean(axis=0)
    if centred.shape[1] == 1:
        centred = np.pad(centred, ((0, 0), (0, 1)))
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    largest = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    axes = axes * np.sign(largest)  # the sign of an eigenvector is free: fix it
    total = variances.sum()
    return centred @ axes, np.maximum(variances[::-1][:2], 0.0) / (total if total > 0 else 1.0)


def draw_clusters(clusters: Clusters, features: np.ndarray | torch.Tensor, path: str | Path) -> None:
    """Write a figure: histogram of the cluster sizes beside a map of the features coloured by cluster, noise in grey.

    features (N, F) are projected on their first two principal axes; of many, an even selection is drawn.
    """
    from matplotlib.figure import Figure  # only who draws needs matplotlib

    diagnosis = diagnose(clusters)
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    largest = int(diagnosis.sizes[0]) if diagnosis.sizes.size else 1
    left.hist(diagnosis.sizes, bins=np.linspace(0.5, largest + 0.5, min(largest, 40) + 1), color="#4477aa")
    left.locator_params(integer=True)
    left.set(xlabel="samples in a cluster", ylabel="clusters", title=f"{clusters.n_clusters:,} clusters")
    points, shares = principal_plane(features)
    shown = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MAP_POINTS)).astype(np.int64))
    points, labels = points[shown], clusters.labels[shown]
    noise = labels < 0
    right.scatter(*points[noise].T, s=4, color="#d0d0d0", linewidths=0, rasterized=True)
    colours = np.array([_colour(label) for label in labels[~noise]]).reshape(-1, 3)
    right.scatter(*points[~noise].T, s=6, c=colours, linewidths=0, rasterized=True)
    right.set(
        xlabel=f"first axis ({shares[0]:.0%} of the variance)",
        ylabel=f"second axis ({shares[1]:.0%})",
        title=f"noise (grey) {diagnosis.noise_share:.1%}, eps {clusters.eps:.4f} covers {diagnosis.pair_share:.3%} of the pairs",
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _colour(label: int) -> tuple[float, float, float]:
    """A colour per cluster: hues a golden angle apart, so that neighbours in number differ."""
    return colorsys.hsv_to_rgb(
        label * 0.618034 % 1.0, 0.55 + 0.45 * (label // 7 % 2), 0.55 + 0.35 * (label // 3 % 2)
    )
