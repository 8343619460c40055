"""SSAN's model: its verbs, what both modalities share, sizes, precision, and that its losses teach it something."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import cross_entropy

from losses.compound_ranking import OWN_CAPTION, compound_ranking_loss, negative_draws, ranking_term
from losses.part_identity import part_identity_loss
from models.backbones.linear import narrow
from models.backbones.resnet_lstm.retrieval import ResNetLstm
from models.backbones.resnet_lstm.sizes import SIZES, Size
from models.backbones.resnet_lstm.words import Words
from models.backbones.sizes import size_named
from models.texts import TextBatch

SMALL = Size("basic", (1, 1, 1, 1), 4, 1, 8, 12, 8, 3, (48, 24))


@pytest.fixture(scope="module")
def words(captions, tmp_path_factory) -> Words:
    return Words.train(captions * 2, tmp_path_factory.mktemp("words"), vocab_size=100)


@pytest.fixture
def model(words) -> ResNetLstm:
    torch.manual_seed(0)
    return ResNetLstm(SMALL, tokenizer=words).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(4, 3, 48, 24, generator=torch.Generator().manual_seed(1))


def test_verbs(model, images, captions):
    for tokens, features, parts in (
        (*model.encode_images(images), model.image_parts(images)),
        (*model.encode_texts(captions), model.text_parts(captions)),
    ):
        assert tokens.shape == (4, 3, 12)
        assert features.shape == (4, 12 + 3 * 12 + 3 * 8)
        assert tokens.equal(parts.local)
        assert features.equal(parts.features)
        assert parts.global_.shape == (4, 12)
        assert parts.relation.shape == (4, 3, 8)
        assert not features.isnan().any()
    assert model.image_size == (48, 24)
    assert model.device == torch.device("cpu")


def test_both_modalities_share_all_but_their_encoders(model, images, captions):
    """The levels from the encoders' maxima, written out once more for either."""
    batch = model.tokenizer(captions)
    for (whole, stripes), parts in (
        (model.image_encoder(images), model.image_parts(images)),
        (model.text_encoder(batch.ids, batch.mask), model.text_parts(captions)),
    ):
        assert torch.allclose(parts.global_, whole @ model.global_projection.weight.T, atol=1e-6)
        for k in range(3):
            local = stripes[:, k] @ model.part_projection.weight[k].T
            assert torch.allclose(parts.local[:, k], torch.where(local > 0, local, local / 4), atol=1e-6)
        assert torch.allclose(parts.relation, model.relation_network(parts.local), atol=1e-6)


def test_strings_and_batches_agree(model, captions):
    batch = model.tokenizer(captions)
    before = batch.ids.clone()
    assert model.encode_texts(captions)[1].equal(model.encode_texts(batch)[1])
    assert batch.ids.equal(before)


