"""ImageNet's weights for the image encoder, as torchvision publishes them: `resnet50-0676ba61.pth` for base."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import ResNet50_Weights

from models.backbones.weights import CheckpointError, LoadReport, fill, missing_names, read_pth, some

ENCODER = "image_encoder."
SOURCE = ResNet50_Weights.IMAGENET1K_V1.url
_CLASSIFIER = "fc."
_COUNTER = ".num_batches_tracked"  # no weight; files older than torchvision 0.13's lack it


def load_resnet(model: nn.Module, path: str | Path) -> LoadReport:
    """Fills the image encoder of a `ResNetLstm` (or a subclass) with a ResNet's weights; the text side keeps its start.

    Args:
        model: left as it was if anything is wrong.
        path: a file of torchvision's, whose names are flat (`layer1.0.conv1.weight`); its classifier is ignored. Where
            torchvision's own file name is not there, it is fetched once.

    Raises CheckpointError for a missing, truncated or unsafe file, and for one of another model or size.
    """
    path = Path(path)
    if not path.exists() and path.name == Path(SOURCE).name:
        _fetch(path)
    source = {ENCODER + name: tensor for name, tensor in read_pth(path).items()}
    target = model.state_dict()
    found = {name: tensor for name, tensor in source.items() if name in target}
    missing = missing_names(found, target)
    needed = [name for name in missing if name.startswith(ENCODER) and not name.endswith(_COUNTER)]
    if needed:
        raise CheckpointError(
            f"{path} lacks {len(needed)} weights of the model's ResNet: {some(needed)}. "
            "Is it the file of another model or size? See checkpoint/README.md"
        )
    wrong = [name for name, tensor in found.items() if tensor.shape != target[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} is a ResNet of another size: {len(wrong)} weights differ, {name} is "
            f"{tuple(found[name].shape)} there and {tuple(target[name].shape)} here"
        )
    return fill(model, source, found, lambda name: name.startswith(ENCODER + _CLASSIFIER), missing=missing)


def _fetch(path: Path) -> None:
    """torchvision's file from where torchvision has it, checked against the digest in its name, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # What follows the dash in the name is where the file's SHA-256 begins.
        torch.hub.download_url_to_file(SOURCE, str(path), hash_prefix=path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"no checkpoint at {path}, and it can't be fetched ({error}): put torchvision's file of that name there "
            "(see checkpoint/README.md)"
        ) from None
