"""ITM re-ranking of a gallery: ours against a plain loop over queries, the same weights and pairs in one run.

Plain, from the definition: one query at a time with its candidates, texts padded to 73 tokens, fp32, attention
written out, the image tokens projected to keys and values for every pair, the head on the first token at the end.
On a CPU both must agree to 1e-4 in fp32, and where it multiplies bf16 ours is timed in that, too; on a GPU ours runs in bfloat16 and the difference is reported only.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/itm_reranking.py
    python benchmarks/itm_reranking.py --device cuda --queries 256 --gallery 256    # also growing batches
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.flops import image_tokens_of, keys_values_flops, peak_of, text_flops
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
from engine.machine import Machine
from models.backbones.blip.retrieval import BlipRetrieval
from retrieval.encode import Gallery, TokenStore
from retrieval.itm import Reranked, cosine, rerank, top
from retrieval.verbs import TokenisedCaptions

TOLERANCE = 1e-4
GPU_BATCHES = (256, 1024, 4096)


def plain_rerank(
    model: BlipRetrieval, captions: list[str], gallery: Gallery, features: Tensor, candidates: int
) -> np.ndarray:
    """ITM logit + cosine (Q, candidates) of each query's most similar images, the most similar first."""
    plain, words = PlainBlip(model), model.tokenizer
    cosines = features @ gallery.features.T
    device = model.device
    scores = []
    for caption, row in zip(captions, cosines, strict=True):
        values, indices = row.topk(candidates)
        ids, mask = padded(words([caption]), words.pad_id, first=words.enc_id)
        ids, mask = ids.repeat(candidates, 1).to(device), mask.repeat(candidates, 1).to(device)
        tokens = gallery.tokens.read(indices.numpy()).float().to(device)
        scores.append(plain.match(ids, mask, tokens)[:, 1].cpu() + values)
    return torch.stack(scores).numpy()


def make_problem(
    machine: Machine, size: str, queries: int, images: int
) -> tuple[BlipRetrieval, list[str], Gallery, Tensor]:
    """A model with random weights, captions of CUHK-PEDES' length, random tokens and features."""
    torch.manual_seed(0)
    model = machine.place(BlipRetrieval(size, tokenizer=tokenizer_of()).eval())
    store = TokenStore((images, image_tokens_of(model), model.size.vision_width))
    store.write(0, torch.randn(store.shape))
    features = normalize(torch.randn(images + queries, model.size.embed_dim), dim=1)
    return model, captions_of(queries), Gallery(features[:images], store), features[images:]


def pair_flops(model: BlipRetrieval, captions: list[str], order: np.ndarray) -> float:
    """Operations of a pair, on average; `order` (Q, k) are the images of each caption, projected once each."""
    texts = [text_flops(model, length, True) for length in TokenisedCaptions(model, captions).lengths]
    return float(np.mean(texts)) + keys_values_flops(model) * len(np.unique(order)) / order.size


def in_cosine_order(found: Reranked, order: np.ndarray) -> np.ndarray:
    """Scores (Q, k), brought into the order of `order` (Q, k), which holds the same images."""
    by_index = np.take_along_axis(found.scores, np.argsort(found.indices, axis=1), 1)
    return np.take_along_axis(by_index, np.argsort(np.argsort(order, axis=1), axis=1), 1)


@torch.no_grad()
def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Both versions in turns, after their scores were compared; on a GPU also ours at growing batches."""
    device, (first, *others) = options.device, precisions_of(options.device)
    machine = machine_of(device, first)
    model, captions, gallery, features = make_problem(machine, options.size, options.queries, options.gallery)
    k = options.candidates
    similarity = cosine(features, gallery.features)

    def ours(batch_size: int | None = None, model: BlipRetrieval = model) -> Reranked:
        return rerank(model, captions, gallery, similarity, k, batch_size=batch_size)

    def narrowed(precision: str) -> Callable[[], Reranked]:
        """With a model as the search has it."""
        found = copy.deepcopy(model)
        return partial(ours, model=machine_of(device, precision).for_use(found).place(found))

    def plain() -> np.ndarray:
        return plain_rerank(model, captions, gallery, features, k)

    versions = {label_of(first): ours} | {label_of(name): narrowed(name) for name in others}
    if options.profile:
        for name, action in ({"plain": plain} | versions).items():
            print(f"\n{name}, {options.queries} queries\n\n{profile_of(action)}")
        return []
    order = top(similarity, len(captions), len(gallery), k)[0]
    difference = float(np.abs(in_cosine_order(ours(), order) - plain()).max())
    if device == "cpu" and difference > TOLERANCE:
        raise SystemExit(f"The scores differ by {difference:.2e}, more than {TOLERANCE}.")
    actions = {"plain": plain} | versions
    if device == "cuda":
        actions |= {f"ours, batch {size}": lambda size=size: ours(size) for size in GPU_BATCHES}
    times = in_turns(actions, options.repetitions, device, warm=device == "cpu")
    common = {
        "size": options.size,
        "queries": options.queries,
        "candidates": k,
        "gallery": options.gallery,
        "largest_difference": f"{difference:.1e}",
    }
    rows = rows_of(times, k * options.queries, "pairs", common)
    peak = peak_of(device)
    if peak:
        each = pair_flops(model, captions, order)
        for row in rows[1:]:
            row["share_of_peak"] = f"{each * float(row['pairs_per_second']) / peak:.1%}"
    return rows


def main() -> None:
    """Runs the comparison and writes the CSV."""
    parser = parser_of(__doc__, repetitions=2)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument(
        "--gallery", type=int, default=16, help="images; each then has candidates x queries / gallery pairs"
    )
    parser.add_argument("--candidates", type=int, default=16)
    options = parser.parse_args()
    rows = run(options)
    if rows:
        write_csv("itm_reranking", options.device, rows, options.results)


if __name__ == "__main__":
    main()
