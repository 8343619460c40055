"""ITM re-ranking of a gallery: ours against a plain loop over queries, the same weights and pairs in one run.

Plain, from the definition: one query at a time with its candidates, texts padded to 73 tokens, fp32, attention
written out, the image tokens projected to keys and values for every pair, the head on the first token at the end.
On a CPU both must agree to 1e-4; on a GPU ours runs in bfloat16 and the difference is reported only.

    OMP_NUM_THREADS=2 python benchmarks/itm_reranking.py
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, pad

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.backbones.blip import BlipRetrieval
from models.backbones.tokenizer import BlipTokenizer
from retrieval.encode import Gallery, TokenStore
from retrieval.itm import cosine, rerank, top

RESULTS = Path(__file__).parent / "results"
TEXT_LENGTH = 73
TOLERANCE = 1e-4
WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in "kmnrst"]


class PlainMatcher:
    """Image-text matching logits straight from the weights of a `BlipRetrieval`."""

    def __init__(self, model: BlipRetrieval) -> None:
        self.weights = dict(model.state_dict())
        self.layers, self.heads = model.size.text_layers, model.size.text_heads

    def _linear(self, name: str, values: Tensor) -> Tensor:
        return linear(values, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, values: Tensor) -> Tensor:
        shape = values.shape[-1:]
        return layer_norm(values, shape, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-12)

    def _attention(self, name: str, values: Tensor, source: Tensor, hidden: Tensor | None) -> Tensor:
        """softmax(QK^T / sqrt(d)) V by heads, output projection, residual, LayerNorm; `hidden` is added to scores."""
        heads = [
            self._linear(f"{name}.self.{part}", given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, given in (("query", values), ("key", source), ("value", source))
        ]
        scores = heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1])
        if hidden is not None:
            scores = scores + hidden
        context = (scores.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2)
        return self._norm(f"{name}.output.LayerNorm", self._linear(f"{name}.output.dense", context) + values)

    def __call__(self, ids: Tensor, mask: Tensor, image_tokens: Tensor) -> Tensor:
        """ids, mask (B, 73), image_tokens (B, N, D) -> logits (B, 2)."""
        embeddings = "text_encoder.embeddings"
        values = self.weights[f"{embeddings}.word_embeddings.weight"][ids]
        values = values + self.weights[f"{embeddings}.position_embeddings.weight"][: ids.shape[1]]
        values = self._norm(f"{embeddings}.LayerNorm", values)
        padding = torch.where(mask, 0.0, -10000.0)[:, None, None, :]
        for number in range(self.layers):
            layer = f"text_encoder.encoder.layer.{number}"
            values = self._attention(f"{layer}.attention", values, values, padding)
            values = self._attention(f"{layer}.crossattention", values, image_tokens, None)
            inner = gelu(self._linear(f"{layer}.intermediate.dense", values))
            values = self._norm(
                f"{layer}.output.LayerNorm", self._linear(f"{layer}.output.dense", inner) + values
            )
        return self._linear("itm_head", values[:, 0])


def plain_rerank(
    model: BlipRetrieval, captions: list[str], gallery: Gallery, features: Tensor, candidates: int
) -> np.ndarray:
    """ITM logit + cosine (Q, candidates) of each query's most similar images, the most similar first."""
    match = PlainMatcher(model)
    cosines = features @ gallery.features.T
    device = model.device
    scores = []
    for caption, row in zip(captions, cosines, strict=True):
        values, indices = row.topk(candidates)
        text = model.tokenizer([caption], max_length=TEXT_LENGTH)
        room = (0, TEXT_LENGTH - text.ids.shape[1])
        ids, mask = pad(text.ids, room, value=model.tokenizer.pad_id), pad(text.mask, room)
        ids[:, 0] = model.tokenizer.enc_id
        ids, mask = ids.repeat(candidates, 1).to(device), mask.repeat(candidates, 1).to(device)
        tokens = gallery.tokens.read(indices.numpy()).float().to(device)
        scores.append(match(ids, mask, tokens)[:, 1].cpu() + values)
    return torch.stack(scores).numpy()


