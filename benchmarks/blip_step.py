"""Forward and backward of BLIP base, ours against transformers', the same shapes in one run.

One step: images through the image encoder, texts through the text encoder alone and grounded in the images' tokens,
a scalar of all three, its gradients. Training mode with the text stack's dropout of 0.1, in fp32 and, on a processor
that multiplies it, under bf16 autocast. Threads that wait should sleep, not spin:

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/blip_step.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import in_turns, machine_of, parser_of, precisions_of, profile_of, rows_of, write_csv
from models.backbones.blip.sizes import SIZES
from models.backbones.blip.text import TextShape, TextStack
from models.backbones.blip.vision import LAYER_NORM_EPS, BlipVision

VOCABULARY = 30524


class Ours(nn.Module):
    """The two encoders of `BlipRetrieval`, without its tokenizer."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        base = SIZES["base"]
        shape = TextShape(
            VOCABULARY, base.text_width, base.text_layers, base.text_heads, base.text_ffn, base.vision_width
        )
        self.vision = BlipVision(base, (image_size, image_size))
        self.text = TextStack(shape)

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.vision(images)
        return tokens[:, 0], self.text(ids, mask)[:, 0], self.text(ids, mask, tokens)[:, 0]


class Theirs(nn.Module):
    """transformers' BlipVisionModel and BlipTextModel with the released model's twelve heads."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipVisionConfig
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        text = BlipTextConfig(
            num_attention_heads=12, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1
        )
        self.vision = BlipVisionModel(BlipVisionConfig(image_size=image_size, layer_norm_eps=LAYER_NORM_EPS))
        self.text = BlipTextModel(text, add_pooling_layer=False)

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.vision(images).last_hidden_state
        alone = self.text(input_ids=ids, attention_mask=mask).last_hidden_state
        grounded = self.text(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=tokens
        ).last_hidden_state
        return tokens[:, 0], alone[:, 0], grounded[:, 0]


def stepper(model: nn.Module, inputs: tuple[Tensor, ...], bf16: bool) -> Callable[[], None]:
    """One forward and backward pass in training mode."""
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            parts = model(*inputs)
        sum(part.float().square().mean() for part in parts).backward()

    return step


def inputs_of(batch: int, image_size: int, text_length: int) -> tuple[Tensor, ...]:
    """Images, words and masks: captions of a person have 20 to 60 tokens, so some padding, the same for both."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, image_size, image_size)
    lengths = torch.linspace(text_length // 3, text_length, batch).long()
    mask = torch.arange(text_length) < lengths[:, None]
    return images, torch.randint(1000, VOCABULARY, mask.shape) * mask, mask


def main() -> None:
    """Runs the comparison and writes the CSV."""
    parser = parser_of(__doc__, repetitions=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--text-length", type=int, default=73)
    options = parser.parse_args()
    machine_of("cpu", "fp32")  # chooses the library
    inputs = inputs_of(options.batch, options.image_size, options.text_length)
    actions = {}
    for name, model in (("transformers", Theirs(options.image_size)), ("ours", Ours(options.image_size))):
        for precision in precisions_of("cpu"):
            label = f"{name}, bf16" if precision == "bf16" else name
            actions[label] = stepper(model, inputs, precision == "bf16")
    if options.profile:
        for name, action in actions.items():
            action()
            print(f"\n{name}\n\n{profile_of(action)}")
        return
    times = in_turns(actions, options.repetitions)
    common = {"batch": options.batch, "image_size": options.image_size, "text_length": options.text_length}
    write_csv("blip_step", "cpu", rows_of(times, options.batch, "images", common), options.results)


if __name__ == "__main__":
    main()
