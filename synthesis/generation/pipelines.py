"""Diffusers' pipelines out of a folder: loaded without a network, without progress bars, and refused with a sentence."""

from __future__ import annotations

import contextlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from data.errors import UserError

INDEX = "model_index.json"
_ON_GPU = 8  # images at a time; more than one brings a CPU nothing

logger = logging.getLogger(__name__)


def diffusers() -> ModuleType:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import diffusers
    except ImportError:
        raise UserError(
            "Diffusion models need diffusers, which is not installed: pip install -r requirements-synthesis.txt."
        ) from None
    return diffusers


def load(
    kind: str,
    folder: str | Path,
    device: torch.device,
    *,
    half: bool,
    safety_checker: bool,
) -> Any:
    """A pipeline on a device, ready to be called.

    Args:
        kind: the name of a class of diffusers', or of one of its automatic ones.
        folder: as diffusers saves a pipeline.
        device: where it computes.
        half: in half precision; where there are no other weights than those in half precision they are widened.
        safety_checker: keep the model's own, if it has one.

    Raises:
        UserError: diffusers is missing, or the folder holds no such pipeline.
    """
    package, path = diffusers(), Path(folder)
    index = _index(path)
    dtype = torch.float16 if half else torch.float32
    options: dict[str, Any] = {"variant": _variant(path, half)}
    has_checker = (index.get("safety_checker") or [None])[0] is not None
    if has_checker and not safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with quiet():
            pipeline = getattr(package, kind).from_pretrained(
                str(path), dtype=dtype, local_files_only=True, **options
            )
    except Exception as error:  # a folder with a part missing or damaged raises whatever that leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{path} can't be loaded as a pipeline for this ({reason}): fetch it again, or name another."
        ) from None
    pipeline.set_progress_bar_config(disable=True)
    if "safety_checker" in index and not (has_checker and safety_checker):
        logger.warning("%s makes images without a safety checker.", path)
    return pipeline.to(device)


def batch_size(asked: int, device: torch.device) -> int:
    """How many images at a time; 0 leaves it to the device."""
    return asked or (_ON_GPU if device.type == "cuda" else 1)


def noise_sources(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator per image. They draw on the CPU, so that every device starts from the same noise.

    A CPU's generator takes no notice of the upper half of a seed, so all of it goes into a number of 32 bits.
    """
    return [torch.Generator().manual_seed(zlib.crc32(str(seed).encode())) for seed in seeds]


def tell_flagged(flags: Sequence[bool] | None, names: Sequence[str]) -> None:
    """Say which images a safety checker has blackened; `names` are theirs."""
    # Where a batch was filled up, its first entry comes again behind the others.
    found = dict.fromkeys(name for name, flagged in zip(names, flags or (), strict=False) if flagged)
    if found:
        logger.warning(
            "The safety checker made an image black: %s. A person filter leaves it out.", "; ".join(found)
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of diffusers' and transformers' while something loads or is saved."""
    from transformers.utils import logging as other

    own = diffusers().utils.logging
    packages = [package for package in (own, other) if package.is_progress_bar_enabled()]
    for package in packages:
        package.disable_progress_bar()
    try:
        yield
    finally:
        for package in packages:
            package.enable_progress_bar()


def _index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        index["_class_name"].strip()
        return index
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is no folder of a diffusion pipeline (with {INDEX}, as diffusers saves it): name one as the model."
        ) from None


def _variant(path: Path, half: bool) -> str | None:
    """ "fp16" where these weights are meant or are the only ones; None for the plain ones."""
    unet = path / "unet"
    plain = any(unet.glob("diffusion_pytorch_model.safetensors")) or any(
        unet.glob("diffusion_pytorch_model.bin")
    )
    narrow = any(unet.glob("diffusion_pytorch_model.fp16.*"))
    return "fp16" if narrow and (half or not plain) else None
