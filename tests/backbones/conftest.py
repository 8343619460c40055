"""Weights for parity tests: every parameter random, because a forgotten zero bias or unit scale compares equal to none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.backbones.blip.tokenizer import BlipTokenizer

CAPTIONS = [
    "The man is wearing a red t-shirt, blue jeans and white shoes.",
    "A woman wears a long black leather jacket over grey trousers",
    "he has a backpack",
    "The girl with a ponytail is in a yellow dress; she carries a brown handbag",
]


def _randomise(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim < 2:
                parameter.copy_(0.2 * noise)
            elif "embed" in name or "cls_token" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)


@pytest.fixture(scope="session")
def randomise():
    return _randomise


@pytest.fixture(scope="session")
def captions() -> list[str]:
    return CAPTIONS


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> BlipTokenizer:
    """A small vocabulary, learned on the test's own captions."""
    more = ["the man in a leather jacket, a T-shirt and her other shirt"]
    return BlipTokenizer.train((CAPTIONS + more) * 2, tmp_path_factory.mktemp("vocabulary"), vocab_size=300)


@pytest.fixture(scope="session")
def bert_pieces() -> list[str]:
    """A stand-in with the layout of bert-base-uncased's vocabulary: 30,522 lines, special pieces at 0 and 100 to 103."""
    pieces = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces += [*letters, *(f"##{letter}" for letter in letters), "the", "man", "wears", "red", "t", "-", ","]
    pieces = list(dict.fromkeys(pieces))
    return pieces + [f"word{i}" for i in range(30522 - len(pieces))]
