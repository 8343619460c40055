"""The verbs of CLIP: shapes, what padding and images of other sizes do, precision."""

from __future__ import annotations

import pytest
import torch

from models.backbones.clip.retrieval import ClipRetrieval
from models.backbones.clip.sizes import Size
from models.backbones.clip.tokenizer import ClipTokenizer

EVA = Size(32, 64, 2, 2, 8, 32, 2, 2, (32, 16), vision_mlp=8 / 3, rotary=True)


@pytest.fixture(scope="module")
def words(captions, tmp_path_factory) -> ClipTokenizer:
    return ClipTokenizer.train(captions * 2, tmp_path_factory.mktemp("pairs"), vocab_size=160)


@pytest.mark.parametrize("size", ["tiny", EVA], ids=["tiny", "eva"])
def test_tokens_begin_with_the_feature_or_end_in_it(size, words, captions):
    model = ClipRetrieval(size, (32, 16), words).eval()
    tokens, features = model.encode_images(torch.randn(3, 3, 32, 16))
    assert tokens.shape == (3, 9, model.size.embed_dim)
    torch.testing.assert_close(features, tokens[:, 0], rtol=1e-4, atol=1e-5)
    texts = words(captions)
    tokens, features = model.encode_texts(captions)
    assert tokens.shape == (4, texts.ids.shape[1], model.size.embed_dim)
    for row, length in enumerate(texts.mask.sum(1).tolist()):
        torch.testing.assert_close(features[row], tokens[row, length - 1], rtol=1e-4, atol=1e-5)
        _, alone = model.encode_texts(captions[row : row + 1])  # padding changes nothing
        torch.testing.assert_close(alone[0], features[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", ["tiny", EVA], ids=["tiny", "eva"])
def test_features_are_single_precision_under_autocast(size, words, captions):
    model = ClipRetrieval(size, (32, 16), words).eval()
    images = torch.randn(3, 3, 32, 16)
    exact = model.encode_images(images)[1], model.encode_texts(captions)[1]
    with torch.autocast("cpu", torch.bfloat16):
        tokens, features = model.encode_images(images)
        rounded = features, model.encode_texts(captions)[1]
    assert tokens.dtype == torch.bfloat16
    for one, other in zip(rounded, exact, strict=True):
        assert one.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(one, other).min() > 0.99


@pytest.mark.parametrize("size", ["tiny", EVA], ids=["tiny", "eva"])
def test_recomputed_activations_give_the_same_gradients(size, words):
    images = torch.randn(2, 3, 32, 16)
    gradients = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        model = ClipRetrieval(size, (32, 16), words, vit_grad_ckpt=recomputed).train()
        model.encode_images(images)[1].sum().backward()
        gradients.append([p.grad for p in model.visual.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size", ["tiny", EVA], ids=["tiny", "eva"])
def test_image_sizes_are_checked(size, words):
    with pytest.raises(
        ValueError, match="image_size 30x16 must be multiples of the patch, 8 pixels: use 32x16"
    ):
        ClipRetrieval(size, (30, 16), words)
    with pytest.raises(ValueError, match="images are 16x32 but the model was built for 32x16"):
        ClipRetrieval(size, (32, 16), words).encode_images(torch.zeros(1, 3, 16, 32))


def test_what_a_model_can_not_be_built_from(words):
    with pytest.raises(ValueError, match="needs a tokenizer"):
        ClipRetrieval("tiny")
    with pytest.raises(ValueError, match="'huge' is unknown: choose one of tiny, base, eva02-base"):
        ClipRetrieval("huge", tokenizer=words)
