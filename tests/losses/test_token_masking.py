"""BERT's masking: shares, what stands where, and draws that depend on nothing but the caption's seed."""

from __future__ import annotations

import pytest
import torch

from losses.token_masking import mask_tokens

MASK, TOKENS = 900, 800


def captions(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of 50 to 749, all but the ends maskable, seeds."""
    ids = 50 + torch.randint(0, 700, (rows, length), generator=torch.Generator().manual_seed(0))
    maskable = torch.ones(rows, length, dtype=torch.bool)
    maskable[:, 0] = maskable[:, -1] = False
    seeds = torch.randint(-(2**62), 2**62, (rows,), generator=torch.Generator().manual_seed(1))
    return ids, maskable, seeds


def test_shares_of_chosen_and_of_what_hides_them():
    ids, maskable, seeds = captions(2000, 72)
    hidden, chosen = mask_tokens(ids, maskable, seeds, MASK, TOKENS)
    count = chosen.sum().item()
    assert count / maskable.sum().item() == pytest.approx(0.15, abs=0.003)
    masked, kept = hidden == MASK, chosen & (hidden == ids)
    replaced = chosen & ~masked & ~kept
    assert masked.sum().item() / count == pytest.approx(0.8, abs=0.01)
    assert replaced.sum().item() / count == pytest.approx(0.1, abs=0.01)
    assert not (masked & ~chosen).any()
    assert hidden[~chosen].equal(ids[~chosen])
    assert not chosen[~maskable].any()
    others = hidden[replaced].double()
    assert 0 <= others.min() < others.max() < TOKENS
    assert others.mean().item() == pytest.approx(TOKENS / 2, rel=0.03)
    per_column = chosen[:, 1:-1].double().mean(0)
    assert ((per_column - 0.15).abs() < 0.04).all()


def test_the_first_word_is_masked_where_none_was_chosen():
    ids, maskable, seeds = captions(300, 6)
    _, drawn = mask_tokens(ids, maskable, seeds, MASK, TOKENS, probability=0.0)
    expected = torch.zeros_like(maskable)
    expected[:, 1] = True
    assert drawn.equal(expected)
    hidden, chosen = mask_tokens(ids, maskable, seeds, MASK, TOKENS)
    assert chosen.any(1).all()
    alone = chosen.sum(1) == 1
    assert (hidden[alone, 1] == MASK).float().mean() > 0.5
    nothing = torch.zeros_like(maskable)
    hidden, chosen = mask_tokens(ids, nothing, seeds, MASK, TOKENS)
    assert hidden.equal(ids)
    assert not chosen.any()


def test_draws_follow_from_the_seed_alone():
    ids, maskable, seeds = captions(40, 30)
    hidden, chosen = mask_tokens(ids, maskable, seeds, MASK, TOKENS)
    for row in (0, 17, 39):
        wider = torch.cat([ids[row : row + 1], torch.zeros(1, 9, dtype=torch.int64)], 1)
        able = torch.cat([maskable[row : row + 1], torch.zeros(1, 9, dtype=torch.bool)], 1)
        alone, of_alone = mask_tokens(wider, able, seeds[row : row + 1], MASK, TOKENS)
        assert alone[0, :30].equal(hidden[row])
        assert of_alone[0, :30].equal(chosen[row])
    other, _ = mask_tokens(ids, maskable, seeds + 1, MASK, TOKENS)
    assert (other != hidden).any(1).float().mean() > 0.9
