"""Stage A: a multimodal model captions a random sample of the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from captioning.files import PRE_CAPTIONS, store_beside
from captioning.pipeline import caption_sample, estimate_sample, export
from captioning.store import CaptionStore
from engine import distributed
from engine.building import reads_captions, supervision
from engine.cluster_source import check_cluster_source
from engine.config import PreTextConfig
from engine.log import LOGGER
from engine.marks import Mark
from engine.material import caption_kinds
from engine.run import Run
from engine.seeds import seed_of
from engine.sources import open_dataset, training_images
from engine.stage import Context, set_aside
from engine.stages import fixed_style
from engine.stages.asking import open_backends, progress_bar
from engine.stages.caption_needs import captions_are_there, not_needed

STAGE = "gen_pre_train_text"


def sample_captions(context: Context) -> None:
    """Write ``pre_captions.json``, and for methods that ask for one fixed style ``fixed_captions.json``.

    Raises:
        UserError: no images, a backend that can't be used, or one that fails for good.
    """
    config = context.config
    check_cluster_source(config)
    if not not_needed(config, STAGE):
        _caption_sample(context)
    unlabelled = supervision(config) == "pseudo" and not reads_captions(config)
    if unlabelled and "fixed" in caption_kinds(config):
        fixed_style.caption_training_images(
            context, _asked(context, "dry_run"), _asked(context, "retry_refused")
        )


def _caption_sample(context: Context) -> None:
    """A base and a styled caption of each sampled image."""
    config = context.config
    path = config.caption_directory / PRE_CAPTIONS
    mark = Mark.of(STAGE, config)
    dry_run, retry = _asked(context, "dry_run"), _asked(context, "retry_refused")
    wanted = context.force or dry_run or retry
    if not wanted and mark.is_set(STAGE):
        return
    if context.force and not dry_run:
        mark.clear()
        set_aside(store_beside(path))
        distributed.barrier()
    dataset = open_dataset(config)
    images = training_images(dataset)
    if not wanted and captions_are_there(config, images):
        LOGGER.info("%s: not needed, %s has captions of all images.", STAGE, path.parent)
        return
    with CaptionStore(store_beside(path)) as store:
        captioned = {image for image in images if store.status(image) == "done"}
        chosen = choose_sample(images, config.gen_pre_train_text.samples, config.seed, captioned)
        if dry_run:
            _estimate(config.gen_pre_train_text, chosen, dataset.image_root, store, retry)
            return
        Run(path.parent, "log.txt", context.stop)
        LOGGER.info(
            "Stage A: captioning %d training images with '%s'.",
            len(chosen),
            config.gen_pre_train_text.backend,
        )
        _caption(context, chosen, dataset.image_root, store, retry)
        context.check_stop()
        distributed.barrier()
        if distributed.is_main():
            written = export(store, path, chosen)
            LOGGER.info("Stage A: %d of %d images captioned; %s", written, len(chosen), store.summary())
    distributed.barrier()
    mark.set()


def _asked(context: Context, flag: str) -> bool:
    return bool(getattr(context.arguments, flag, False))


def choose_sample(images: list[str], samples: int, seed: int, captioned: set[str] = frozenset()) -> list[str]:
    """A random sample without replacement, in sampling order; all images when there are fewer.

    Those that have captions (imported ones, or those of a run before) are part of it before others are: asking for
    the rest after an interruption therefore gives the same sample.
    """
    order = np.random.default_rng(seed_of(seed, "stage A sample")).permutation(len(images))
    shuffled = [images[i] for i in order]
    preferred = sorted(shuffled, key=lambda image: image not in captioned)  # a stable sort
    chosen = set(preferred[:samples])
    return [image for image in shuffled if image in chosen]


def _estimate(
    settings: PreTextConfig, images: list[str], image_root: Path, store: CaptionStore, retry: bool
) -> None:
    """Say what is left to ask; nothing is asked and nothing is written."""
    if not distributed.is_main():
        return
    retry = retry or settings.retry_refused
    todo = len(store.missing(images, retry_refused=retry))
    with open_backends(settings) as (backend, text_backend):
        work = estimate_sample(
            images, image_root, backend, store, text_backend=text_backend, retry_refused=retry
        )
        free = not any(hasattr(asked, "estimate") for asked in (backend, text_backend))
    print(
        f"Stage A with '{settings.backend}': {todo} of {len(images)} sampled images are still to be captioned, "
        f"{'on this machine, at no cost' if free else work}."
    )


def _caption(context: Context, images: list[str], image_root: Path, store: CaptionStore, retry: bool) -> None:
    """Ask for what the store does not have yet; a stop signal ends it between two answers."""
    settings = context.config.gen_pre_train_text
    world = context.machine.world
    with open_backends(settings) as (backend, text_backend), progress_bar(context, "stage A") as progress:
        caption_sample(
            images,
            image_root,
            backend,
            store,
            text_backend=text_backend,
            progress=progress,
            retry_refused=retry or settings.retry_refused,
            rank=world.rank,
            world_size=world.size,
        )
