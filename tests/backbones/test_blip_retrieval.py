"""The three verbs: shapes, sharing of images, independence from padding, gradient checkpointing."""

from __future__ import annotations

import pytest
import torch

from models.backbones.attention import attend
from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.sizes import SIZES
from models.backbones.blip.text import TextShape, TextStack, runs_of
from models.backbones.sizes import size_named
from models.texts import TextBatch


@pytest.fixture(scope="module")
def model(tokenizer, randomise) -> BlipRetrieval:
    model = BlipRetrieval("tiny", tokenizer=tokenizer).eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(4, 3, 96, 48, generator=torch.Generator().manual_seed(1))


def padded_to(batch: TextBatch, width: int) -> TextBatch:
    more = width - batch.ids.shape[1]
    pad = torch.nn.functional.pad
    return TextBatch(pad(batch.ids, (0, more)), pad(batch.mask, (0, more)))


def test_shapes(model, images, captions):
    tokens, features = model.encode_images(images)
    assert tokens.shape == (4, 73, 128)
    assert features.shape == (4, 256)
    text_tokens, text_features = model.encode_texts(captions)
    assert text_tokens.shape[::2] == (4, 128)
    assert text_features.shape == (4, 256)
    assert model.match(captions, tokens).shape == (4, 2)
    assert model.cross_encode(captions, tokens).shape == text_tokens.shape
    assert torch.allclose(features, model.vision_proj(tokens[:, 0]))


def test_strings_and_batches_agree(model, images, captions):
    tokens, _ = model.encode_images(images)
    batch = model.tokenizer(captions)
    before = batch.ids.clone()
    assert model.match(captions, tokens).equal(model.match(batch, tokens))
    assert batch.ids.equal(before), "the caller's ids must not be changed"


def test_match_reads_the_first_token_of_cross_encode(model, images, captions):
    tokens, _ = model.encode_images(images)
    whole = model.itm_head(model.cross_encode(captions, tokens)[:, 0])
    assert torch.allclose(model.match(captions, tokens), whole, atol=1e-5)


def test_grounded_texts_begin_with_enc(model, images, captions):
    """A unimodal pass of the same ids differs from one that begins with [ENC], and grounding uses the latter."""
    tokens, _ = model.encode_images(images)
    batch = model.tokenizer(captions)
    ids = batch.ids.clone()
    ids[:, 0] = model.tokenizer.enc_id
    expected = model.text_encoder(ids, batch.mask, tokens)
    assert torch.allclose(model.cross_encode(batch, tokens), expected, atol=1e-6)
    assert not torch.allclose(
        model.text_encoder(batch.ids, batch.mask, tokens)[:, 0], expected[:, 0], atol=1e-2
    )


@pytest.mark.parametrize("in_order", [False, True])
def test_image_index_equals_repeated_images(model, images, captions, in_order):
    """Also where the texts of an image lie side by side, and share its keys and values without copies."""
    tokens, _ = model.encode_images(images)
    index = torch.tensor([3, 0, 0, 1, 2, 3, 3])
    index = index.sort().values if in_order else index
    texts = model.tokenizer([captions[i % 4] for i in range(7)])
    for verb in (model.match, model.cross_encode):
        results = []
        for given in ((tokens, index), (tokens[index], None)):
            source = given[0].detach().requires_grad_()
            result = verb(texts, source, given[1])
            loss = (result * torch.arange(result.numel()).reshape(result.shape).sin()).sum()
            results.append((result, torch.autograd.grad(loss, source)[0]))
        assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
        summed = torch.zeros_like(tokens).index_add(0, index, results[1][1])
        assert torch.allclose(results[0][1], summed, atol=1e-3)


def test_runs_of_texts_with_one_image():
    assert runs_of(torch.tensor([1, 1, 1, 4, 7, 7])) == [(1, 0, 3), (4, 3, 4), (7, 4, 6)]
    assert runs_of(torch.tensor([2])) == [(2, 0, 1)]
    assert runs_of(torch.tensor([0, 1, 0])) is None
    assert runs_of(torch.tensor([0, 0], device="meta")) is None


def test_texts_side_by_side_copy_no_keys(model, images, captions, monkeypatch):
    """An image's texts are one text to it: attention sees as many rows as there are images."""
    from models.backbones.blip import text

    seen = []
    monkeypatch.setattr(text, "attend", lambda q, *rest: seen.append(len(q)) or attend(q, *rest))
    tokens, _ = model.encode_images(images[:2])
    index = torch.tensor([0, 0, 0, 1])
    model.match(captions, tokens, index)
    assert seen == [4, 1, 1] * model.size.text_layers


