"""Memory is used again when nothing looks at it, and never before."""

from __future__ import annotations

import gc

import torch
from hypothesis import given
from hypothesis import strategies as st

from data.buffers import Buffers


def test_memory_that_nothing_looks_at_is_used_again():
    buffers = Buffers()
    first = buffers.empty(4, 3, 8, 8)
    assert first.is_contiguous()
    assert (first.dtype, first.shape) == (torch.float32, (4, 3, 8, 8))
    place = first.data_ptr()
    del first
    assert buffers.empty(4, 3, 8, 8).data_ptr() == place
    assert buffers.empty(2, 3, 8, 8).data_ptr() == place  # a last, smaller batch
    larger = buffers.empty(9, 3, 8, 8)
    larger.fill_(1.0)
    assert larger.sum() == larger.numel()


def test_a_slice_a_view_or_a_gradient_keeps_it():
    buffers = Buffers()
    for keep in (
        lambda tensor: tensor[1:2],
        lambda tensor: tensor.view(-1)[::7],
        lambda tensor: tensor.numpy(),
        lambda tensor: (torch.ones((), requires_grad=True) * tensor).sum(),
    ):
        tensor = buffers.empty(2, 3)
        place, kept = tensor.data_ptr(), keep(tensor)
        del tensor
        gc.collect()
        other = buffers.empty(2, 3)
        assert other.data_ptr() != place
        del kept, other


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_what_is_held_keeps_its_values(steps):
    buffers, held = Buffers(), []
    for number, (size, keep) in enumerate(steps):
        tensor = buffers.empty(size, 2).fill_(number)
        if keep:
            held.append((tensor[: size // 2], number))
        elif held:
            held.pop(0)
        del tensor
        assert all((values == expected).all() for values, expected in held)