@torch.no_grad()
def test_features_do_not_depend_on_padding_or_batch_mates(model, images, captions):
    batch = model.tokenizer(captions)
    pad = torch.nn.functional.pad
    wide = TextBatch(pad(batch.ids, (0, 30)), pad(batch.mask, (0, 30)))
    features = model.encode_texts(batch)[1]
    assert torch.allclose(model.encode_texts(wide)[1], features, atol=1e-6)
    for row, caption in enumerate(captions):
        assert torch.allclose(model.encode_texts([caption])[1][0], features[row], atol=1e-6)
    together = model.encode_images(images)[1]
    for row in range(4):
        assert torch.allclose(model.encode_images(images[row : row + 1])[1][0], together[row], atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_captions_without_a_known_word_have_features(model, captions, training):
    model.train(training)
    for batch in (model.tokenizer(["zebra", captions[0]]), model.tokenizer(["zebra", "zebra"]).trim()):
        model.zero_grad()
        parts = model.text_parts(batch)
        assert parts.features.isfinite().all()
        assert parts.global_[0].eq(0).all()
        (parts.features * torch.arange(1.0, 73)).sum().backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_everything_after_the_encoders_is_single_precision(model, images, captions):
    exact = model.image_parts(images), model.text_parts(captions)
    seen = []
    model.image_encoder.layer4.register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    model.text_encoder.lstm.register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.image_parts(images), model.text_parts(captions)
    assert seen == [torch.bfloat16] * 2
    for ours, theirs in zip(rough, exact, strict=True):
        for name in ("global_", "local", "relation", "features"):
            assert getattr(ours, name).dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(ours.features, theirs.features).min() > 0.99


def test_it_searches_with_narrow_weights(model, images, captions):
    """As `search.py --precision bf16` does: the body's weights are rounded, the layer that makes features keeps its own."""
    before = model.global_projection.weight.detach().clone()
    narrow(model.eval())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.encode_images(images)[1], model.encode_texts(captions)[1]
    assert {feature.dtype for feature in features} == {torch.float32}
    assert torch.equal(model.global_projection.weight, before)


def test_base_has_as_many_weights_as_the_formula():
    vocabulary = 5000  # about CUHK-PEDES' own
    with torch.device("meta"):
        model = ResNetLstm("base", tokenizer=Words([f"w{number}" for number in range(vocabulary)]))
    resnet_50 = 25_557_032 - 2049 * 1000  # torchvision's, without its classifier
    expected = (
        resnet_50
        + 7 * 2048 * 1024  # projections, of the whole and of six parts
        + 2 * (vocabulary + 1) * 512  # embeddings, padding included
        + 2 * 4 * 2048 * (512 + 2048)  # LSTM, two directions of four gates
        + 6 * 2048  # word attention
        + 6 * (4 * 1024 * 512 + 2 * 1024)  # relations, with BatchNorm
    )
    count = sum(weight.numel() for weight in model.parameters())
    assert count == expected
    assert round(count / 1e6, 1) == 97.9
    assert model.image_size == (384, 128)
    assert SIZES["base"].state_width == 2048


def test_tiny_is_small():
    model = ResNetLstm("tiny", tokenizer=Words([f"w{number}" for number in range(300)]))
    count = sum(weight.numel() for weight in model.parameters())
    assert 1e6 < count < 2e6
    assert model.encode_images(torch.zeros(2, 3, 96, 48))[0].shape == (2, 6, 128)


def test_the_losses_teach_it_the_pairs(words, images, captions):
    torch.manual_seed(0)
    model = ResNetLstm(SMALL, tokenizer=words, dropout=0.0).train()
    classifier = torch.nn.Linear(12, 4)
    optimiser = torch.optim.Adam([*model.parameters(), *classifier.parameters()], lr=1e-2)
    labels, seeds = torch.arange(4), torch.arange(4)
    values = []
    for step in range(40):
        image, text = model.image_parts(images), model.text_parts(captions)
        ranking = sum(
            ranking_term(ours @ theirs.T, labels, 0.2, negative_draws(seeds + step, level, OWN_CAPTION))
            for level, (ours, theirs) in enumerate(zip(image.levels, text.levels, strict=True))
        )
        identity = cross_entropy(classifier(image.global_), labels) + cross_entropy(
            classifier(text.global_), labels
        )
        optimiser.zero_grad()
        (ranking + identity).backward()
        optimiser.step()
        values.append(identity.item())
    assert values[-1] < 0.5 * values[0]
    scores = model.encode_texts(captions)[1] @ model.encode_images(images)[1].T
    assert scores.argmax(1).equal(labels)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_needs_no_value_on_the_host(words, autocast):
    """On tensors that have shapes and no values: whatever waits for the device, or takes a shape from it, fails here."""
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model, ids = ResNetLstm(SMALL, tokenizer=words).train(), torch.ones(6, 9, dtype=torch.int64)
        texts = TextBatch(ids, ids > 0, full=False)
        images, captions = model.image_parts(torch.zeros(6, 3, 48, 24)), model.text_parts(texts)
        labels, seeds = torch.arange(6), torch.arange(6)
        losses = [
            compound_ranking_loss(ours @ theirs.T, ours @ theirs.T, labels > 0, labels, seeds, epoch, level)
            for epoch in (0, 5)
            for level, (ours, theirs) in enumerate(zip(images.levels, captions.levels, strict=True))
        ]
        losses.append(part_identity_loss(images.local, captions.local, labels))
        sum(losses).backward()
        assert all(weight.grad is not None for weight in model.parameters())
        with pytest.raises(DataDependentOutputException):
            losses[0].item()


def test_bad_input_is_refused(model, words):
    with pytest.raises(ValueError, match="needs a tokenizer"):
        ResNetLstm("tiny")
    with pytest.raises(ValueError, match="tiny, base"):
        size_named("large", SIZES)
    with pytest.raises(ValueError, match="too low"):
        ResNetLstm("tiny", (64, 48), tokenizer=words)
    with pytest.raises(ValueError, match="set image_size"):
        model.encode_images(torch.zeros(1, 3, 24, 48))