def test_images_are_projected_once(model, images, captions):
    tokens, _ = model.encode_images(images[:2])
    seen = []
    key = model.text_encoder.encoder.layer[1].crossattention.self.key
    hook = key.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    model.match(captions * 5, tokens, torch.arange(20) % 2)
    hook.remove()
    assert seen == [2]


@pytest.mark.parametrize("mode", ["unimodal", "cross_encode", "match"])
def test_results_do_not_depend_on_padding(model, images, captions, mode):
    """Padded to 73 or trimmed, alone or in a batch, packed or not: the same to 1e-5."""
    tokens, _ = model.encode_images(images)
    trimmed = model.tokenizer(captions)
    wide = padded_to(trimmed, 73)
    alone = [model.tokenizer([caption]) for caption in captions]

    def run(texts: TextBatch, image_tokens: torch.Tensor) -> torch.Tensor:
        if mode == "unimodal":
            return model.encode_texts(texts)[0]
        return getattr(model, mode)(texts, image_tokens)

    with torch.no_grad():
        short, long = run(trimmed, tokens), run(wide, tokens)
        width = short.shape[1]
        real = trimmed.mask if mode != "match" else torch.ones_like(short, dtype=torch.bool)
        assert torch.allclose(short[real], long[:, :width][real], atol=1e-5, rtol=1e-5)
        for row, text in enumerate(alone):
            single = run(text, tokens[row : row + 1])
            length = single.shape[1]
            assert torch.allclose(short[row, :length], single[0], atol=1e-5, rtol=1e-5)


def test_packed_and_padded_computations_agree(model, images, captions, monkeypatch):
    """On a GPU nothing is packed; the CPU's packed pass must be the same function."""
    from models.backbones.attention import Dense
    from models.backbones.blip import text

    tokens, _ = model.encode_images(images)
    packed = model.cross_encode(captions, tokens)
    mask = model.tokenizer(captions).mask
    monkeypatch.setattr(text, "layout_of", lambda mask: Dense())
    assert torch.allclose(model.cross_encode(captions, tokens)[mask], packed[mask], atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_nothing_but_memory(tokenizer, images, monkeypatch):
    torch.manual_seed(0)
    plain = BlipRetrieval("tiny", tokenizer=tokenizer).train()
    saving = BlipRetrieval("tiny", tokenizer=tokenizer, vit_grad_ckpt=True, vit_ckpt_layer=2).train()
    saving.load_state_dict(plain.state_dict())
    runs = []
    block = saving.visual_encoder.blocks[0]
    block.norm1.register_forward_hook(lambda *_: runs.append(1))
    for model in (plain, saving):
        model.encode_images(images)[1].square().sum().backward()
    assert len(runs) == 2, "the first block runs again in the backward pass"
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, atol=1e-5), name


def test_dropout_acts_in_training_only(tokenizer, captions):
    model = BlipRetrieval("tiny", tokenizer=tokenizer, dropout=0.3)
    model.train()
    assert not torch.allclose(model.encode_texts(captions)[1], model.encode_texts(captions)[1])
    model.eval()
    assert model.encode_texts(captions)[1].equal(model.encode_texts(captions)[1])


def test_sizes():
    assert SIZES["tiny"].image_size == (96, 48)
    assert (SIZES["base"].vision_width, SIZES["base"].vision_depth, SIZES["base"].patch) == (768, 12, 16)
    assert (SIZES["large"].vision_width, SIZES["large"].vision_depth, SIZES["large"].text_width) == (
        1024,
        24,
        768,
    )
    assert {size.embed_dim for size in SIZES.values()} == {256}
    with pytest.raises(ValueError, match="tiny, base, large"):
        size_named("huge", SIZES)


def test_bad_input_is_refused(model, images, captions, tokenizer):
    with pytest.raises(ValueError, match="multiples of the patch"):
        BlipRetrieval("tiny", (100, 50), tokenizer=tokenizer)
    with pytest.raises(ValueError, match="set image_size"):
        model.encode_images(torch.zeros(1, 3, 48, 96))
    with pytest.raises(ValueError, match="needs a tokenizer"):
        BlipRetrieval("tiny")
    tokens, _ = model.encode_images(images)
    with pytest.raises(ValueError, match="pair up"):
        model.match(captions[:2], tokens)
    with pytest.raises(ValueError, match="pair up"):
        model.match(captions, tokens, torch.tensor([0]))


@pytest.mark.parametrize(("width", "spread"), [(768, 0.02), (128, 0.02 * 6**0.5)])
def test_a_narrow_text_stack_begins_as_loud_as_berts(width, spread):
    torch.manual_seed(0)
    stack = TextStack(TextShape(60, width, 1, 4, 2 * width, 64))
    for name, weight in stack.named_parameters():
        if weight.ndim == 2:
            expected = 0.02 if name.startswith("embeddings.") else spread
            assert weight[1:].std().item() == pytest.approx(expected, rel=0.05), name
