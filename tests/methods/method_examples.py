"""A small captioned batch and models of every method, for the tests of this folder and the processes they start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from models import METHODS, Batch, TrainingCaption, build_model
from models.methods.base import Method
from models.texts import TextTokenizer

CAPTIONS = [
    TrainingCaption("a man in a red shirt, and black trousers", ("red", "shirt"), ("black", "trousers")),
    TrainingCaption("the young woman wears a long blue dress", ("blue", "dress"), ()),
    TrainingCaption(
        "he has a grey jacket and blue jeans with white shoes", ("grey", "jacket"), ("blue", "jeans")
    ),
    TrainingCaption("a person"),
    TrainingCaption("a woman with a white blouse and a short skirt", ("white", "blouse"), ("short", "skirt")),
    TrainingCaption("the man is wearing green shorts", (), ("green", "shorts")),
]
Tokenizers = Mapping[type[TextTokenizer], TextTokenizer]


def tokenizers(directory: Path) -> Tokenizers:
    """One of every kind that a method has, with a vocabulary of the captions, which is kept in `directory`."""
    texts = [caption.text for caption in CAPTIONS]
    return {kind: kind.train(texts, directory, vocab_size=200) for kind in kinds_of_tokenizers()}


def load_tokenizers(directory: Path) -> Tokenizers:
    return {kind: kind.load(directory) for kind in kinds_of_tokenizers()}


def kinds_of_tokenizers() -> set[type[TextTokenizer]]:
    return {method.tokenizer_class for method in METHODS.values()}


def image_size(method: str) -> tuple[int, int]:
    """Small, and as large as the method's backbone needs."""
    return (96, 32) if METHODS[method].backbone == "resnet_lstm" else (32, 16)


def build(method: str, words: Tokenizers, **options: object) -> Method:
    """A method's smallest model on its own tokenizer."""
    kind = METHODS[method]
    given = {"size": "tiny", "image_size": image_size(method), "tokenizer": words[kind.tokenizer_class]}
    return build_model(method, **{**given, **options})


def dropout(method: str, share: float) -> dict[str, float]:
    """The option that sets it, where the method's backbone has any."""
    return {} if METHODS[method].backbone == "clip" else {"dropout": share}


def model(method: str, words: Tokenizers, **options: object) -> Method:
    """The same weights on every call; no dropout unless asked for, so that results can be compared."""
    torch.manual_seed(0)
    built = build(method, words, **{**dropout(method, 0.0), **options})
    built.set_identities(6)
    return built.train()


def batch(
    built: Method,
    labels: list[int],
    rows: slice = slice(None),
    dtype: torch.dtype = torch.float32,
    weights: list[float] | None = None,
) -> Batch:
    """The rows of a batch of six, its texts cut to the longest of those rows, as a process would get them."""
    images = torch.randn(6, 3, *built.image_size, generator=torch.Generator().manual_seed(1))
    views = torch.randn(len(built.wants_views), *images.shape, generator=torch.Generator().manual_seed(2)).to(
        dtype
    )
    texts = built.prepare(CAPTIONS)
    others = companions(labels)
    found = torch.tensor([other != own for own, other in enumerate(others)])
    seeds = torch.tensor([3, 1, 4, 15, 9, 26])
    return Batch(
        images[rows].to(dtype),
        texts[rows].trim(),
        torch.tensor(labels)[rows],
        seeds[rows],
        companions=texts[others][rows].trim() if built.wants_companions else None,
        progress=torch.tensor(2.0),
        companion_found=found[rows] if built.wants_companions else None,
        weights=None if weights is None else torch.tensor(weights)[rows],
        views=views[:, rows] if built.wants_views else None,
    )


def companions(labels: list[int]) -> list[int]:
    """For each sample the next one with its label, itself where there is none."""
    following = [[*range(own + 1, len(labels)), *range(own + 1)] for own in range(len(labels))]
    return [next(i for i in rest if labels[i] == labels[rest[-1]]) for rest in following]


def all_methods() -> list[str]:
    return list(METHODS)
