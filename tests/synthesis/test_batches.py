"""Batches of one shape: every entry once, alike ones together, halved where the memory runs out."""

from __future__ import annotations

import pytest
import torch

from data.errors import UserError
from synthesis.generation.batches import in_batches


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_entry_has_its_own_result(size):
    keys = "aabababbba"
    batches = []

    def compute(numbers: list[int]) -> list[int]:
        batches.append(numbers)
        return [number * 10 for number in numbers]

    assert in_batches(keys, size, compute, remedy="") == [number * 10 for number in range(len(keys))]
    assert {len(batch) for batch in batches} == {size}, "always of one shape"
    assert all(len({keys[number] for number in batch}) == 1 for batch in batches)


def test_nothing_is_computed_for_nothing():
    assert in_batches([], 4, lambda numbers: pytest.fail(f"{numbers}"), remedy="") == []


def test_a_batch_that_does_not_fit_is_halved_for_good():
    sizes = []

    def compute(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("full")
        return numbers

    assert in_batches([0] * 10, 8, compute, remedy="") == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_one_that_does_not_fit_is_told_with_the_remedy():
    def compute(_numbers: list[int]) -> list[int]:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(UserError, match=r"not hold a single image: use a smaller model\."):
        in_batches([0], 2, compute, remedy="use a smaller model")
