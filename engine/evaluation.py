"""Evaluate a model on a split of the configured data set: what training does on val and ``test.py`` on test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data import PedesDataset
from data.errors import UserError
from data.images import Pixels
from data.views import gallery, queries
from engine.config import Config
from engine.feeds import ImageFeed
from engine.machine import Machine
from retrieval.division import Division
from retrieval.encode import Progress
from retrieval.evaluate import Evaluation, StyleTexts, evaluate


@dataclass(frozen=True)
class Split:
    """A split opened for evaluation: G images with identities, Q captions with identities."""

    name: str
    images: list[str]
    gallery_ids: np.ndarray
    captions: list[str]
    query_ids: np.ndarray
    feed: ImageFeed


def open_split(
    dataset: PedesDataset, name: str, config: Config, image_size: tuple[int, int], pixels: Pixels
) -> Split | None:
    """Open ``val`` or ``test``; None when the data set has no such split.

    Raises:
        UserError: images without captions (nothing to query with).
    """
    records = getattr(dataset, name)
    if not records:
        return None
    images, gallery_ids = gallery(records)
    captions, query_ids = queries(records)
    if not captions:
        raise UserError(f"The {name} split has {len(images)} images but no caption to query with.")
    paths = [dataset.path(record) for record in records]
    feed = ImageFeed.of(paths, config, image_size, pixels=pixels)
    return Split(name, images, gallery_ids, captions, query_ids, feed)


def evaluate_split(
    model: torch.nn.Module,
    split: Split,
    config: Config,
    machine: Machine,
    k_test: int,
    progress: Progress | None = None,
    style: StyleTexts | None = None,
) -> Evaluation:
    """Rank-k, mAP and mINP of every caption of the split against all its images, shared by the machine's processes.

    Args:
        style: the split's texts in one fixed style, for the MSM protocol; None: the plain protocol.
    """
    model.eval()
    batch_size = config.test.batch_size
    division = Division(len(split.feed), batch_size, machine.processes)
    return evaluate(
        model,
        split.feed.batches(batch_size, machine.device, division.rows()),
        split.captions,
        split.query_ids,
        split.gallery_ids,
        k_test=k_test,
        directory=config.run_directory,  # chosen for its room; a system's temporary folder often has none
        style=style,
        division=division,
        progress=progress,
    )
