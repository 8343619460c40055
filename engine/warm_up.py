"""A warm-up where there are no pre-trained weights: its weights stand in for BLIP's, in the captioner and in every round.

The retrieval model learns the captions of stage A with the global loss, every image its own class. BLIP's two released
files come from one pre-training that contrasts images with texts as well; so both stages start from this one, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from captioning.files import CAPTIONS, PRE_CAPTIONS, load_captions, load_pre_captions
from data import PedesDataset
from engine import checkpoints, distributed
from engine.config import Config
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.loop import Place, Schedule, Trainer
from engine.material import training_caption
from engine.run import LOGGER, Run
from engine.sources import training_images
from engine.stage import Context
from models import build_model
from models.backbones.captioner import BlipCaptioner
from models.backbones.tokenizer import BlipTokenizer
from models.batch import Batch
from models.methods.base import Method


class WarmUpTask(nn.Module):
    """Batch -> the losses of a warm-up."""

    warming = True

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of this process's share of the batch."""
        return self.model.warm_up_losses(batch)


def warm_up_path(config: Config) -> Path:
    """The warm-up's weights: they belong to stage A's captions, which several runs may share."""
    return config.captioner_directory / "warm_up.pth"


def is_wanted(config: Config) -> bool:
    """Whether this configuration trains from scratch, with a warm-up first."""
    return not config.model.pretrained and config.train.warm_up.max_epoch > 0


def warm_up(context: Context, dataset: PedesDataset, tokenizer: BlipTokenizer, run: Run) -> dict[str, Tensor]:
    """The weights of a warmed-up model; trained now if they are not there yet. Resumes by itself.

    Raises:
        UserError: stage A has not run.
    """
    config = context.config
    path = warm_up_path(config)
    if not path.exists():
        model = new_model(context, tokenizer)
        trainer = _trainer(context, model, dataset, run)
        LOGGER.info("No pre-trained weights: warming up on the captions of stage A.")
        trainer.fit()
        if distributed.is_main():
            checkpoints.save(
                path, checkpoints.describe(model, config.model.method, config.model.size, tokenizer)
            )
            trainer.state_path.unlink(missing_ok=True)
        distributed.barrier()
    return checkpoints.load(path)["model"]


def new_model(context: Context, tokenizer: BlipTokenizer) -> Method:
    """The configured method's model with random weights, on the device."""
    config = context.config.model
    torch.manual_seed(context.config.seed)
    model = build_model(
        config.method,
        size=config.size,
        image_size=config.image_size,
        tokenizer=tokenizer,
        vit_grad_ckpt=config.vit_grad_ckpt,
        vit_ckpt_layer=config.vit_ckpt_layer,
        dropout=config.dropout,
        **config.options,
    )
    model.options = dict(config.options)
    model.world = context.machine.world
    return model.to(context.machine.device)


def start_captioner(captioner: BlipCaptioner, weights: dict[str, Tensor]) -> None:
    """Give the captioner the warmed-up image encoder and, as BLIP shares them, the text layers but self-attention."""
    own = captioner.state_dict()
    for name, tensor in weights.items():
        target = name.replace("text_encoder.", "text_decoder.bert.", 1)
        shared = name.startswith("visual_encoder.") or (
            name.startswith("text_encoder.") and ".attention." not in name
        )
        if shared and target in own and own[target].shape == tensor.shape:
            own[target].copy_(tensor)


def _trainer(context: Context, model: Method, dataset: PedesDataset, run: Run) -> Trainer:
    config, machine = context.config, context.machine
    settings = config.train.warm_up
    schedule = Schedule(settings.init_lr, settings.max_epoch, lr_warmup_steps=settings.lr_warmup_steps)
    path = config.caption_directory / PRE_CAPTIONS
    # Imported captions of stage C come without those of stage A.
    records = load_pre_captions(path) if path.exists() else load_captions(path.with_name(CAPTIONS))
    images = sorted(records.keys() & set(training_images(dataset)))
    texts = [
        text for image in images for text in (records[image].base_caption, records[image].styled_caption)
    ]
    owners = np.repeat(np.arange(len(images)), 2)
    captions = [training_caption(text) for text in texts]
    batches = PairBatches(
        ImageFeed.of([dataset.image_root / image for image in images], config),
        Pairs(owners, model.prepare(captions), owners),
        config.train.batch_size,
        machine.world,
        machine.device,
        seed=config.seed,
        name="warm-up",
        erasing=config.train.random_erasing,
        padding=config.train.crop_padding,
    )

    def on_epoch(epoch: int, losses: dict[str, float], seconds: float) -> None:
        run.record("epoch", phase="warm-up", epoch=epoch, losses=losses, seconds=round(seconds, 2))
        parts = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        LOGGER.info("warm-up epoch %d/%d: %s (%.0f s)", epoch + 1, schedule.max_epoch, parts, seconds)

    return Trainer(
        WarmUpTask(model),
        model.parameter_groups(schedule.init_lr, config.train.weight_decay),
        batches,
        schedule,
        Place("warm-up"),
        run,
        machine,
        config.captioner_directory / "warm_up_state.pth",
        seed=config.seed,
        on_epoch=on_epoch,
        log_every=config.train.log_every,
        save_minutes=config.train.save_minutes,
    )
