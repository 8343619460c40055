"""Captions beside the others of their label: the formula in plain loops, and that odd ones out are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.agreement import caption_disagreement


def plain(captions: list[set[int]], labels: list[int]) -> list[float]:
    """The docstring's formula, word by word."""
    count = len(captions)

    def weight(word: int) -> float:
        return math.log(count / sum(word in caption for caption in captions))

    def cosine(one: set[int], other: set[int]) -> float:
        lengths = [math.sqrt(sum(weight(word) ** 2 for word in caption)) for caption in (one, other)]
        product = sum(weight(word) ** 2 for word in one & other)
        return product / (lengths[0] * lengths[1]) if all(lengths) else 0.0

    found: list[float | None] = []
    for i, caption in enumerate(captions):
        mates = [captions[j] for j in range(count) if labels[j] == labels[i] and j != i]
        found.append(1 - sum(cosine(caption, mate) for mate in mates) / len(mates) if mates else None)
    known = [value for value in found if value is not None]
    unknown = sum(known) / len(known) if known else 0.0
    return [unknown if value is None else value for value in found]


def padded(captions: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Padding is a word that captions have, too: only the mask tells."""
    width = max(map(len, captions))
    tokens = np.array([caption + [1] * (width - len(caption)) for caption in captions])
    mask = np.array([[True] * len(caption) + [False] * (width - len(caption)) for caption in captions])
    return tokens, mask


CAPTIONS = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 3)), min_size=1, max_size=20
)


@given(CAPTIONS)
def test_it_is_its_formula(pairs):
    captions, labels = [caption for caption, _ in pairs], [label for _, label in pairs]
    found = caption_disagreement(*padded(captions), np.array(labels))
    assert found.dtype == np.float64
    assert found == pytest.approx(plain([set(caption) for caption in captions], labels), abs=1e-9)


@given(CAPTIONS, st.randoms())
def test_order_and_names_of_labels_make_no_difference(pairs, random):
    tokens, mask = padded([caption for caption, _ in pairs])
    labels = np.array([label for _, label in pairs])
    found = caption_disagreement(tokens, mask, labels)
    order = list(range(len(pairs)))
    random.shuffle(order)
    again = caption_disagreement(tokens[order], mask[order], 7 - 2 * labels[order])
    assert again == pytest.approx(found[order], abs=1e-12)


def test_a_caption_of_another_person_stands_out():
    red, blue = [0, 5, 6, 7], [0, 2, 3, 4]
    captions = [red, red, red, blue, blue, blue, red]
    found = caption_disagreement(*padded(captions), np.array([0, 0, 0, 1, 1, 1, 1]))
    assert found.argmax() == 6
    assert found[:3] == pytest.approx(np.zeros(3))
    assert found[6] == pytest.approx(1)
