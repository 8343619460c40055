"""The verbs of a model as ONNX graphs, and how far what they compute is from what torch computes.

image_encoder   images (B, 3, H, W) -> features (B, F) of length 1, and tokens (B, N, D) where there is matching
text_encoder    ids (B, L), mask (B, L) -> features (B, F) of length 1
match           ids (P, L), mask (P, L), image_tokens (P, N, D) -> logits (P, 2), of a model that has the verb

B, P and L are free. Packages that only exporting needs are imported by who calls.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.methods.base import Method
from models.texts import TextBatch

OPSET = 18
# Gates of an LSTM: torch has input, forget, cell, output, and ONNX input, output, forget, cell.
_TO_ONNX, _FROM_ONNX = (0, 3, 1, 2), (0, 2, 3, 1)
# A person as the graphs are tried with: texts of several lengths, so that some of a batch is padding.
_SENTENCES = (
    "a woman in a red coat",
    "a man with a black backpack, a white t-shirt and long blue trousers, who wears shoes in grey",
    "a man",
)


@dataclass(frozen=True)
class Graph:
    """One verb with what it is traced with.

    Attributes:
        inputs: by name, the tensors of a small batch.
        free: of each input the axes whose length is free.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    free: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]


class _Images(nn.Module):
    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        tokens, features = self.model.encode_images(images)
        features = normalize(features, dim=1)
        return (features, tokens) if self.model.has_matching else (features,)


class _Texts(_Images):
    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return (normalize(self.model.encode_texts(TextBatch(ids, mask, full=False))[1], dim=1),)


class _Match(_Images):
    def forward(self, ids: Tensor, mask: Tensor, image_tokens: Tensor) -> tuple[Tensor, ...]:
        return (self.model.match(TextBatch(ids, mask, full=False), image_tokens),)


class _OnnxLstm(nn.Module):
    """An `nn.LSTM` of one layer and one direction without biases, as an operator that becomes ONNX's.

    torch unrolls its own while it traces, to one length.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.operator = _lstm_operator()
        self.register_buffer("inputs", _gates(lstm.weight_ih_l0.detach(), _TO_ONNX)[None])
        self.register_buffer("states", _gates(lstm.weight_hh_l0.detach(), _TO_ONNX)[None])

    def forward(self, values: Tensor) -> tuple[Tensor, None]:
        """(B, L, inputs) to states (B, L, width), and nothing."""
        states = self.operator(values.transpose(0, 1), self.inputs, self.states, self.states.shape[-1])
        return states.transpose(0, 1), None


def _gates(weight: Tensor, order: Sequence[int]) -> Tensor:
    parts = weight.chunk(4)
    return torch.cat([parts[number] for number in order])


@cache
def _lstm_operator() -> Any:
    """Values (L, B, inputs), weights (1, 4 width, ...) in ONNX's order and the width, to states (L, B, width)."""

    @torch.library.custom_op("person_search::lstm", mutates_args=())
    def lstm(values: Tensor, inputs: Tensor, states: Tensor, width: int) -> Tensor:
        weights = [_gates(weight[0], _FROM_ONNX) for weight in (inputs, states)]
        start = values.new_zeros(1, values.shape[1], width)
        return torch.lstm(values, (start, start), weights, False, 1, 0.0, False, False, False)[0].clone()

    @lstm.register_fake
    def _(values: Tensor, inputs: Tensor, states: Tensor, width: int) -> Tensor:
        return values.new_empty(values.shape[0], values.shape[1], width)

    return torch.ops.person_search.lstm.default


@contextmanager
def _exportable(model: nn.Module) -> Iterator[None]:
    """Inside, the model has ONNX's LSTMs in the place of torch's."""
    replaced = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.LSTM)
    ]
    for parent, name, child in replaced:
        setattr(parent, name, _OnnxLstm(child))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


def graphs_of(model: Method) -> list[Graph]:
    """What there is to export of a model in evaluation mode."""
    images = _noise(3, model.image_size, 0)
    texts = model.tokenizer(list(_SENTENCES))
    written = {"ids": texts.ids, "mask": texts.mask}
    free = dict.fromkeys(written, (0, 1))
    seen = ("features", "tokens") if model.has_matching else ("features",)
    graphs = [
        Graph("image_encoder", _Images(model), {"images": images}, {"images": (0,)}, seen),
        Graph("text_encoder", _Texts(model), written, free, ("features",)),
    ]
    if model.has_matching:
        with torch.no_grad():
            tokens = model.encode_images(images)[0]
        pairs, of_pairs = {**written, "image_tokens": tokens}, {**free, "image_tokens": (0,)}
        graphs.append(Graph("match", _Match(model), pairs, of_pairs, ("logits",)))
    return graphs


