"""Any model that can search, from its name: a training's `best.pth`, a published folder, or weights that BLIP and CLIP were released with."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.errors import UserError
from engine import checkpoints, published
from engine.hub import Check, located, source_of
from engine.log import LOGGER
from models import KINDS, METHODS, load_untrained, recognise


@dataclass(frozen=True)
class Opened:
    """A model in evaluation mode.

    Attributes:
        content: as its checkpoint has it.
        path: the file or folder that it is from; `weights` is the file in it whose bytes tell it from others.
        source: what it is called, by a hub's name where it is from there.
    """

    model: nn.Module
    content: dict[str, Any]
    path: Path
    weights: Path
    source: str

    @property
    def is_own_file(self) -> bool:
        """Whether it is a checkpoint of this project, in one file."""
        return self.weights == self.path and self.trained

    @property
    def trained(self) -> bool:
        """Whether it was trained by a method here, and is not a backbone as it was released."""
        return self.content["method"] in METHODS


def open_model(name: str | Path, check: Check | None = None) -> Opened:
    """The model behind a path or a hub's name (`engine.hub`).

    Raises:
        UserError: it can't be had, or can't be read, or is no model to search with; the message says what it is.
    """
    path = located(name, check=check)
    if published.is_published(path):
        model, content = checkpoints.build(path, published.read(path))
        return Opened(model, content, path, path / published.WEIGHTS, source_of(path))
    if not path.exists() or _is_own(path):
        model, content = checkpoints.load_retrieval_model(path)
        return Opened(model, content, path, path, source_of(path))
    return _untrained(path)


def _is_own(path: Path) -> bool:
    """Whether a file is for this project's own reader: also one that is damaged or holds code, of which that one tells."""
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return False  # a program with its weights, as OpenAI's are
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        return True
    return isinstance(content, dict) and "format" in content


def _untrained(path: Path) -> Opened:
    try:
        released = recognise(path)
        backbone = KINDS[released.backbone]
        kind = backbone.tokenizer_class
        beside = (path if path.is_dir() else path.parent) / kind.file
        named = backbone.vocabulary
        tokenizer = kind.load(beside if beside.is_file() else located(named, vocabulary=kind.file))
        model, report = load_untrained(path, released, tokenizer)
    except UserError:
        raise
    except ValueError as error:
        raise checkpoints.CheckpointError(f"{error}.") from None
    height, width = released.image_size
    LOGGER.info(
        "%s: %s as it was released, at %d x %d pixels; %s.", path, released.backbone, height, width, report
    )
    source = source_of(path)
    content = checkpoints.describe(model, released.backbone, released.size, started_from=source)
    return Opened(model, content, path, _weights_of(path), source)


def _weights_of(path: Path) -> Path:
    """The largest file of a folder, which holds its weights."""
    if not path.is_dir():
        return path
    return max((file for file in path.iterdir() if file.is_file()), key=lambda file: file.stat().st_size)
