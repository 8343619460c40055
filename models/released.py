"""A model of released weights, told by its tensors alone."""

from __future__ import annotations

from pathlib import Path

from models.backbones.blip.checkpoints import blip_names
from models.backbones.blip.released import describe_blip
from models.backbones.clip.checkpoints import FOLDER_CONFIG, read_clip
from models.backbones.clip.released import describe_clip
from models.backbones.released import Released
from models.backbones.weights import CheckpointError, LoadReport, read_weights
from models.methods.base import Method
from models.registry import KINDS
from models.texts import TextTokenizer

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")  # fmt: skip


def recognise(path: Path) -> Released:
    """Which backbone's released weights lie at `path`, and how to build the model that they are of.

    Args:
        path: a file of weights, or a folder as transformers or open_clip save it.

    Raises CheckpointError for what is neither BLIP's nor CLIP's, or not enough to search with.
    """
    weights = path
    if path.is_dir():
        weights = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
        if weights is None:
            raise CheckpointError(
                f"{path} has none of {', '.join(_WEIGHTS)}: name a file of weights or a model's folder"
            )
    tensors = read_weights(weights)
    beside = path if (path / FOLDER_CONFIG).is_file() else weights
    found = describe_blip(blip_names(tensors), path) or describe_clip(read_clip(weights), beside)
    if found is not None:
        return found
    if "text_model.embeddings.token_embedding.weight" in tensors:
        raise CheckpointError(
            f"{path} is CLIP as transformers saves it: name open_clip's files of the same model, such as "
            "hf:timm/vit_base_patch16_clip_224.openai for openai/clip-vit-base-patch16"
        )
    raise CheckpointError(
        f"{path} is neither BLIP nor CLIP by the names of its {len(tensors)} tensors ({', '.join(list(tensors)[:3])}, ...): without a "
        "training only theirs can be searched with"
    )


def load_untrained(path: Path, released: Released, tokenizer: TextTokenizer) -> tuple[Method, LoadReport]:
    """The model of released weights, in evaluation mode, and what loading did.

    Raises CheckpointError where a weight is missing that searching needs, or anything does not fit.
    """
    options = {**released.options, "size": released.size, "image_size": released.image_size}
    model = KINDS[released.backbone](tokenizer=tokenizer, **options)
    model.options = dict(released.options)
    report = model.load_pretrained(path)
    lacking = [name for name in report.missing if not name.endswith("of the mask")]  # which no caption has
    if lacking:
        raise CheckpointError(f"{path} lacks {', '.join(lacking)}, without which it can't search")
    return model.eval(), report
