"""Weights of torchvision's detectors: those that torchvision releases by name, or those of a file or a hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from data.errors import UserError
from engine.hub import located
from models.backbones.weights import CheckpointError, read_weights

_COUNTER = ".num_batches_tracked"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def detector_weights(name: str, released: Sequence[str], place: str) -> dict[str, Tensor]:
    """The tensors of a detector, by name, without the counters of batches: most of torchvision's were trained with a frozen
    normalisation, which has none, and nothing but training reads them.

    Args:
        name: one of `released`, else a file, a folder with one file of weights, or a hub's name (`engine.hub`).
        released: torchvision's names of networks; where no file is called so, torchvision fetches their weights once.
        place: where the user names another file, for the messages: "behind torchvision:".

    Raises:
        UserError: weights that can't be had or can't be read.
    """
    if name in released and not Path(name).exists():
        tensors = _fetched(name, place)
    else:
        try:
            tensors = read_weights(_file_of(located(name), released, place))
        except CheckpointError as error:
            raise UserError(f"{error}.") from None
    return {key: tensor for key, tensor in tensors.items() if not key.endswith(_COUNTER)}


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """What `detector_weights` has of a network: its tensors' shapes."""
    return {
        key: tuple(tensor.shape) for key, tensor in network.state_dict().items() if not key.endswith(_COUNTER)
    }


def _fetched(name: str, place: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # urllib's are OSErrors; another digest is a RuntimeError
        raise UserError(
            f"The weights of {name} can't be had ({error}): fetch {weights.url} by hand into "
            f"{os.path.join(torch.hub.get_dir(), 'checkpoints')}, or name the file {place}."
        ) from None


def _file_of(path: Path, released: Sequence[str], place: str) -> Path:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        if len(files) != 1:
            raise UserError(f"{path} holds {len(files)} files of weights: name one of them {place}.")
        (path,) = files
    if not path.is_file():
        raise UserError(
            f"There is no {path}: name a file of weights {place}, or {' or '.join(released)}, which torchvision fetches."
        )
    return path
