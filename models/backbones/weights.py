"""Files of released weights, read safely; and what every backbone's loading shares.

Which names a file has and which of them are needed is the backbone's own affair.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.backbones.torchscript import UnsafeArchive, is_torchscript, read_torchscript


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one of another model; the message says which and what to do."""


@dataclass(frozen=True)
class LoadReport:
    """What loading did, by parameter name.

    missing: parameters of the model (heads only) that the file lacks and that keep their random start;
    unexpected: tensors of the file that no model of this backbone knows; interpolated: reshaped to the model's image size or
    text length;
    ignored: known and not needed here (momentum copies, queues, the parts of another model in the same file);
    note: a setting of the file that is not taken over, in words.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    interpolated: tuple[str, ...]
    ignored: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        parts = []
        for word, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("interpolated", self.interpolated),
        ):
            if names:
                parts.append(f"{word}: {some(names)}")
        if self.ignored:
            parts.append(f"{len(self.ignored)} not needed here")
        if self.note:
            parts.append(self.note)
        return "; ".join(parts) or "everything found, nothing left over"


def read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth`, from its `model` or `state_dict` entry if it has one; no code in it is run.

    Raises CheckpointError for a file that is missing, truncated, no checkpoint, or holds more than tensors.
    """
    return _tensors(_load(path), path)


def stated_image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) that a file of weights says its model was made for, as checkpoints of this project do; None for others.

    Raises CheckpointError as `read_pth`.
    """
    content = None if path.suffix == ".safetensors" or is_torchscript(path) else _load(path)
    size = content.get("image_size") if isinstance(content, Mapping) else None
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _load(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: checkpoint/README.md says what to put there")
    try:
        # Mapped, the momentum copies that make up half of a file are never read.
        with warnings.catch_warnings():
            # torch's remarks on the pickle protocol of files that are refused anyway
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(_why_refused(path, str(error))) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        raise CheckpointError(f"{path} is truncated or no PyTorch checkpoint: download it again") from None


def _why_refused(path: Path, error: str) -> str:
    unsafe = re.search(r"GLOBAL (\S+)|[Uu]nsupported (?:class|global)[: ]+(\S+)", error)
    if unsafe is None:
        return (
            f"{path} is no PyTorch checkpoint of plain tensors (cut short, or another kind of file) "
            "and nothing in it was run: download it again"
        )
    return _unsafe(path, next(name for name in unsafe.groups() if name))


def _unsafe(path: Path, thing: str) -> str:
    return (
        f"{path} holds more than tensors ({thing}), which could run code when read, so it was not loaded: "
        "if you trust it, re-save its 'model' entry alone"
    )


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    for entry in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the named weights of a model")
    named = {str(name).removeprefix("module."): value for name, value in content.items()}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors: it is not a model's checkpoint")
    return tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file. Raises CheckpointError where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        raise CheckpointError(f"{path} is truncated or no safetensors file: download it again") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, a TorchScript archive or a `.pth`, whatever its name; no code in it is run.

    Raises CheckpointError as `read_pth`.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if not is_torchscript(path):
        return read_pth(path)
    try:
        return read_torchscript(path)
    except UnsafeArchive as error:
        raise CheckpointError(_unsafe(path, str(error))) from None
    except ValueError as error:
        raise CheckpointError(f"{path} can't be read, {error}: download it again") from None


def interpolate_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embedding (1, 1 + rows * columns, D) of grid `old` for grid `new`, bicubically; the class token's stays."""
    token, grid = positions[:, :1], positions[:, 1:]
    grid = grid.unflatten(1, old).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([token, grid.permute(0, 2, 3, 1).flatten(1, 2).to(token.dtype)], dim=1)


def missing_names(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[str]:
    """Names without a tensor in the file; a name tied to another that has one (the word head's) is not missing."""
    filled = {target[name].data_ptr() for name in found}
    return [name for name, tensor in target.items() if name not in found and tensor.data_ptr() not in filled]


def fill(
    model: nn.Module,
    source: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    is_ignored: Callable[[str], object],
    *,
    missing: Iterable[str],
    interpolated: Iterable[str] = (),
    note: str = "",
) -> LoadReport:
    """Loads what was found and reports on the rest of the file; the caller has checked that it is enough and fits.

    Args:
        source: all of the file, under the model's names; `found` is what of it the model has.
        is_ignored: true of a name that the model lacks and that is known not to be needed.
        missing, interpolated, note: of the report.
    """
    rest = sorted(set(source) - set(model.state_dict()))
    model.load_state_dict(found, strict=False)
    ignored = tuple(name for name in rest if is_ignored(name))
    unexpected = tuple(name for name in rest if name not in ignored)
    return LoadReport(tuple(missing), unexpected, tuple(interpolated), ignored, note)


def some(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
