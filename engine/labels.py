"""The pseudo labels of a round: features, clusters, cross-modal correction, and what to report about them.

Methods.md's CMLC; reads top to bottom in ``pseudo_labels``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from torch.nn.functional import normalize

from clustering.correction import correct_labels
from clustering.diagnostics import diagnose, draw_clusters
from clustering.pseudo_labels import Clusters, cluster
from data.errors import UserError
from engine import distributed
from engine.cluster_source import ClusterSource
from engine.config import Config
from engine.feeds import ImageFeed
from engine.log import LOGGER
from engine.machine import Machine
from models.methods.base import Method
from retrieval.division import Division
from retrieval.encode import Gallery, GalleryWriter, Progress, encode_queries
from retrieval.itm import candidates
from retrieval.memory import in_portions
from retrieval.verbs import TokenisedCaptions, inference


@dataclass(frozen=True)
class PseudoLabels:
    """A round's labels: (N,) int64 before and after correction, -1 is noise, and the eps that made them."""

    before: np.ndarray
    after: np.ndarray
    eps: float

    def save(self, path: Path) -> None:
        """Write atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as stream:
            np.savez(stream, before=self.before, after=self.after, eps=self.eps)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> PseudoLabels:
        """Read what ``save`` wrote.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with np.load(path) as content:
                return cls(content["before"], content["after"], float(content["eps"]))
        except (BadZipFile, ValueError, EOFError, KeyError, OSError, zlib.error) as error:
            raise UserError(
                f"The pseudo labels {path} are damaged ({error}): remove the file and the same command makes them again."
            ) from None


def pseudo_labels(
    model: Method,
    feed: ImageFeed,
    captions: Sequence[str],
    config: Config,
    machine: Machine,
    eps: float | None,
    progress: Progress | None = None,
    figure: Path | None = None,
    source: ClusterSource | None = None,
    correction_captions: Sequence[str] | None = None,
) -> PseudoLabels | None:
    """Cluster the training images by image and text, and correct the labels across modalities.

    The machine's processes, each with the same model and arguments, share the encoding and the matching; the first one
    clusters and corrects. None on the others.

    Args:
        captions: one styled caption per image of ``feed``.
        eps: the first round's radius, kept in later rounds; None computes it.
        progress: called with (done, total) of this process's share while images are encoded and candidates scored.
        figure: where to draw cluster sizes and a map of the features; None: nowhere.
        source: another data set, which is encoded by the same model for the source term.
        correction_captions: one caption per image, by which the correction finds candidates; None: `captions`.

    Raises:
        UserError: too few images, or nothing (or everything) clusters, with what to change.
    """
    model.eval()
    corrected = config.correction.enabled
    with inference(model):
        encoded = encode_pairs(
            model, feed, captions, config, machine, progress, tokens=corrected and model.has_matching
        )
        source_features = None
        if source is not None:
            source_features = encode_pairs(
                model, source.feed, source.captions, config, machine, progress
            ).fused
    clusters = None
    if machine.processes.rank == 0:
        clusters = _cluster(encoded.fused, source_features, config, eps, machine.device)
        _draw(clusters, encoded.fused, figure)
    found = None
    if corrected:
        with encoded.gallery:
            found = _candidates(model, encoded, correction_captions, config, machine, progress)
    if clusters is None:
        return None
    labels = clusters.labels
    if found is not None:
        with distributed.all_threads():
            labels = correct_labels(labels, clusters.core, encoded.fused, *found, config.correction.agreement)
    return PseudoLabels(clusters.labels, labels, clusters.eps)


