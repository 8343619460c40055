"""Pixels on the pretended GPU: normalised and augmented there, with the CPU's values."""

from __future__ import annotations

import torch

from data.transforms import augment, normalise
from tests.cuda.pretend_gpu import CUDA, GpuTensor


def test_pixels_are_normalised_and_augmented_on_the_device(gpu):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (9, 32, 16, 3), generator=generator, dtype=torch.uint8)
    seeds = torch.arange(9) * 7919
    on_device = pixels.to(CUDA)
    with gpu.no_reads():
        plain = normalise(on_device)
        drawn = augment(on_device, seeds, pad=4)
    assert isinstance(plain, GpuTensor)
    assert isinstance(drawn, GpuTensor)
    torch.testing.assert_close(plain.cpu(), normalise(pixels), rtol=0, atol=1e-5)
    torch.testing.assert_close(drawn.cpu(), augment(pixels, seeds, pad=4), rtol=0, atol=1e-5)


def test_a_feed_gives_batches_of_the_device(gpu, feed):
    with gpu.no_reads():
        batches = list(feed((32, 16)).batches(10, CUDA))
    assert [len(batch) for batch in batches] == [10, 10, 4]
    expected = torch.cat(list(feed((32, 16)).batches(24, torch.device("cpu"))))
    torch.testing.assert_close(torch.cat(batches).cpu(), expected, rtol=0, atol=1e-5)
