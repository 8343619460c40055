"""When label correction helps: ARI before and after it, against how right the captions and how sharp the images are.

    python -m benchmarks.label_correction --checkpoint checkpoint/demo/pretrained.pth --config configs/demo-pretrained.yaml

The training images of a drawn world with the data set's own captions, of which a share is put on images of other people and a
share of the images is blurred, are labelled as a round labels them: features, clusters, candidates, correction. Identities
tell how right the labels are, and nothing else. Each row has the candidates' numbers, too: how many matched partners an image
has, and how many of them are the same person.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.measure import RESULTS, write_csv
from clustering.correction import correct_labels, matched_samples
from clustering.pseudo_labels import Clusters, cluster
from engine.config import Config, load_config
from engine.feeds import ImageFeed
from engine.labels import agreement_with, encode_pairs
from engine.machine import Machine
from engine.opening import open_model
from engine.sources import open_dataset
from models.methods.base import Method
from models.world import World
from retrieval.itm import candidates
from retrieval.verbs import inference

BLUR = 9  # pixels of a picture 96 high
CANDIDATES = ((6, 4), (12, 6), (26, 20))  # (k_tests, k): of the demo, and of the paper
AGREEMENTS = (0.0, 0.5, 0.75)
CPU = Machine(torch.device("cpu"), World(), torch.float32)


class PartlyBlurred(ImageFeed):
    """Images of which those where `blurred` (N,) is true are as a camera out of focus has them."""

    blurred: np.ndarray

    def batches(
        self, batch_size: int, device: torch.device, indices: np.ndarray | None = None
    ) -> Iterator[Tensor]:
        """As of any feed."""
        rows = np.arange(len(self)) if indices is None else indices
        for number, images in enumerate(super().batches(batch_size, device, rows)):
            soft = torch.from_numpy(
                self.blurred[rows[number * batch_size : number * batch_size + len(images)]]
            )
            images[soft] = avg_pool2d(
                images[soft], BLUR, stride=1, padding=BLUR // 2, count_include_pad=False
            )
            yield images


def with_wrong_ones(captions: list[str], identities: np.ndarray, share: float, seed: int) -> list[str]:
    """The captions, a share of them replaced by captions of other people."""
    random = np.random.default_rng(seed)
    wrong = random.permutation(len(captions))[: round(share * len(captions))]
    result = list(captions)
    for index in wrong:
        others = np.flatnonzero(identities != identities[index])
        result[index] = captions[random.choice(others)]
    return result


def measured(
    clusters: Clusters, fused: np.ndarray, found: tuple[np.ndarray, np.ndarray], identities: np.ndarray
) -> list[dict[str, Any]]:
    """A row for each agreement that a vote may need."""
    partners = matched_samples(*found).tocoo()
    same = identities[partners.row] == identities[partners.col]
    rows = []
    for agreement in AGREEMENTS:
        after = correct_labels(clusters.labels, clusters.core, fused, *found, agreement)
        rows.append(
            {
                "agreement": agreement,
                "partners": round(partners.nnz / len(identities), 2),
                "same person %": round(100 * float(same.mean()), 1) if partners.nnz else "",
                "changed %": round(100 * float((after != clusters.labels).mean()), 1),
                "noise before %": round(100 * float((clusters.labels < 0).mean()), 1),
                "noise after %": round(100 * float((after < 0).mean()), 1),
                "ARI before": round(agreement_with(clusters.labels, identities)["ari"], 3),
                "ARI after": round(agreement_with(after, identities)["ari"], 3),
            }
        )
    return rows


def study(model: Method, config: Config, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows, printed as they come."""
    dataset = open_dataset(config)
    records = [record for record in dataset.train if record.captions]
    identities = np.array([record.identity for record in records])
    captions = [record.captions[0] for record in records]
    feed = PartlyBlurred.of([dataset.image_root / record.image for record in records], config)
    names = ("metric", "ratio", "min_samples", "k1", "k2", "lam", "eps")
    settings = {name: getattr(config.cluster, name) for name in names}
    rows = []
    for wrong, soft in itertools.product(options.wrong, options.blurred):
        texts = with_wrong_ones(captions, identities, wrong, options.seed)
        feed.blurred = np.random.default_rng(options.seed + 1).random(len(records)) < soft
        with inference(model):
            pairs = encode_pairs(model, feed, texts, config, CPU, None, tokens=True)
        clusters = cluster(pairs.fused, **settings)
        with pairs.gallery:
            for k_tests, k in CANDIDATES:
                found = candidates(model, pairs.texts, pairs.gallery, pairs.text_features, k_tests, k)
                level = {"wrong captions %": 100 * wrong, "blurred images %": 100 * soft}
                for row in measured(clusters, pairs.fused, found, identities):
                    rows.append({**level, "k_tests": k_tests, "k": k, **row})
                    print(rows[-1], flush=True)
    return rows


def main(arguments: list[str]) -> None:
    """Measure, print, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--wrong", type=float, nargs="*", default=[0.0, 0.1, 0.2, 0.35, 0.5, 0.75])
    parser.add_argument("--blurred", type=float, nargs="*", default=[0.0, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    model = open_model(options.checkpoint).model.eval()
    rows = study(model, load_config(options.config, options.settings), options)
    write_csv("label_correction", "cpu", rows, options.results)


if __name__ == "__main__":
    main(sys.argv[1:])
