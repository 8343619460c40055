from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from retrieval.encode import TokenStore, encode_gallery, encode_queries


def test_gallery_equals_one_pass_over_all_images(tiny_model, tiny_images):
    gallery = encode_gallery(tiny_model, tiny_images.split(7), 24)
    tokens, features = tiny_model.eval().encode_images(tiny_images)
    assert gallery.features.dtype == torch.float32
    torch.testing.assert_close(gallery.features, normalize(features, dim=1).detach())
    torch.testing.assert_close(gallery.features.norm(dim=1), torch.ones(24))
    assert gallery.tokens.read(np.arange(24)).dtype == torch.float16
    torch.testing.assert_close(
        gallery.tokens.read(np.arange(24)), tokens.detach().half(), rtol=2e-3, atol=1e-4
    )


def test_encoding_leaves_the_model_as_it_was(tiny_model, tiny_images, captions):
    encode_gallery(tiny_model, tiny_images.split(7), 24)
    encode_queries(tiny_model, captions)
    assert tiny_model.training
    assert torch.is_grad_enabled()


def test_large_galleries_lie_on_disk_and_read_the_same(tiny_model, tiny_images, tmp_path):
    memory = encode_gallery(tiny_model, tiny_images.split(5), 24)
    disk = encode_gallery(tiny_model, tiny_images.split(5), 24, directory=tmp_path / "new", memory_limit=100)
    assert disk.tokens.on_disk
    assert not memory.tokens.on_disk
    rows = np.array([23, 0, 0, 7])
    torch.testing.assert_close(disk.tokens.read(rows), memory.tokens.read(rows), rtol=0, atol=0)
    disk.close()


def test_the_file_takes_its_room_at_once_and_has_no_name_that_a_kill_could_leave_behind(tmp_path):
    store = TokenStore((4, 2, 3), directory=tmp_path, memory_limit=0)
    assert not list(tmp_path.iterdir())
    held = os.fstat(store._file.fileno())
    assert held.st_size == 4 * 2 * 3 * 2
    assert held.st_blocks * 512 >= held.st_size
    store.write(0, torch.ones(4, 2, 3))
    store.close()
    assert store._file.closed


def test_a_full_disk_is_said_before_encoding(tmp_path):
    with pytest.raises(ValueError, match="GB free"):
        TokenStore((10**9, 197, 768), directory=tmp_path)


def test_single_precision_tokens(tiny_model, tiny_images):
    gallery = encode_gallery(tiny_model, [tiny_images], 24, token_dtype=torch.float32)
    tokens = tiny_model.eval().encode_images(tiny_images)[0].detach()
    torch.testing.assert_close(gallery.tokens.read(np.arange(24)), tokens, rtol=0, atol=0)
    with pytest.raises(ValueError, match="float16 or float32"):
        TokenStore((1, 1, 1), torch.bfloat16)


@pytest.mark.parametrize("count", [23, 25])
def test_another_number_of_images_is_an_error(tiny_model, tiny_images, count):
    with pytest.raises(ValueError, match="announced"):
        encode_gallery(tiny_model, tiny_images.split(7), count)


def test_no_images_is_an_error(tiny_model):
    with pytest.raises(ValueError, match="Only 0 of 3"):
        encode_gallery(tiny_model, [], 3)


def test_queries_equal_one_at_a_time(tiny_model, captions):
    features = encode_queries(tiny_model, captions, batch_size=6)
    assert tiny_model.tokenizer.asked == len(captions)
    tiny_model.eval()
    for caption, feature in zip(captions, features, strict=True):
        alone = tiny_model.encode_texts(tiny_model.tokenizer([caption]))[1][0].detach()
        torch.testing.assert_close(feature, alone / alone.norm(), rtol=1e-5, atol=1e-6)


def test_no_caption_is_an_error(tiny_model):
    with pytest.raises(ValueError, match="no caption"):
        encode_queries(tiny_model, [])


def test_progress_reaches_the_end(tiny_model, tiny_images, captions):
    seen = []
    encode_gallery(tiny_model, tiny_images.split(7), 24, progress=lambda *step: seen.append(step))
    assert seen == [(7, 24), (14, 24), (21, 24), (24, 24)]
    seen.clear()
    encode_queries(tiny_model, captions, 16, progress=lambda *step: seen.append(step))
    assert seen == [(16, 40), (32, 40), (40, 40)]


def test_tokens_can_be_left_out(tiny_model, tiny_images):
    gallery = encode_gallery(tiny_model, [tiny_images], 24, token_dtype=None)
    assert gallery.tokens is None
    assert len(gallery) == 24
    gallery.close()