def _candidates(
    model: Method,
    encoded: EncodedPairs,
    captions: Sequence[str] | None,
    config: Config,
    machine: Machine,
    progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the correction takes for each image's texts and each text's images."""
    settings = config.correction
    texts, features = encoded.texts, encoded.text_features
    if captions is not None:
        texts = TokenisedCaptions(model, list(captions))
        features = encode_queries(model, texts, config.test.batch_size, processes=machine.processes)
    own = settings.first_token == "enc"
    with nullcontext() if own else model.matching_from(settings.first_token):
        return candidates(
            model, texts, encoded.gallery, features, settings.k_tests, settings.k, progress=progress
        )


class EncodedPairs(NamedTuple):
    """The training images with their captions: `fused` (N, K) is clustered, the rest is what the correction matches.

    All of it is on every process, but the tokens in `gallery`: each has those of its share of the images.
    """

    fused: np.ndarray
    texts: TokenisedCaptions
    gallery: Gallery
    text_features: Tensor  # (N, F), L2-normalised


def encode_pairs(
    model: Method,
    feed: ImageFeed,
    captions: Sequence[str],
    config: Config,
    machine: Machine,
    progress: Progress | None,
    tokens: bool = False,
) -> EncodedPairs:
    """Every image and every caption once, inside `inference`; all processes share the work.

    Args:
        captions: one per image of ``feed``.
        progress: called with (done, total) of this process's share.
        tokens: whether image tokens are kept, to be matched.
    """
    division = Division(len(feed), config.test.batch_size, machine.processes)
    rows = division.rows()
    texts = TokenisedCaptions(model, list(captions))
    token_dtype = torch.float16 if tokens else None
    gallery = GalleryWriter(division, token_dtype=token_dtype, directory=config.run_directory)
    fused, text_features = [], []

    def encode(images: Tensor, mine: np.ndarray, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = texts.select(mine[part], machine.device)
        image_tokens, image_feature = model.encode_images(images[part])
        text_tokens, text_feature = model.encode_texts(batch)
        features = image_tokens, image_feature, text_tokens, text_feature
        return image_tokens, image_feature, text_feature, model.cluster_features(*features, batch.mask)

    for images in feed.batches(config.test.batch_size, machine.device, rows):
        work = partial(encode, images, rows[gallery.done : gallery.done + len(images)])
        for image_tokens, image_feature, text_feature, clustered in in_portions(
            model, "images", len(images), work
        ):
            fused.append(clustered.float().cpu().numpy())
            gallery.add(image_tokens, image_feature)
            text_features.append(normalize(text_feature.float(), dim=1).cpu().numpy())
        if progress is not None:
            progress(gallery.done, gallery.count)
    all_texts = torch.from_numpy(division.gather(text_features))
    return EncodedPairs(division.gather(fused), texts, gallery.finished(), all_texts)


def _draw(clusters: Clusters, features: np.ndarray, figure: Path | None) -> None:
    """The picture of a round's clusters, if one is wanted."""
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        draw_clusters(clusters, features, figure)


def _cluster(
    features: np.ndarray,
    source: np.ndarray | None,
    config: Config,
    eps: float | None,
    device: torch.device,
) -> Clusters:
    """Clusters that can be trained on; the other processes wait for them."""
    settings = config.cluster
    if len(features) <= settings.min_samples:
        raise UserError(
            f"{len(features)} images are too few to cluster: give at least a few hundred, or lower cluster.min_samples."
        )
    if isinstance(settings.source, str) and settings.source:
        source = _fixed_source(settings.source, features.shape[1])
    options: dict[str, Any] = settings.model_dump(exclude={"enabled", "source", "eps"})
    if settings.eps == "auto" and eps is not None:
        options["eps"] = eps
    else:
        options["eps"] = settings.eps
    with distributed.all_threads():
        clusters = cluster(features, source, device=device, **options)
    diagnosis = diagnose(clusters)
    LOGGER.info("Clusters: %s.", diagnosis.summary())
    if not diagnosis.usable:
        raise UserError(
            f"{' '.join(diagnosis.warnings)} Training on such labels would teach nothing, so it stops here."
        )
    for warning in diagnosis.warnings:
        LOGGER.warning("%s", warning)
    return clusters


def _fixed_source(path: str, width: int) -> np.ndarray:
    """Features (M, width) of a source data set that are the same in every round."""
    try:
        source = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cluster.source {path} can't be read as a .npy array: {error}.") from None
    if source.ndim != 2 or source.shape[1] != width or not len(source):
        raise UserError(
            f"cluster.source {path} has the shape {source.shape}, and what this method clusters has {width} columns: make it "
            "with the same model, or name the data set itself, which every round then encodes."
        )
    return source


def report(labels: PseudoLabels, identities: np.ndarray | None) -> dict[str, Any]:
    """What ``metrics.jsonl`` says about a round's labels.

    Args:
        identities: (N,) the data set's own, where it has any: used in this report and nowhere else.
    """
    content: dict[str, Any] = {"eps": labels.eps, "images": len(labels.after)}
    for name, values in (("before", labels.before), ("after", labels.after)):
        sizes = np.bincount(values[values >= 0]) if (values >= 0).any() else np.zeros(1, int)
        sizes = sizes[sizes > 0]
        part = {
            "clusters": len(sizes),
            "noise": float((values < 0).mean()),
            "size_mean": float(sizes.mean()) if len(sizes) else 0.0,
            "size_max": int(sizes.max()) if len(sizes) else 0,
        }
        if identities is not None:
            part |= agreement_with(values, identities)
        content[name] = part
    content["clusters"], content["noise"] = content["after"]["clusters"], content["after"]["noise"]
    return content


def agreement_with(labels: np.ndarray, identities: np.ndarray) -> dict[str, float]:
    """NMI and ARI over all images, each noise image counted as a cluster of its own."""
    single = labels.copy()
    noise = np.flatnonzero(single < 0)
    single[noise] = single.max(initial=-1) + 1 + np.arange(len(noise))
    return {
        "nmi": float(normalized_mutual_info_score(identities, single)),
        "ari": float(adjusted_rand_score(identities, single)),
    }


def log_report(round_number: int, content: dict[str, Any]) -> None:
    """One line for people."""
    before, after = content["before"], content["after"]
    agreement = (
        f", NMI {before['nmi']:.3f} -> {after['nmi']:.3f}, ARI {before['ari']:.3f} -> {after['ari']:.3f}"
        if "nmi" in after
        else ""
    )
    LOGGER.info(
        "Round %d: %d clusters, %.1f %% noise (before correction %d, %.1f %%)%s",
        round_number,
        after["clusters"],
        100 * after["noise"],
        before["clusters"],
        100 * before["noise"],
        agreement,
    )
