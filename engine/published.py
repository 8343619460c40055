"""A trained model as others get it: a folder with safetensors, a configuration and a vocabulary, which loads as its checkpoint does.

model.safetensors   the weights
config.json         how to build the model, and how it was trained
vocab.txt           its vocabulary, under the name that its tokenizer reads
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoints import FORMAT, CheckpointError
from models import KINDS
from retrieval.results import write_atomically

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE = "person-search"
_KEPT = ("method", "size", "image_size", "options", "meta")


def is_published(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return path.is_dir() and (_config(path) or {}).get("model_type") == MODEL_TYPE


def write(directory: Path, content: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Write a checkpoint's content; a file that is there is replaced whole.

    Args:
        content: of a retrieval model, as `engine.checkpoints.load` returns it.
        training: the settings it was trained with, plain values.

    Raises:
        CheckpointError: a vocabulary that its file can't hold.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    kind = KINDS[content["method"]].tokenizer_class
    write_atomically(directory / kind.file, "".join(f"{piece}\n" for piece in content["vocabulary"]))
    if list(kind.load(directory).vocabulary) != list(content["vocabulary"]):
        raise CheckpointError(
            f"The vocabulary can't be written as {kind.file}: a piece of it has a line's end."
        )
    temporary = directory / f".{WEIGHTS}.{os.getpid()}.tmp"
    try:
        save_file(_unshared(content["model"]), temporary, metadata={"format": "pt"})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors makes files that nobody but their owner reads
        temporary.replace(directory / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    described = {name: content[name] for name in _KEPT if name in content}
    described["meta"] = {name: value for name, value in content["meta"].items() if name != "config"}
    config = {"model_type": MODEL_TYPE, "format": FORMAT, **described, "training": training}
    # Last: a folder without it is not taken for a published model.
    write_atomically(directory / CONFIG, json.dumps(config, indent=1) + "\n")


def read(directory: Path) -> dict[str, Any]:
    """The content that `write` was given, weights bit for bit.

    Raises:
        CheckpointError: another kind of folder, or one that lacks a file or has a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _config(directory)
    if config is None or config.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{directory} is no folder that search.py publish wrote: its {CONFIG} says something else."
        )
    if config.get("format") != FORMAT or not {*_KEPT} <= set(config):
        raise CheckpointError(f"{directory} was published by another version of this project.")
    kinds = {"method": str, "size": str, "image_size": list, "options": dict, "meta": dict}
    if (
        not all(isinstance(config[name], kind) for name, kind in kinds.items())
        or len(config["image_size"]) != 2
    ):
        raise CheckpointError(f"{directory / CONFIG} is damaged: fetch or publish it again.")
    if config["method"] not in KINDS:
        raise CheckpointError(
            f"{directory} is a model of the method '{config['method']}', which this version does not have."
        )
    try:
        state = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError):
        raise CheckpointError(
            f"{directory / WEIGHTS} is missing or damaged: fetch or publish it again."
        ) from None
    try:
        vocabulary = KINDS[config["method"]].tokenizer_class.load(directory).vocabulary
    except ValueError as error:
        raise CheckpointError(f"{directory}: {error}") from None
    return {**{name: config[name] for name in _KEPT}, "vocabulary": list(vocabulary), "model": state}


def _config(directory: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor with a memory of its own, which is all that safetensors takes: tied weights are written twice."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
