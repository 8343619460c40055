"""A small captioned batch and models of every method, for the tests of this folder and the processes they start."""

from __future__ import annotations

from pathlib import Path

import torch

from models import METHODS, Batch, TrainingCaption, build_model
from models.backbones.blip.tokenizer import BlipTokenizer
from models.methods.base import Method

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
IMAGE_SIZE = (32, 16)


def tokenizer(directory: Path) -> BlipTokenizer:
    return BlipTokenizer.train([caption.text for caption in CAPTIONS], directory, vocab_size=200)


def model(method: str, words: BlipTokenizer, **options: object) -> Method:
    """The same weights on every call; no dropout, so that results can be compared."""
    torch.manual_seed(0)
    built = build_model(method, size="tiny", image_size=IMAGE_SIZE, tokenizer=words, dropout=0.0, **options)
    built.set_identities(6)
    return built.train()


def batch(
    built: Method, labels: list[int], rows: slice = slice(None), dtype: torch.dtype = torch.float32
) -> Batch:
    """The rows of a batch of six, its texts cut to the longest of those rows, as a process would get them."""
    images = torch.randn(6, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    texts = built.prepare(CAPTIONS)[rows].trim()
    seeds = torch.tensor([3, 1, 4, 15, 9, 26])
    return Batch(images[rows].to(dtype), texts, torch.tensor(labels)[rows], seeds[rows])


def all_methods() -> list[str]:
    return list(METHODS)
