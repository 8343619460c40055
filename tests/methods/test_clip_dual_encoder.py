"""From random weights, methods on CLIP begin with CLIP's own contrast, whatever their losses are."""

from __future__ import annotations

import math

import pytest
import torch

from models.methods.clip_dual_encoder import ClipDualEncoder
from models.registry import METHODS
from tests.methods import method_examples as example

ON_CLIP = [name for name in METHODS if METHODS[name].backbone == "clip"]


@pytest.mark.parametrize("method", ON_CLIP)
def test_a_warm_up_is_clips_contrast(method, words):
    assert issubclass(METHODS[method], ClipDualEncoder)
    model = example.model(method, words).eval()
    batch = example.batch(model, [0, 1, 2, 3, 4, 5])
    with torch.no_grad():
        found = model.warm_up_losses(batch, matching=True)
        _, images = model.encode_images(batch.images)
        _, texts = model.encode_texts(batch.texts)
    costs = 0.0
    for own, others in ((images, texts), (texts, images)):
        for row, feature in enumerate(own):
            cosines = [float(torch.cosine_similarity(feature, other, dim=0)) / 0.07 for other in others]
            costs += math.log(sum(map(math.exp, cosines))) - cosines[row]
    assert set(found) == {"itc"}
    assert found["itc"].item() == pytest.approx(costs / 12, rel=1e-4)