def write(graph: Graph, path: Path, *, half: bool) -> None:
    """The graph as an ONNX file; with `half` weights and products are float16, inputs and outputs float32.

    Raises:
        ValueError: torch can't export this model.
    """
    axes = {name: {axis: torch.export.Dim.DYNAMIC for axis in graph.free[name]} for name in graph.inputs}
    with _exportable(graph.module), _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph.module.eval(),
                tuple(graph.inputs.values()),
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=tuple(axes.values()),
                opset_version=OPSET,
                custom_translation_table=_translations(),
                verbose=False,
                optimize=False,  # torch's passes fail on SSAN's texts; onnxruntime optimises what it loads by itself
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            told = str(error.__cause__ or error).strip() or type(error).__name__
            reason = told.splitlines()[0][:300]
            raise ValueError(
                f"torch {torch.__version__} can't export the {graph.name} of this model to ONNX ({reason})"
            ) from None
    if half:
        _save_half(program.model_proto, path)
    else:
        program.save(path)


def _save_half(proto: Any, path: Path) -> None:
    import onnx
    import onnx.inliner
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    with _quiet():
        narrow = convert_float_to_float16(
            onnx.inliner.inline_local_functions(proto),
            keep_io_types=True,
            # Lengths and eps of normalisations lie outside of float16's range; an LSTM in it exists on GPUs alone.
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, "LSTM", "LayerNormalization", "ReduceL2"],
        )
    onnx.save(narrow, path)


def _translations() -> dict[Any, Callable[..., Any]]:
    """In ONNX's words what torch does not translate: a stable sort (of RDE's tokens), and the LSTM above."""
    from onnxscript import opset18 as op

    def sort(values, stable=True, dim=-1, descending=False):
        # TopK of all puts the lower index first among equals.
        length = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)

    def lstm(values, inputs, states, width):
        outputs, _, _ = op.LSTM(values, inputs, states, hidden_size=width)
        return op.Squeeze(outputs, op.Constant(value_ints=[1]))

    return {torch.ops.aten.sort.stable: sort, _lstm_operator(): lstm}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, which are about torch's own code and for its authors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def difference(model: Method, graphs: Sequence[Graph], directory: Path) -> float:
    """The largest difference of any output from torch's, through onnxruntime, for other batches than those traced.

    Each graph is given what torch made.

    Raises:
        ValueError: onnxruntime does not run a graph.
    """
    found = 0.0
    for graph in graphs:
        for inputs in _others(model, graph):
            with torch.no_grad():
                expected = graph.module(*inputs.values())
            try:
                session = session_of(directory / f"{graph.name}.onnx")
                got = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
            except Exception as error:  # onnxruntime's have no class of their own in common
                reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
                raise ValueError(
                    f"onnxruntime does not run the {graph.name} of this model ({reason})"
                ) from None
            for theirs, ours in zip(got, expected, strict=True):
                apart = np.abs(theirs - ours.numpy()).max()
                found = max(found, float(apart) if np.isfinite(apart) else np.inf)
    return found


def session_of(path: Path, threads: int = 0) -> Any:
    """An ONNX file as onnxruntime runs it on a CPU, with so many threads; 0 leaves it to itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _others(model: Method, graph: Graph) -> Iterator[dict[str, Tensor]]:
    """Batches of other sizes and lengths: one alone without padding, five with."""
    for count in (1, 5):
        images = _noise(count, model.image_size, count)
        texts = model.tokenizer([*_SENTENCES[1:], *_SENTENCES][:count])
        made = {"images": images, "ids": texts.ids, "mask": texts.mask}
        if "image_tokens" in graph.inputs:
            with torch.no_grad():
                made["image_tokens"] = model.encode_images(images)[0]
        yield {name: made[name] for name in graph.inputs}


def _noise(count: int, image_size: tuple[int, int], seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *image_size, generator=draws)
