"""Dropout, attention and packing against their plain forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.backbones.attention import Dense, Dropout, Packed, attend, dropout, layout_of


def test_dropout_keeps_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    values = torch.full((1001, 997), 2.0)
    for probability in (0.1, 0.5, 0.9):
        result = dropout(values, probability)
        share = (result == 0).float().mean().item()
        assert abs(share - probability) < 3e-3
        assert abs(result.mean().item() - 2.0) < 2e-2
        assert result[result != 0].unique().numel() == 1
    rows = (dropout(values, 0.5) == 0).float()
    neighbours = torch.corrcoef(torch.stack([rows[:, :-1].flatten(), rows[:, 1:].flatten()]))[0, 1]
    assert neighbours.abs() < 5e-3


def test_dropout_follows_the_seed_and_its_gradient_the_mask():
    values = torch.ones(7, 5, requires_grad=True)
    torch.manual_seed(3)
    first = dropout(values, 0.3)
    torch.manual_seed(3)
    assert first.equal(dropout(values, 0.3))
    first.sum().backward()
    assert values.grad.equal(first.detach())
    assert Dropout(0.3).eval()(values) is values
    assert Dropout(0.0).train()(values) is values
    with pytest.raises(ValueError, match="below 1"):
        Dropout(1.0)


def plain_attention(query, key, value, allowed):
    result = torch.zeros_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                seen = [j for j in range(key.shape[2]) if allowed(b, i, j)]
                scores = torch.stack([query[b, h, i] @ key[b, h, j] for j in seen]) / query.shape[-1] ** 0.5
                result[b, h, i] = sum(
                    w * value[b, h, j] for w, j in zip(scores.softmax(0), seen, strict=True)
                )
    return result


@pytest.mark.parametrize("drop", [0.0, 1e-9])
def test_attention_equals_loops(drop):
    """A dropout that rounds to nothing takes the path with dropout and has the result of the one without."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    for given, causal, allowed in (
        (None, False, lambda b, i, j: True),
        (mask[:, None, None], False, lambda b, i, j: mask[b, j]),
        (None, True, lambda b, i, j: j <= i),
    ):
        ours = attend(query, key, value, given, causal, drop)
        assert torch.allclose(ours, plain_attention(query, key, value, allowed), atol=1e-12)


def test_attention_drops_weights():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 64, 8).unsqueeze(1).unbind(0)
    query, key, value = query[None], key[None], torch.ones(1, 1, 64, 8)
    result = attend(query, key, value, None, False, 0.5)[..., 0]
    assert abs(result.mean().item() - 1) < 0.1
    assert result.std() > 0.02


def test_packing_is_undone_and_skips_padding():
    mask = torch.arange(6) < torch.tensor([[6], [2], [4]])
    layout = layout_of(mask)
    assert isinstance(layout, Packed)
    padded = torch.randn(3, 6, 5, requires_grad=True)
    tokens = layout.pack(padded)
    assert tokens.shape == (12, 5)
    assert layout.pad(tokens).equal(padded * mask[..., None])
    assert layout.first(tokens).equal(padded[:, :1])
    assert layout.positions().tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 2, 3]
    layout.pad(nn.Identity()(tokens)).sum().backward()
    assert padded.grad.equal(mask[..., None].expand(3, 6, 5).float())


def test_nothing_to_pack():
    for mask in (None, torch.ones(2, 3, dtype=torch.bool)):
        layout = layout_of(mask)
        tokens = torch.randn(2, 3, 4)
        assert type(layout) is Dense
        assert layout.pack(tokens) is tokens
        assert layout.pad(tokens) is tokens
