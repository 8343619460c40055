"""A small real model with the three verbs, independent of the project's backbones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass
class Words:
    """A text batch: word ids (B, L), 0 is padding."""

    ids: Tensor

    @property
    def mask(self) -> Tensor:
        return self.ids > 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Tensor) -> Words:
        return Words(self.ids[index])

    def trim(self) -> Words:
        return Words(self.ids[:, : int(self.mask.any(0).sum())])

    def to(self, device: torch.device, non_blocking: bool = False) -> Words:
        return Words(self.ids.to(device, non_blocking=non_blocking))


class WordTokenizer:
    """Hashes words into 97 ids; counts how many captions it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, captions: list[str]) -> Words:
        self.asked += len(captions)
        rows = [[1] + [2 + sum(map(ord, word)) % 97 for word in caption.split()] for caption in captions]
        width = max(map(len, rows))
        return Words(torch.tensor([row + [0] * (width - len(row)) for row in rows]))


class TinyModel(nn.Module):
    """One attention layer from words to image patches; keeps a record of its `match` calls."""

    has_matching = True

    def __init__(self, width: int = 16, features: int = 8) -> None:
        super().__init__()
        self.tokenizer = WordTokenizer()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.words = nn.Embedding(99, width)
        self.keys, self.values = nn.Linear(width, width), nn.Linear(width, width)
        self.image_head, self.text_head = nn.Linear(width, features), nn.Linear(width, features)
        self.pair_head = nn.Linear(width, 2)
        self.dropout = nn.Dropout(0.5)
        self.calls: list[tuple[int, int, int]] = []

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        return tokens, self.image_head(self.dropout(tokens).mean(1))

    def encode_texts(self, texts: Words) -> tuple[Tensor, Tensor]:
        tokens = self.words(texts.ids) * texts.mask[..., None]
        return tokens, self.text_head(self.dropout(tokens).sum(1) / texts.mask.sum(1, keepdim=True))

    def match(self, texts: Words, image_tokens: Tensor, image_index: Tensor | None = None) -> Tensor:
        self.calls.append((*texts.ids.shape, len(image_tokens)))
        keys, values = self.keys(image_tokens), self.values(image_tokens)
        if image_index is not None:
            keys, values = keys[image_index], values[image_index]
        words = self.words(texts.ids) * texts.mask[..., None]
        attended = (words @ keys.transpose(1, 2)).softmax(-1) @ values + words
        pooled = (attended.tanh() * texts.mask[..., None]).sum(1) / texts.mask.sum(1, keepdim=True)
        return 5.0 * self.pair_head(self.dropout(pooled))


COLOURS = ("red", "blue", "green", "black", "white", "yellow", "purple", "grey")


def make_captions(count: int) -> list[str]:
    """Captions of 3 to 30 words, all different."""
    return [
        " ".join(f"{COLOURS[(i * 3 + j) % 8]}{i % 5}{chr(97 + j % 26)}" for j in range(3 + (i * 7) % 28))
        for i in range(count)
    ]


@pytest.fixture
def tiny_model() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel().train()


class DualModel(TinyModel):
    """The same encoders without the third verb: nothing may ask for it."""

    has_matching = False
    match = None


@pytest.fixture
def dual_model() -> DualModel:
    torch.manual_seed(0)
    return DualModel().train()


@pytest.fixture
def tiny_images() -> Tensor:
    """24 images (24, 3, 16, 8): 8 identities, three noisy images each."""
    generator = torch.Generator().manual_seed(1)
    people = torch.randn(8, 3, 16, 8, generator=generator)
    return people.repeat_interleave(3, 0) + 0.3 * torch.randn(24, 3, 16, 8, generator=generator)


@pytest.fixture
def captions() -> list[str]:
    return make_captions(40)
