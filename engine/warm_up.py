"""A warm-up where there are no pre-trained weights: its weights stand in for them, in the captioner and in every round.

The retrieval model learns the captions of stage A, every image its own class: first with the global loss alone, then to
match as well, where it can. The captioner's and the retrieval model's released files come from one pre-training that
contrasts and matches images with texts; so both stages start from this one, too, where both are on one backbone. A
training that may read captions that come with its images, or begins with a synthetic set, warms up on these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from captioning.files import CAPTIONS, PRE_CAPTIONS, both_captions, load_captions, load_pre_captions
from data import PedesDataset
from engine import checkpoints, distributed
from engine.building import captioner_method, method_class, new_model, pixels_of, reads_captions
from engine.config import Config
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.log import LOGGER
from engine.loop import Place, Schedule, Trainer
from engine.material import materials_of, training_caption
from engine.run import Run
from engine.sources import training_images
from engine.stage import Context
from models import Captioner
from models.batch import Batch, TrainingCaption
from models.methods.base import Method
from models.texts import TextTokenizer


class WarmUpTask(nn.Module):
    """Batch -> the losses of a warm-up, with or without matching."""

    warming = True

    def __init__(self, model: Method, matching: bool) -> None:
        super().__init__()
        self.model, self.matching = model, matching

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of this process's share of the batch."""
        return self.model.warm_up_losses(batch, self.matching)


def on_own_captions(config: Config) -> bool:
    """Whether training warms up on the captions that come with its images; else on stage A's, as the captioner does."""
    return reads_captions(config) or config.train.data == "synthetic_then_real"


def warm_up_path(config: Config, method: str = "") -> Path:
    """A warm-up's weights: they belong to stage A's captions, which several runs may share, or to a run's own captions.

    Args:
        method: which the captioner starts from, by stage A's captions; empty: the configured one, for its training.
    """
    backbone = method_class(method or config.model.method).backbone
    own = not method and on_own_captions(config)
    directory = config.run_directory if own else config.captioner_directory
    return directory / ("warm_up.pth" if backbone == Captioner.backbone else f"warm_up-{backbone}.pth")


def _state_paths(path: Path) -> tuple[Path, Path]:
    """The resume states of the two parts of the warm-up whose weights are kept at `path`."""
    return path.with_name(f"{path.stem}_state.pth"), path.with_name(f"{path.stem}_matching_state.pth")


def forget(config: Config, method: str = "") -> None:
    """Remove a warm-up's weights and states, so that it is done again."""
    path = warm_up_path(config, method)
    for left in (path, *_state_paths(path)):
        left.unlink(missing_ok=True)


def belongs_to_training(config: Config) -> bool:
    """Whether the main stage alone uses the configured method's warm-up, so that doing it anew includes the warm-up."""
    return on_own_captions(config) or captioner_method(config) != config.model.method


def is_wanted(config: Config) -> bool:
    """Whether this configuration trains from scratch, with a warm-up first."""
    return not config.model.pretrained and config.train.warm_up.max_epoch > 0


def warm_up(
    context: Context, dataset: PedesDataset, tokenizer: TextTokenizer, run: Run, method: str = ""
) -> dict[str, Tensor]:
    """The weights of a warmed-up model; trained now if they are not there yet. Resumes by itself.

    Args:
        method: as in `warm_up_path`.

    Raises:
        UserError: stage A has not run.
    """
    config = context.config
    path = warm_up_path(config, method)
    if not path.exists():
        model = new_model(config, context.machine, tokenizer, method)
        own = not method and on_own_captions(config)
        LOGGER.info(
            "No pre-trained weights: warming up on %s.",
            "the images' own captions" if own else "the captions of stage A",
        )
        material = (_own_material if own else _sample_material)(config, dataset, model)
        _train(context, model, material, run, path)
        if distributed.is_main():
            checkpoints.save(path, checkpoints.describe(model, model.name, config.model.size))
            for state in _state_paths(path):
                state.unlink(missing_ok=True)
        distributed.barrier()
    return checkpoints.load(path)["model"]


def _train(context: Context, model: Method, material: tuple[ImageFeed, Pairs], run: Run, path: Path) -> None:
    """First the encoders by the global loss; then matching as well, where there is any."""
    settings = context.config.train.warm_up
    first, second = _state_paths(path)
    if not second.exists():  # it holds the model, too
        _trainer(context, WarmUpTask(model, False), material, run, settings.max_epoch, first).fit()
        if model.has_matching:
            model.start_matching()
    if settings.matching_epochs and model.has_matching:
        _trainer(context, WarmUpTask(model, True), material, run, settings.matching_epochs, second).fit()


def _trainer(
    context: Context,
    task: WarmUpTask,
    material: tuple[ImageFeed, Pairs],
    run: Run,
    epochs: int,
    state_path: Path,
) -> Trainer:
    config, machine = context.config, context.machine
    settings, phase = config.train.warm_up, "warm-up-matching" if task.matching else "warm-up"
    schedule = Schedule(settings.init_lr, epochs, lr_warmup_steps=settings.lr_warmup_steps)
    batches = PairBatches(
        *material,
        config.train.batch_size,
        machine.world,
        machine.device,
        seed=config.seed,
        name=phase,
        erasing=config.train.random_erasing,
        padding=config.train.crop_padding,
        words=config.train.word_dropout,
        augmentation=config.train.augmentation,
        text_multiple=machine.text_multiple,
    )

    def on_epoch(epoch: int, losses: dict[str, float], seconds: float) -> None:
        run.record("epoch", phase=phase, epoch=epoch, losses=losses, seconds=round(seconds, 2))
        parts = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        LOGGER.info("%s epoch %d/%d: %s (%.0f s)", phase, epoch + 1, epochs, parts, seconds)

    return Trainer(
        task,
        task.model.parameter_groups(schedule.init_lr, config.train.weight_decay),
        batches,
        schedule,
        Place(phase),
        run,
        machine,
        state_path,
        seed=config.seed,
        on_epoch=on_epoch,
        betas=config.train.betas,
        eps=config.train.eps,
        log_every=config.train.log_every,
        save_minutes=config.train.save_minutes,
    )


def _own_material(config: Config, dataset: PedesDataset, model: Method) -> tuple[ImageFeed, Pairs]:
    """The images that training learns from first, with the captions that come with them."""
    own, before = materials_of(dataset, config)
    material = before or own
    return _every_image_its_class(config, model, material.images, material.owners, material.captions)


def _sample_material(config: Config, dataset: PedesDataset, model: Method) -> tuple[ImageFeed, Pairs]:
    """The images that have captions of stage A, or of stage C where these were imported without those."""
    path = config.caption_directory / PRE_CAPTIONS
    records = load_pre_captions(path) if path.exists() else load_captions(path.with_name(CAPTIONS))
    images = sorted(records.keys() & set(training_images(dataset)))
    captions = [training_caption(text) for text in both_captions(records, images)]
    owners = np.repeat(np.arange(len(images)), 2)
    paths = [dataset.image_root / image for image in images]
    return _every_image_its_class(config, model, paths, owners, captions)


def _every_image_its_class(
    config: Config, model: Method, images: list[Path], owners: np.ndarray, captions: list[TrainingCaption]
) -> tuple[ImageFeed, Pairs]:
    feed = ImageFeed.of(images, config, pixels=pixels_of(model))
    return feed, Pairs(owners, model.prepare(captions), owners)
