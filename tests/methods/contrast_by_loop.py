"""N-ITC, R-ITC and their soft targets in plain loops over plain numbers, for the tests of methods that contrast with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models import Batch
from models.methods.base import Method

Rows = list[list[float]]


def features(model: Method, batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, F) of the images and the texts, normalised, in double precision."""
    with torch.no_grad():
        both = model.encode_images(batch.images)[1], model.encode_texts(batch.texts)[1]
    images, texts = (normalize(features.double(), dim=1) for features in both)
    return images, texts


def transposed(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def softmax(row: Sequence[float]) -> list[float]:
    exponentials = [math.exp(x - max(row)) for x in row]
    return [x / sum(exponentials) for x in exponentials]


def sigmoid(row: Sequence[float]) -> list[float]:
    return [1 / (1 + math.exp(-x)) for x in row]


def targets(scores: Rows, labels: Sequence[int], alpha: float, opinion: Callable = softmax) -> Rows:
    """alpha · opinion + (1 - alpha) · labels, rows normalised."""
    result = []
    for row, own in zip(scores, labels, strict=True):
        hard = [(label == own) / labels.count(own) for label in labels]
        mixed = [alpha * g + (1 - alpha) * q for g, q in zip(opinion(row), hard, strict=True)]
        result.append([x / sum(mixed) for x in mixed])
    return result


def n_itc(scores: Rows, labels: Sequence[int], alpha: float, opinion: Callable = softmax) -> float:
    """The mean over pairs and both directions."""
    total = 0.0
    for rows in (scores, transposed(scores)):
        for row, target in zip(rows, targets(rows, labels, alpha, opinion), strict=True):
            total -= sum(q * math.log(p) for p, q in zip(softmax(row), target, strict=True))
    return total / len(labels) / 2


def r_itc(
    scores: Rows, labels: Sequence[int], alpha: float, opinion: Callable = softmax, eps: float = 1e-8
) -> float:
    """The mean over pairs and both directions."""
    total = 0.0
    for rows in (scores, transposed(scores)):
        for row, target in zip(rows, targets(rows, labels, alpha, opinion), strict=True):
            total += sum(
                p * (math.log(p) - math.log(q + eps)) for p, q in zip(softmax(row), target, strict=True)
            )
    return total / len(labels) / 2
