"""`search.py export`: a model for programs without torch, as ONNX graphs with its tokenizer beside them.

image_encoder.onnx, text_encoder.onnx, match.onnx   the verbs (`engine.onnx_graphs`)
tokenizer.json                                      the vocabulary, as the package `tokenizers` reads it
config.json                                         image size, pixel statistics, rules for texts (`PortableTokenizer`)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import UserError
from engine import onnx_graphs
from engine.building import pixels_of
from engine.opening import Opened, open_model

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
MODEL_TYPE, FORMAT = "person-search-onnx", 1
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE, TOLERANCE_HALF = 1e-4, 2e-2  # of features of length 1, tokens and logits


def export(options: argparse.Namespace) -> int:
    """Write the folder, compare it with torch, and put it in its place; returns the exit code.

    Raises:
        UserError: packages are missing, no model, a folder of other things, or a model that ONNX can't express.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"Exporting needs {package}, which is not installed: pip install -r requirements-export.txt."
            )
    target = Path(options.to)
    _refuse_others(target)
    opened = open_model(options.checkpoint)
    folder = target.resolve()
    unfinished = folder.with_name(f".{folder.name}.exporting")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        unfinished.mkdir(parents=True)
        apart = _write(opened, unfinished, options.half)
        _put(unfinished, folder)
    except OSError as error:
        raise UserError(
            f"{target} can't be written ({error.strerror}): make room there, or name another folder."
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"Exported to {target}: what onnxruntime computes differs from torch by {apart:.1e} at most.")
    return 0


def _refuse_others(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file: name a folder behind --to.")
    if directory.is_dir() and any(directory.iterdir()) and not is_export(directory):
        raise UserError(
            f"{directory} holds other files: name a new or an empty folder, nothing is overwritten."
        )


def is_export(directory: Path) -> bool:
    """Whether a folder is what this command wrote, and nothing that somebody put there is beside it."""
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        return config["model_type"] == MODEL_TYPE and {path.name for path in directory.iterdir()} <= {
            CONFIG,
            *config["files"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(opened: Opened, directory: Path, half: bool) -> float:
    """Everything, the configuration last; how far it is from torch."""
    model = opened.model
    tokenizer = model.tokenizer.portable()
    (directory / TOKENIZER).write_text(tokenizer.json, encoding="utf-8")
    graphs = onnx_graphs.graphs_of(model)
    try:
        for graph in tqdm(graphs, desc="exporting", unit="graph", disable=None):
            onnx_graphs.write(graph, directory / f"{graph.name}.onnx", half=half)
        apart = onnx_graphs.difference(model, graphs, directory)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    tolerance = TOLERANCE_HALF if half else TOLERANCE
    if not apart <= tolerance:
        remedy = (
            "export it without --half" if half else "other versions of torch and onnxruntime may do better"
        )
        raise UserError(
            f"What onnxruntime computes differs from torch by {apart:.1e}, more than {tolerance:.0e}: {remedy}."
        )
    config = _config(opened, half, tokenizer.rules)
    config |= {"largest_difference": apart, "files": sorted(path.name for path in directory.iterdir())}
    (directory / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return apart


def _config(opened: Opened, half: bool, rules: dict[str, Any]) -> dict[str, Any]:
    pixels, content = pixels_of(opened.model), opened.content
    return {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "method": content["method"],
        "size": content["size"],
        "has_matching": opened.model.has_matching,
        "half": half,
        "image_size": list(content["image_size"]),
        "pixel_mean": list(pixels.mean),
        "pixel_std": list(pixels.std),
        "interpolation": pixels.interpolation,
        "text": rules,
    }


def _put(finished: Path, folder: Path) -> None:
    """The finished folder under its name; an earlier export makes room first, and is gone only after."""
    earlier = folder.with_name(f".{folder.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if folder.exists():
        folder.rename(earlier)
    finished.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)
