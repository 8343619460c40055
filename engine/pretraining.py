"""Pre-training: one file that both models of a small BLIP start from, as BLIP's two files are for real data.

    python -m engine.pretraining --config configs/pretraining.yaml

On a data set with captions and identities: the retrieval model learns them (a warm-up, then the losses of its method with
matching against hard negatives), the captioner learns the same captions on the same image encoder, which stays as it is. Both
stages are those of every other run, with their logs, states and resuming. The result, `pretrained.pth` in the run's folder, is in half precision and
has its vocabulary along: it may be named as ``model.pretrained``, ``pre_train.pretrained`` and ``model.tokenizer``.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from captioning.files import PRE_CAPTIONS, PreCaption, write_pre_captions
from captioning.prompts import CAPTIONER_QUESTION, OPENINGS_STAGE_A
from data import PedesDataset
from data.errors import UserError
from engine import checkpoints, distributed
from engine.building import method_class, new_captioner, supervision
from engine.command_line import read_command, stage_parser
from engine.config import Config
from engine.log import LOGGER
from engine.marks import Mark
from engine.sources import open_dataset, open_tokenizer
from engine.stage import Context, run_stage
from engine.stages.captioner_training import train_captioner
from engine.stages.search_training import train_search
from models import Captioner
from models.texts import TextTokenizer

RESULT = "pretrained.pth"
SECTIONS = ("seed", "dataset", "model", "pre_train", "train")


def pretrain(context: Context) -> None:
    """Write `pretrained.pth`; goes on where it was stopped.

    Raises:
        UserError: a method on another backbone than the captioner's, or one that is told to learn without captions.
    """
    config = context.config.model_copy(deep=True)
    _check(config)
    result = config.run_directory / RESULT
    mark = Mark(config.run_directory / ".pretraining.done", context.config, SECTIONS)
    if not context.force and mark.is_set("pretraining"):
        return
    if context.force:
        mark.clear()
        distributed.barrier()
    dataset = open_dataset(config)
    tokenizer = _vocabulary(config, dataset)
    train_search(replace(context, config=config))
    for_captions = _captioner_config(config)
    if distributed.is_main():
        _write_captions(for_captions, dataset)
        _start_captioner(config, for_captions, tokenizer)
    distributed.barrier()
    train_captioner(replace(context, config=for_captions))
    if distributed.is_main():
        checkpoints.save(result, _joined(config, for_captions))
        LOGGER.info(
            "Pre-training is finished: %s (%.1f MB) is model.pretrained, pre_train.pretrained and model.tokenizer.",
            result,
            result.stat().st_size / 1e6,
        )
    mark.set()


def _check(config: Config) -> None:
    kind = method_class(config.model.method)
    if kind.backbone != Captioner.backbone:
        raise UserError(
            f"Pre-training is for the captioner, too, and so for methods on its backbone, {Captioner.backbone}; "
            f"'{config.model.method}' is on {kind.backbone}."
        )
    if supervision(config) != "labels":
        raise UserError(
            "Pre-training learns a data set's own captions and identities: --set train.supervision=labels."
        )


def _vocabulary(config: Config, dataset: PedesDataset) -> TextTokenizer:
    """One vocabulary for both models, of the captions and the words that a captioner is asked with; named in `config`."""
    directory = config.caption_directory / "tokenizer"
    asked = [CAPTIONER_QUESTION, *(text for group in OPENINGS_STAGE_A.values() for text in group)]
    texts = [caption for record in dataset.train for caption in record.captions]
    kind = method_class(config.model.method).tokenizer_class
    named = config.model.tokenizer
    tokenizer = open_tokenizer(kind, named, 2 * asked + texts, directory, config.model.vocabulary_size)
    config.model.tokenizer = named or str(directory)
    return tokenizer


def _captioner_config(config: Config) -> Config:
    """The settings of the captioner's training: like an unsupervised run's, on the captions that are written for it."""
    own = config.model_copy(deep=True)
    own.train.supervision = "pseudo"
    own.train.captions = ["base", "styled"]
    own.pre_train.pretrained = str(config.captioner_directory / "start.pth")
    own.pre_train.freeze_image_encoder = True
    return own


def _write_captions(config: Config, dataset: PedesDataset) -> None:
    """The data set's captions as stage A's: the first of an image answers the captioner's question, the second no prompt."""
    path = config.caption_directory / PRE_CAPTIONS
    if not path.exists():
        told = [record for record in dataset.train if record.captions]
        write_pre_captions(
            path,
            [PreCaption(record.image, record.captions[0], record.captions[-1]) for record in told],
        )


def _start_captioner(config: Config, own: Config, tokenizer: TextTokenizer) -> None:
    """What the captioner begins with: the retrieval model's image encoder and the text layers that BLIP shares."""
    path = Path(own.pre_train.pretrained)
    if not path.exists():
        captioner = new_captioner(config, tokenizer)
        captioner.start_from(checkpoints.load(config.run_directory / "best.pth")["model"])
        checkpoints.save(path, checkpoints.describe(captioner, "captioner", config.model.size))


def _joined(config: Config, own: Config) -> dict:
    """The retrieval model's checkpoint with the captioner's text decoder, in half precision."""
    content = checkpoints.load(config.run_directory / "best.pth")
    captioner = checkpoints.load(own.captioner_directory / "captioner.pth")
    decoder = {
        name: weight
        for name, weight in captioner["model"].items()
        if name.startswith(checkpoints.CAPTIONER_PART)
    }
    content["model"] = _halved({**content["model"], **decoder})
    made = {
        "seed": config.seed,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    content["meta"] = {**content["meta"], "pretraining": json.dumps(made)}
    content.pop("format")
    return content


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precision; of weights that are one tensor under two names the first."""
    kept, seen = {}, set()
    for name, weight in weights.items():
        place = (weight.data_ptr(), weight.shape)
        if place not in seen:
            seen.add(place)
            kept[name] = weight.half() if weight.is_floating_point() else weight
    return kept


if __name__ == "__main__":
    run_stage(pretrain, read_command(stage_parser(__doc__)))
