"""Forward and backward of BLIP base, ours against transformers', the same shapes in one run.

One step: images through the image encoder, texts through the text encoder alone and grounded in the images' tokens,
a scalar of all three, its gradients. Training mode with the text stack's dropout of 0.1, fp32. Repetitions alternate
so that whatever else the machine does falls on both; beside wall time stands the time that the CPUs spent on the
process, which other processes disturb less. Threads that wait should sleep for that, not spin:

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/blip_step.py
"""

from __future__ import annotations

import argparse
import csv
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.backbones.blip.sizes import SIZES
from models.backbones.blip.text import TextShape, TextStack
from models.backbones.blip.vision import LAYER_NORM_EPS, BlipVision

RESULTS = Path(__file__).parent / "results"
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


class Seconds(NamedTuple):
    """What one step took: on the clock, and on all CPUs together."""

    wall: float
    cpu: float


def seconds_of_step(model: nn.Module, inputs: tuple[Tensor, ...]) -> Seconds:
    """Time of one forward and backward pass."""
    model.zero_grad(set_to_none=True)
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    sum(part.square().mean() for part in model(*inputs)).backward()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def compare(
    build: dict[str, Callable[[], nn.Module]], inputs: tuple[Tensor, ...], repetitions: int
) -> dict[str, list[Seconds]]:
    """Every repetition's time by model; the models take turns, one warm-up each."""
    models = {name: make().train() for name, make in build.items()}
    for model in models.values():
        seconds_of_step(model, inputs)
    times: dict[str, list[Seconds]] = {name: [] for name in models}
    for repetition in range(repetitions):
        order = list(models) if repetition % 2 else list(models)[::-1]
        for name in order:
            times[name].append(seconds_of_step(models[name], inputs))
    return times


def write_csv(times: dict[str, list[Seconds]], shape: dict[str, int]) -> Path:
    """One line per repetition; the file's name says device and version."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"blip_step-cpu-{torch.__version__.split('+')[0]}.csv"
    columns = ["ours_s", "transformers_s", "ratio", "ours_cpu_s", "transformers_cpu_s", "cpu_ratio"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*shape, "repetition", *columns])
        for number, (ours, theirs) in enumerate(zip(times["ours"], times["transformers"], strict=True)):
            values = [
                ours.wall,
                theirs.wall,
                theirs.wall / ours.wall,
                ours.cpu,
                theirs.cpu,
                theirs.cpu / ours.cpu,
            ]
            writer.writerow([*shape.values(), number, *(f"{value:.3f}" for value in values)])
    return path


def main() -> None:
    """Runs the comparison, prints the medians and their ratio, writes them as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--text-length", type=int, default=73)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.image_size, options.image_size)
    # Captions of a person have 20 to 60 tokens: some padding, the same for both.
    lengths = torch.linspace(options.text_length // 3, options.text_length, options.batch).long()
    mask = torch.arange(options.text_length) < lengths[:, None]
    ids = torch.randint(1000, VOCABULARY, mask.shape) * mask
    build = {"ours": lambda: Ours(options.image_size), "transformers": lambda: Theirs(options.image_size)}
    times = compare(build, (images, ids, mask), options.repetitions)
    for kind in Seconds._fields:
        ours, theirs = ([getattr(one, kind) for one in times[name]] for name in ("ours", "transformers"))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(
            f"{kind} time: ours {statistics.median(ours):.2f} s, transformers {statistics.median(theirs):.2f} s, "
            f"median ratio {ratio:.2f}"
        )
    shape = {
        "batch": options.batch,
        "image_size": options.image_size,
        "text_length": options.text_length,
        "threads": torch.get_num_threads(),
    }
    print(f"written to {write_csv(times, shape)}")


if __name__ == "__main__":
    main()
