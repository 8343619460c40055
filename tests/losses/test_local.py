"""Region means and their matching loss against plain loops."""

from __future__ import annotations

import pytest
import torch

from losses.local import local_loss, masked_token_mean


def mean_by_loop(tokens, mask):
    rows = []
    for row, marks in zip(tokens.tolist(), mask.tolist(), strict=True):
        chosen = [token for token, mark in zip(row, marks, strict=True) if mark] or [row[0]]
        rows.append([sum(token[d] for token in chosen) / len(chosen) for d in range(len(row[0]))])
    return torch.tensor(rows, dtype=torch.float64)


def example(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(5, 7, 3, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.rand(5, 7, generator=generator) < 0.4
    mask[2] = False  # a text that names no garment of this region
    mask[3] = True
    mask[4, 0] = True
    return tokens, mask


def test_mean_of_the_marked_tokens_or_the_first():
    tokens, mask = example()
    torch.testing.assert_close(masked_token_mean(tokens, mask), mean_by_loop(tokens, mask))
    assert masked_token_mean(tokens, mask)[2].equal(tokens[2, 0])


def test_gradient_is_that_of_the_value():
    tokens, mask = example()
    assert torch.autograd.gradcheck(lambda t: masked_token_mean(t, mask), tokens.requires_grad_())


def test_unmarked_tokens_get_no_gradient():
    tokens, mask = example()
    masked_token_mean(tokens.requires_grad_(), mask).sum().backward()
    touched = tokens.grad.ne(0).all(dim=2)
    expected = mask.clone()
    expected[2, 0] = True
    assert touched.equal(expected)


def test_bfloat16_sums_in_float32():
    tokens, mask = example(dtype=torch.bfloat16)
    mean = masked_token_mean(tokens, mask)
    assert mean.dtype == torch.bfloat16
    torch.testing.assert_close(mean, mean_by_loop(tokens, mask).bfloat16(), rtol=0.01, atol=0)


def test_tokens_and_mask_that_do_not_belong_together():
    tokens, mask = example()
    with pytest.raises(ValueError, match="needs tokens"):
        masked_token_mean(tokens, mask[:, :4])


def test_mean_over_all_decisions():
    generator = torch.Generator().manual_seed(1)
    upper, lower = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    targets = torch.tensor([1, 1, 0, 0, 0, 0])
    decisions = [
        -torch.log_softmax(logits, 0)[target].item()
        for region in (upper, lower)
        for logits, target in zip(region, targets, strict=True)
    ]
    assert local_loss([upper, lower], targets).item() == pytest.approx(sum(decisions) / 12, rel=1e-12)


def test_pairs_that_do_not_exist_are_left_out():
    generator = torch.Generator().manual_seed(2)
    upper, lower = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    targets = torch.tensor([1, 1, 0, 0, 0, 0])
    weights = torch.tensor([1, 1, 1, 0, 1, 1])
    kept = weights.bool()
    expected = local_loss([upper[kept], lower[kept]], targets[kept])
    assert local_loss([upper, lower], targets, weights).item() == pytest.approx(expected.item(), rel=1e-12)
