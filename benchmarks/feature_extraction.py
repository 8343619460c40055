"""Features of a split, images and captions: ours against image batches and captions one after the other, one run.

Plain, from the definition: attention written out, captions in their own order in batches padded to 73 tokens, fp32.
Ours is what evaluation and clustering call: `encode_gallery` and `encode_queries`. On a CPU both must agree to 1e-4 in fp32, and
where it multiplies bf16 ours is timed in that, too, as the search has it; a GPU
that has bfloat16 computes in it, and the difference is reported only.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/feature_extraction.py
    python benchmarks/feature_extraction.py --device cuda --images 4096 --batch 256
"""

from __future__ import annotations

import argparse
import copy
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.flops import image_flops, peak_of, text_flops
from benchmarks.measure import (
    captions_of,
    in_turns,
    label_of,
    machine_of,
    parser_of,
    precisions_of,
    profile_of,
    rows_of,
    tokenizer_of,
    write_csv,
)
from benchmarks.plain_blip import PlainBlip, padded
from models.backbones.blip.retrieval import BlipRetrieval
from retrieval.encode import encode_gallery, encode_queries
from retrieval.verbs import TokenisedCaptions

TOLERANCE = 1e-4


def plain_images(model: BlipRetrieval, images: Tensor, batch: int) -> Tensor:
    """Normalised features of all images, on the CPU."""
    plain = PlainBlip(model)
    parts = [
        plain.linear("vision_proj", plain.images(one.to(model.device))[:, 0]) for one in images.split(batch)
    ]
    return normalize(torch.cat(parts), dim=1).cpu()


def plain_texts(model: BlipRetrieval, captions: list[str], batch: int) -> Tensor:
    """Normalised features of all captions, on the CPU."""
    plain, parts = PlainBlip(model), []
    for start in range(0, len(captions), batch):
        ids, mask = padded(model.tokenizer(captions[start : start + batch]), model.tokenizer.pad_id)
        hidden = plain.texts(ids.to(model.device), mask.to(model.device))
        parts.append(plain.linear("text_proj", hidden[:, 0]))
    return normalize(torch.cat(parts), dim=1).cpu()


@torch.no_grad()
def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Images, then captions: compared, then timed in turns."""
    torch.manual_seed(0)
    first, *others = precisions_of(options.device)
    machine = machine_of(options.device, first)
    model = machine.place(BlipRetrieval(options.size, tokenizer=tokenizer_of()).eval())
    images = torch.randn(options.images, 3, *model.image_size)
    captions = captions_of(options.captions)
    batch = options.batch
    models = {label_of(first): model}
    for precision in others:  # as the search has it
        used = copy.deepcopy(model)
        models[label_of(precision)] = machine_of(options.device, precision).for_use(used).place(used)

    def image_features(model: BlipRetrieval) -> Tensor:
        return encode_gallery(model, images.split(batch), len(images)).features

    def text_features(model: BlipRetrieval) -> Tensor:
        return encode_queries(model, captions, batch)

    lengths = TokenisedCaptions(model, captions).lengths
    flops_of_texts = sum(text_flops(model, length, False) for length in lengths)
    parts = {
        "images": (len(images), image_flops(model) * len(images), plain_images, images, image_features),
        "captions": (len(captions), flops_of_texts, plain_texts, captions, text_features),
    }
    rows = []
    for name, (count, flops, of_plain, given, of_ours) in parts.items():
        actions = {"plain": partial(of_plain, model, given, batch)}
        actions |= {label: partial(of_ours, one) for label, one in models.items()}
        if options.profile:
            for version, action in actions.items():
                print(f"\n{name}, {version}\n\n{profile_of(action)}")
            continue
        expected, *found = (action() for action in actions.values())
        difference = (expected - found[0]).abs().max().item()
        if options.device == "cpu" and difference > TOLERANCE:
            raise SystemExit(f"The features of {name} differ by {difference:.1e}, more than {TOLERANCE}.")
        times = in_turns(actions, options.repetitions, options.device, warm=True)
        common = {"part": name, "size": options.size, "count": count, "batch": batch}
        table = rows_of(times, count, "items", common | {"largest_difference": f"{difference:.1e}"})
        for row, features in zip(table[1:], found, strict=True):
            row["least_cosine"] = f"{(features * expected).sum(dim=1).min().item():.6f}"
        peak = peak_of(options.device)
        if peak:
            table[1]["share_of_peak"] = f"{flops / count * float(table[1]['items_per_second']) / peak:.1%}"
        rows += table
    return rows


def main() -> None:
    """Runs the comparison and writes the CSV."""
    parser = parser_of(__doc__, repetitions=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    rows = run(options)
    if rows:
        write_csv("feature_extraction", options.device, rows, options.results)


if __name__ == "__main__":
    main()
