"""The tensors of a TorchScript archive, without running or compiling any of the code in it.

Such an archive is a zip file: `data.pkl` holds the module's attributes, `data/` the numbers, `code/` the program. torch's own
loader compiles the program; here only the first two are read, and of what a pickle can ask for no more is granted than
describing objects and tensors takes. OpenAI published CLIP's weights in this form.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_DAMAGE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, RecursionError),
    *(KeyError, IndexError, AttributeError, TypeError),
)


class UnsafeArchive(ValueError):
    """The archive asks for something that could run code; the message names it."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive; False for anything that can't be read as one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the module in an archive, by name.

    Raises UnsafeArchive for one that holds more than modules, tensors and plain values, ValueError for a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            module = _Reader(archive, root).load()
        if not isinstance(module, _Object):
            raise ValueError(f"it holds a {type(module).__name__} and no module")
        return dict(_named_tensors(module, ""))
    except _DAMAGE as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


class _Object:
    """Stands for a module of whatever class: its attributes and nothing else."""

    def __init__(self, *_: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = state


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Object
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        granted = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch.jit._pickle", "restore_type_tag"): _first,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): _first
                for kind in ("int", "double", "bool", "tensor")
            },
        }
        if (module, name) not in granted:
            raise UnsafeArchive(f"{module}.{name}")
        return granted[module, name]

    def persistent_load(self, reference: Any) -> Tensor:
        """The numbers of a storage, one-dimensional; each is read once."""
        kind, storage, key, _, count = reference
        if kind != "storage" or not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("a reference to something that is no storage")
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            size = count * storage.dtype.itemsize
            if len(content) < size:
                raise ValueError(f"storage {key} has {len(content)} bytes instead of {size}")
            self.storages[key] = torch.frombuffer(content, dtype=storage.dtype) if count else torch.empty(0)
        return self.storages[key]


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(values: Any, *_: object) -> Any:
    return values


def _named_tensors(module: _Object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Object):
            yield from _named_tensors(value, f"{prefix}{name}.")
