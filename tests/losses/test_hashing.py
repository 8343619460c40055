"""The hash against Python's own integers, and what a hash is for."""

from __future__ import annotations

import torch

from losses.hashing import mix, mix_numbers, mix_seeds


def mix_by_hand(value: int) -> int:
    """lowbias32 on integers of any size."""
    value = ((value ^ value >> 16) * 0x7FEB352D) % 2**32
    value = ((value ^ value >> 15) * 0x846CA68B) % 2**32
    return value ^ value >> 16


def test_products_that_wrap_keep_their_low_bits():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2**32, (2000,), generator=generator)
    values[:3] = torch.tensor([0, 1, 2**32 - 1])
    assert mix(values).tolist() == [mix_by_hand(value) for value in values.tolist()]


def test_both_halves_of_a_seed_and_the_number_count():
    seeds = torch.tensor([0, 5, 5 + 2**32, 5 + 2**62, -5, 2**63 - 1])
    hashes = mix_seeds(seeds)
    assert ((hashes >= 0) & (hashes < 2**32)).all()
    both = mix_numbers(hashes[:, None], torch.arange(50))
    assert both.shape == (6, 50)
    assert both.unique().numel() == 6 * 50


def test_a_changed_bit_changes_half_of_the_bits():
    values = torch.randint(0, 2**32, (4000,), generator=torch.Generator().manual_seed(1))
    for bit in range(32):
        difference = mix(values) ^ mix(values ^ (1 << bit))
        flipped = torch.stack([(difference >> place & 1).double() for place in range(32)])
        assert abs(flipped.mean().item() - 0.5) < 0.02
