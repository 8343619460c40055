"""The one place that writes and reads checkpoints of this project's own format.

A file is written under a temporary name and renamed, so a reader never sees half of one, and it holds tensors
and plain values only, so that it loads with ``weights_only=True``: a pickle payload is refused unread.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.errors import UserError
from models import KINDS, METHODS, Captioner, build_model, load_weights
from models.texts import TextTokenizer

FORMAT = "pspd-1"
# Names of a captioner's weights, which a pre-trained file holds beside a retrieval model's.
CAPTIONER_PART = "text_decoder."


class CheckpointError(UserError):
    """A checkpoint that can't be read or belongs to another model."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        CheckpointError: the disk is full or not writable; the file that was there before stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            torch.save({"format": FORMAT, **content}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed while it saved
            left.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"The checkpoint {path} could not be written ({reason}): free some space and start the same "
            "command again; the last complete checkpoint is untouched."
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU.

    Raises:
        CheckpointError: missing, unreadable, unsafe, or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}: train first (bash train.bash) or name another file."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        # torch's own words on a refused file advise to load it unsafely: nobody should.
        refused = isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)
        reason = (
            "not plain weights"
            if refused
            else (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        )
        raise CheckpointError(
            f"{path} can't be loaded as weights ({reason}): it is damaged, another kind of file, or holds code, which "
            "is never run."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a checkpoint of this project; released weights are named in the configuration "
            "as model.pretrained and pre_train.pretrained."
        )
    return content


def describe(model: nn.Module, method: str, size: str, **meta: Any) -> dict[str, Any]:
    """What a self-contained checkpoint holds: weights, how to build the model, its vocabulary, and ``meta``.

    Weights of one round of training alone, such as a classifier over its pseudo classes, are left out.
    """
    of_round = getattr(model, "round_keys", ())
    return {
        "method": method,
        "size": size,
        "image_size": list(model.image_size),
        "options": dict(getattr(model, "options", {})),
        "vocabulary": list(model.tokenizer.vocabulary),
        "model": {name: value for name, value in model.state_dict().items() if not name.startswith(of_round)},
        "meta": meta,
    }


def load_vocabulary(kind: type[TextTokenizer], path: Path) -> TextTokenizer:
    """The tokenizer of class `kind` that a checkpoint of this project was trained with.

    Raises:
        CheckpointError: not readable, or without a vocabulary, or with another tokenizer's.
    """
    content = load(path)
    if not content.get("vocabulary"):
        raise CheckpointError(f"{path} holds no vocabulary: it is the state of an unfinished run.")
    try:
        return kind(content["vocabulary"])
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} has the vocabulary of another backbone ({error}).") from None


def load_retrieval_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A retrieval model in evaluation mode, and what its checkpoint says about it.

    Raises:
        CheckpointError: not readable, a captioner, or weights that do not fit (the message names keys).
    """
    return build(path, load(path))


def build(path: Path, content: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The retrieval model that a checkpoint's content describes, in evaluation mode, and the content.

    Raises:
        CheckpointError: as `load_retrieval_model`; `path` is named in it.
    """
    if content.get("method") in (None, "captioner"):
        raise CheckpointError(
            f"{path} holds {'a captioner' if content.get('method') else 'the state of an unfinished run'}, not a "
            "retrieval model: give the best.pth of a finished training."
        )
    if content["method"] not in KINDS:
        raise CheckpointError(
            f"{path} is a model of the method '{content['method']}', which this version does not have: it has "
            f"{', '.join(METHODS)}."
        )
    tokenizer = KINDS[content["method"]].tokenizer_class(content["vocabulary"])
    options = {**content["options"], "size": content["size"], "image_size": tuple(content["image_size"])}
    model = build_model(content["method"], tokenizer=tokenizer, **options)
    own = model.state_dict().keys()  # CADA's has a decoder of its own
    weights = {
        name: weight
        for name, weight in content["model"].items()
        if name in own or not name.startswith(CAPTIONER_PART)
    }
    try:
        load_weights(model, weights)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return model.eval(), content


def load_captioner(path: Path) -> tuple[Captioner, dict[str, Any]]:
    """A captioner in evaluation mode, and what its checkpoint says about it.

    Raises:
        CheckpointError: not readable, or not a captioner.
    """
    content = load(path)
    if content.get("method") != "captioner":
        raise CheckpointError(f"{path} is not a captioner: run pre_train.py first.")
    tokenizer = Captioner.tokenizer_class(content["vocabulary"])
    model = Captioner(content["size"], tuple(content["image_size"]), tokenizer)
    model.load_state_dict(content["model"])
    return model.eval(), content
