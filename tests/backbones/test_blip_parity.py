"""Same weights, same numbers: our stacks against transformers' BLIP, outputs and gradients.

In double precision, where agreement cannot be rounding's luck: twelve layers of random weights amplify single
precision's rounding to a few 1e-4 of a gradient.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from models.backbones.blip.captioner import BlipCaptioner
from models.backbones.blip.sizes import SIZES
from models.backbones.blip.text import TextShape, TextStack
from models.backbones.blip.tokenizer import BlipTokenizer
from models.backbones.blip.vision import BlipVision

TOLERANCE = 1e-8
SIZES_TO_TEST = ["tiny", pytest.param("base", marks=pytest.mark.integration)]


def vision_config(size: str, image: int) -> BlipVisionConfig:
    ours = SIZES[size]
    return BlipVisionConfig(
        hidden_size=ours.vision_width,
        intermediate_size=4 * ours.vision_width,
        num_hidden_layers=ours.vision_depth,
        num_attention_heads=ours.vision_heads,
        image_size=image,
        patch_size=ours.patch,
        layer_norm_eps=1e-6,  # what the authors trained with; transformers' default is 1e-5
    )


def text_config(size: str, vocabulary: int) -> BlipTextConfig:
    ours = SIZES[size]
    return BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=ours.text_width,
        encoder_hidden_size=ours.vision_width,
        intermediate_size=ours.text_ffn,
        num_hidden_layers=ours.text_layers,
        num_attention_heads=ours.text_heads,
    )


def text_shape(size: str, vocabulary: int) -> TextShape:
    ours = SIZES[size]
    return TextShape(
        vocabulary,
        ours.text_width,
        ours.text_layers,
        ours.text_heads,
        ours.text_ffn,
        ours.vision_width,
        dropout=0.0,
    )


def our_vision_name(name: str) -> str:
    name = name.replace("embeddings.class_embedding", "cls_token").replace(
        "embeddings.position_embedding", "pos_embed"
    )
    name = name.replace("embeddings.patch_embedding", "patch_embed.proj").replace("post_layernorm", "norm")
    name = name.replace("encoder.layers.", "blocks.").replace("layer_norm", "norm")
    return name.replace("self_attn.qkv", "attn.qkv").replace("self_attn.projection", "attn.proj")


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max()
    difference = ((ours - theirs).abs().max() / scale).item()
    assert difference < TOLERANCE, f"{what} differs by {difference:.1e} of its largest entry"


def assert_same_gradients(
    ours: nn.Module, theirs: nn.Module, rename=lambda name: name, unused: str = r"$^"
) -> None:
    """Every gradient agrees, and none is zero (a key's bias apart, to which softmax is blind): nothing is left out."""
    references = {rename(name): parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max(gradient.abs().max() for gradient in references.values() if gradient is not None)
    for name, parameter in ours.named_parameters():
        reference = references[name]
        if re.search(unused, name):
            assert parameter.grad is reference is None, f"{name} should play no part"
            continue
        if name.endswith("key.bias"):
            assert parameter.grad.abs().max() < TOLERANCE * largest
            continue
        assert reference.abs().max() > 1e-6 * largest, f"the test does not exercise {name}"
        assert_close(parameter.grad, reference, f"gradient of {name}")


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weighted_sum(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor * normal(9, *tensor.shape)).sum()


@pytest.fixture(scope="module", params=SIZES_TO_TEST)
def vision_pair(request, randomise):
    size = request.param
    theirs = BlipVisionModel(vision_config(size, 64)).eval().double()
    randomise(theirs)
    ours = BlipVision(SIZES[size], (64, 64)).eval().double()
    ours.load_state_dict(
        {our_vision_name(name): tensor for name, tensor in theirs.state_dict().items()}, strict=True
    )
    return ours, theirs, normal(1, 2, 3, 64, 64)


def test_image_encoder_equals_transformers(vision_pair):
    ours, theirs, images = vision_pair
    mine, reference = ours(images), theirs(images).last_hidden_state
    assert_close(mine, reference, "image tokens")
    weighted_sum(mine).backward()
    weighted_sum(reference).backward()
    assert_same_gradients(ours, theirs, our_vision_name)


@pytest.mark.parametrize("vision_pair", ["tiny"], indirect=True)
def test_image_encoder_would_notice_a_dropped_block(vision_pair):
    ours, _, images = vision_pair
    with torch.no_grad():
        whole = ours(images)
        for number in range(len(ours.blocks)):
            block, ours.blocks[number] = ours.blocks[number], nn.Identity()
            assert (ours(images) - whole).abs().max() > 1e-2
            ours.blocks[number] = block


@pytest.fixture(scope="module", params=SIZES_TO_TEST)
def text_pair(request, randomise):
    size, vocabulary = request.param, 200
    theirs = BlipTextModel(text_config(size, vocabulary), add_pooling_layer=False).eval().double()
    randomise(theirs)
    ours = TextStack(text_shape(size, vocabulary)).eval().double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([21, 4, 13])
    mask = torch.arange(21) < lengths[:, None]
    ids = torch.randint(5, vocabulary, (3, 21), generator=generator) * mask
    return ours, theirs, ids, mask, normal(3, 3, 17, SIZES[size].vision_width)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("grounded", [True, False])
def test_text_encoder_equals_transformers(text_pair, grounded, padded):
    ours, theirs, ids, mask, image_tokens = text_pair
    if not padded:
        ids, mask = ids[:, :4], mask[:, :4]
    ours.zero_grad(set_to_none=True)
    theirs.zero_grad(set_to_none=True)
    mine_image = image_tokens.clone().requires_grad_()
    their_image = image_tokens.clone().requires_grad_()
    mine = ours(ids, mask if padded else None, mine_image if grounded else None)
    extra = {"encoder_hidden_states": their_image} if grounded else {}
    reference = theirs(input_ids=ids, attention_mask=mask.long(), **extra).last_hidden_state
    assert_close(mine[mask], reference[mask], "text tokens")
    weighted_sum(mine[mask]).backward()
    weighted_sum(reference[mask]).backward()
    assert_same_gradients(ours, theirs, unused=r"$^" if grounded else "crossattention")
    if grounded:
        assert_close(mine_image.grad, their_image.grad, "gradient of the image tokens")


@pytest.mark.parametrize("text_pair", ["tiny"], indirect=True)
def test_text_encoder_would_notice_what_is_dropped(text_pair):
    ours, _, ids, mask, image_tokens = text_pair
    with torch.no_grad():
        whole = ours(ids, mask, image_tokens)
        changed = {
            "mask": ours(ids, None, image_tokens),
            "image": ours(ids, mask),
            "other image": ours(ids, mask, image_tokens.flip(0)),
            "causality": ours(ids, mask, image_tokens, causal=True),
        }
        for number, layer in enumerate(ours.encoder.layer):
            hook = layer.register_forward_hook(lambda _, inputs, output: inputs[0])
            changed[f"layer {number}"] = ours(ids, mask, image_tokens)
            hook.remove()
    for what, other in changed.items():
        rows = mask.clone()
        rows[0] = what != "mask"  # the longest text has no padding
        assert (other - whole)[rows].abs().max() > 1e-2, f"nobody would miss: {what}"


def captioner_pair(size: str, tokenizer: BlipTokenizer, randomise):
    config = BlipConfig(
        text_config=text_config(size, tokenizer.vocab_size).to_dict(),
        vision_config=vision_config(size, 64).to_dict(),
    )
    theirs = BlipForConditionalGeneration(config).eval().double()
    randomise(theirs)
    ours = BlipCaptioner(size, (64, 64), tokenizer=tokenizer, dropout=0.0).eval().double()
    state = theirs.state_dict()
    ours.visual_encoder.load_state_dict(
        {
            our_vision_name(n.removeprefix("vision_model.")): t
            for n, t in state.items()
            if n.startswith("vision_model.")
        }
    )
    ours.text_decoder.load_state_dict(theirs.text_decoder.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("size", SIZES_TO_TEST)
def test_captioner_equals_transformers(size, tokenizer, randomise):
    ours, theirs = captioner_pair(size, tokenizer, randomise)
    images = normal(4, 2, 3, 64, 64)
    mask = torch.arange(15) < torch.tensor([[15], [9]])
    ids = torch.randint(5, tokenizer.vocab_size, (2, 15), generator=torch.Generator().manual_seed(5)) * mask
    mine = ours.logits(ours.encode_images(images), ids)
    reference = theirs(pixel_values=images, input_ids=ids, attention_mask=mask.long()).logits
    assert_close(mine[mask], reference[mask], "next-word logits")
    weighted_sum(mine[mask]).backward()
    weighted_sum(reference[mask]).backward()
    assert_same_gradients(ours.text_decoder, theirs.text_decoder)
    assert_same_gradients(ours.visual_encoder, theirs.vision_model, our_vision_name)


@pytest.mark.parametrize("prompt", ["the man", ""])
def test_greedy_captions_equal_transformers_generate(prompt, tokenizer, randomise):
    ours, theirs = captioner_pair("tiny", tokenizer, randomise)
    tokens = ours.encode_images(normal(6, 3, 3, 64, 64)).detach()
    start = torch.tensor([tokenizer.prompt_ids(prompt)] * 3)
    rules = {"repetition_penalty": 1.1, "min_length": 20, "max_length": 30}
    reference = theirs.text_decoder.generate(
        input_ids=start,
        encoder_hidden_states=tokens,
        eos_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
        suppress_tokens=sorted(tokenizer.special_ids - {tokenizer.sep_id}),
        do_sample=False,
        **rules,
    )
    mine = ours.generate(tokens, [prompt] * 3, seeds=[0] * 3, greedy=True, **rules)
    for text, row in zip(mine, reference, strict=True):
        continuation = tokenizer.decode(row[start.shape[1] :])
        assert text == f"{prompt} {continuation}".strip()
