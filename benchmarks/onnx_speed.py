"""What `search.py export` writes, run by onnxruntime ("ours"), against the same encoders in torch as the search runs them.

Random weights of each method; one image and sixteen, one sentence of 12 words and sixteen; both with as many threads, in turns.

    OMP_NUM_THREADS=1 python benchmarks/onnx_speed.py --methods pspd irra --size base
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.explaining import WORDS, make_model, sentence
from benchmarks.measure import in_turns, machine_of, parser_of, rows_of, write_csv
from engine import onnx_graphs
from models.methods.base import Method
from retrieval.verbs import inference

BATCHES = (1, 16)
ENCODERS = ("image_encoder", "text_encoder")


def session(model: Method, name: str, folder: Path) -> onnxruntime.InferenceSession:
    """One encoder of a model, exported and opened with torch's number of threads."""
    graph = next(graph for graph in onnx_graphs.graphs_of(model) if graph.name == name)
    onnx_graphs.write(graph, folder / f"{name}.onnx", half=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(folder / f"{name}.onnx", options)


def versions(
    model: Method, name: str, batch: int, opened: onnxruntime.InferenceSession
) -> dict[str, Callable[[], Any]]:
    """The same work for both."""
    if name == "image_encoder":
        images = torch.randn(batch, 3, *model.image_size)
        inputs = {"images": images.numpy()}
    else:
        texts = model.tokenizer([sentence()] * batch)
        inputs = {"ids": texts.ids.numpy(), "mask": texts.mask.numpy()}

    def by_torch() -> np.ndarray:
        with inference(model):
            encoded = model.encode_images(images) if name == "image_encoder" else model.encode_texts(texts)
            return torch.nn.functional.normalize(encoded[1], dim=1).numpy()

    def by_onnxruntime() -> np.ndarray:
        return opened.run(["features"], inputs)[0]

    apart = float(np.abs(by_torch() - by_onnxruntime()).max())
    if apart > 1e-4:
        raise SystemExit(f"{name} differs by {apart:.1e}, so there is nothing to compare.")
    return {"torch": by_torch, "ours": by_onnxruntime}


def measured(method: str, size: str, repetitions: int) -> Iterator[dict[str, object]]:
    """Rows of one method: both encoders, each batch."""
    model = machine_of("cpu", "fp32").place(make_model(method, size))
    for name in ENCODERS:
        with tempfile.TemporaryDirectory() as folder:
            opened = session(model, name, Path(folder))
            for batch in BATCHES:
                height, width = model.image_size
                common = {"method": method, "size": size, "encoder": name, "batch": batch}
                common |= {"image": f"{height}x{width}", "words": WORDS}
                common["onnxruntime"] = onnxruntime.__version__
                times = in_turns(versions(model, name, batch, opened), repetitions)
                yield from rows_of(times, batch, "inputs", common)


def main() -> None:
    """Measure, print, write the CSV."""
    parser = parser_of(__doc__)
    parser.add_argument("--methods", nargs="*", default=["pspd", "irra"])
    arguments = parser.parse_args()
    rows = [
        row for method in arguments.methods for row in measured(method, arguments.size, arguments.repetitions)
    ]
    write_csv("onnx_speed", "cpu", rows, arguments.results)


if __name__ == "__main__":
    main()
