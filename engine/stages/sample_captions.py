"""Stage A: a multimodal model captions a random sample of the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioning.backends import Backend, make_backend
from captioning.pipeline import caption_sample, export
from captioning.store import CaptionStore
from engine import distributed
from engine.config import BackendConfig
from engine.run import LOGGER, Interrupted, Run
from engine.seeds import seed_of
from engine.sources import open_dataset, training_images
from engine.stage import Context, Mark, set_aside

SECTIONS = ("seed", "dataset", "gen_pre_train_text")


def sample_captions(context: Context) -> None:
    """Write ``pre_captions.json``: a base and a styled caption of each sampled image.

    Raises:
        UserError: no images, a backend that can't be used, or one that fails for good.
    """
    config = context.config
    directory = config.caption_directory
    mark = Mark(directory / ".gen_pre_train_text.done", config, SECTIONS)
    if not context.force and mark.is_set("gen_pre_train_text"):
        return
    if context.force:
        mark.clear()
        set_aside(directory / "pre_captions.jsonl")
    Run(directory, "log.txt", context.stop)
    dataset = open_dataset(config)
    chosen = choose_sample(training_images(dataset), config.gen_pre_train_text.samples, config.seed)
    LOGGER.info(
        "Stage A: captioning %d training images with '%s'.", len(chosen), config.gen_pre_train_text.backend
    )
    summary = _caption(context, chosen, dataset.image_root, directory)
    context.check_stop()
    if distributed.is_main():
        written = export(
            CaptionStore(directory / "pre_captions.jsonl"), directory / "pre_captions.json", chosen
        )
        LOGGER.info("Stage A: %d of %d images captioned; %s", written, len(chosen), summary)
    distributed.barrier()
    mark.set()


def choose_sample(images: list[str], samples: int, seed: int) -> list[str]:
    """A random sample without replacement, in sampling order; all images when there are fewer."""
    order = np.random.default_rng(seed_of(seed, "stage A sample")).permutation(len(images))
    return [images[i] for i in order[:samples]]


def _caption(context: Context, images: list[str], image_root: Path, directory: Path) -> str:
    """Ask for what the store does not have yet; a stop signal ends it between two answers."""
    settings = context.config.gen_pre_train_text
    world = context.machine.world
    store = CaptionStore(directory / "pre_captions.jsonl")
    backend = _open(settings)
    text_backend = _open(settings.text) if settings.text else None
    bar = tqdm(desc="stage A", disable=None if distributed.is_main() else True)

    def progress(step: str, answered: int, asked: int) -> None:
        bar.set_description(f"stage A, {step}")
        bar.total = asked
        bar.update(answered - bar.n)
        if context.stop:  # every answer so far is in the store
            raise Interrupted("Stopped in stage A.")

    try:
        report = caption_sample(
            images,
            image_root,
            backend,
            store,
            text_backend=text_backend,
            progress=progress,
            retry_refused=settings.retry_refused,
            rank=world.rank,
            world_size=world.size,
        )
    finally:
        bar.close()
        backend.close()
        if text_backend:
            text_backend.close()
        store.close()
    return str(report.summary)


def _open(settings: BackendConfig) -> Backend:
    return make_backend(settings.backend, **settings.options)