def make_problem(options: argparse.Namespace) -> tuple[BlipRetrieval, list[str], Gallery, Tensor]:
    """A model with random weights, captions of CUHK-PEDES' length (23.5 words), random tokens and features."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths = np.clip(rng.normal(23.5, 7.0, options.queries).round().astype(int), 8, 60)
    captions = [" ".join(rng.choice(WORDS, length)) for length in lengths]
    with tempfile.TemporaryDirectory() as directory:
        tokenizer = BlipTokenizer.train(WORDS * 10, directory, vocab_size=2000)
    model = BlipRetrieval(options.size, tokenizer=tokenizer).eval().to(options.device)
    height, width = model.image_size
    tokens = 1 + (height // model.size.patch) * (width // model.size.patch)
    store = TokenStore((options.gallery, tokens, model.size.vision_width))
    store.write(0, torch.randn(store.shape))
    features = normalize(torch.randn(options.gallery + options.queries, model.size.embed_dim), dim=1)
    return model, captions, Gallery(features[: options.gallery], store), features[options.gallery :]


def seconds_of(action, device: str) -> tuple[np.ndarray, object]:
    """Wall time and this process's CPU time of an action, the GPU's work included, and what it returned."""
    started = np.array([time.perf_counter(), time.process_time()])
    result = action()
    if device == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()]) - started, result


def in_cosine_order(indices: np.ndarray, scores: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Scores (Q, k) of `indices` (Q, k), brought into the order of `order` (Q, k), which holds the same images."""
    back = np.argsort(indices, axis=1)
    by_index = np.take_along_axis(scores, back, 1)
    return np.take_along_axis(by_index, np.argsort(np.argsort(order, axis=1), axis=1), 1)


@torch.no_grad()
def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Times ours, plain, ours; whatever else the machine does then falls on both."""
    model, captions, gallery, features = make_problem(options)
    k, similarity = options.candidates, cosine(features, gallery.features)
    rerank(model, captions[:2], gallery, cosine(features[:2], gallery.features), k)  # warms the libraries up

    def ours():
        return rerank(model, captions, gallery, similarity, k)

    before, found = seconds_of(ours, options.device)
    plain, expected = seconds_of(lambda: plain_rerank(model, captions, gallery, features, k), options.device)
    after, _ = seconds_of(ours, options.device)
    order = top(similarity, len(captions), len(gallery), k)[0]
    difference = float(np.abs(in_cosine_order(found.indices, found.scores, order) - expected).max())
    if options.device == "cpu" and difference > TOLERANCE:
        raise SystemExit(f"The scores differ by {difference:.2e}, more than {TOLERANCE}.")
    common = {
        "size": options.size,
        "threads": torch.get_num_threads(),
        "queries": options.queries,
        "candidates": k,
        "gallery": options.gallery,
        "largest_difference": f"{difference:.1e}",
    }
    times = {"plain": plain, "ours": (before + after) / 2}
    return [{"version": name, **common, **_figures(spent, plain, options)} for name, spent in times.items()]


def _figures(spent: np.ndarray, plain: np.ndarray, options: argparse.Namespace) -> dict[str, str]:
    """`ratio` is of wall times, `cpu_ratio` of CPU times: the latter stays true on a machine that is shared."""
    return {
        "seconds": f"{spent[0]:.2f}",
        "cpu_seconds": f"{spent[1]:.2f}",
        "pairs_per_second": f"{options.queries * options.candidates / spent[0]:.1f}",
        "ratio": f"{plain[0] / spent[0]:.2f}",
        "cpu_ratio": f"{plain[1] / spent[1]:.2f}",
    }


def main() -> None:
    """Runs the comparison and writes benchmarks/results/itm_reranking-<device>-<torch>.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="base", help="tiny, base or large")
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument(
        "--gallery", type=int, default=32, help="images; each then has candidates x queries / gallery pairs"
    )
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    rows = run(options)
    path = RESULTS / f"itm_reranking-{options.device}-{torch.__version__.split('+')[0]}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text())


if __name__ == "__main__":
    main()
