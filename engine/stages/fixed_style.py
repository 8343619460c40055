"""Texts in one fixed style, for methods that ask for them: of the training images, and of a split that is evaluated.

Gallery images are captioned and queries are rewritten for the MSM protocol only, when ``test.py`` evaluates; nothing of
them is in the folder's ``fixed_captions.json``, which training reads.
"""

from __future__ import annotations

from captioning.files import FIXED_CAPTIONS, load_fixed_captions, store_beside
from captioning.fixed import (
    caption_images,
    export,
    fixed_texts,
    image_requests,
    released_queries,
    rewrite_queries,
)
from captioning.store import CaptionStore
from data import PedesDataset
from data.errors import UserError
from engine import distributed
from engine.log import LOGGER
from engine.marks import Mark
from engine.run import Run
from engine.sources import open_dataset, training_images
from engine.stage import Context, set_aside
from engine.stages.asking import open_backends, progress_bar
from retrieval.evaluate import StyleTexts

TITLE = "fixed style"
GALLERY = "fixed_gallery.jsonl"  # of images that are evaluated; imported files bring rewritten queries, too
QUERIES = "fixed_queries.jsonl"


def caption_training_images(context: Context, dry_run: bool, retry: bool) -> None:
    """Write ``fixed_captions.json``: the configured backend's text of every training image.

    Raises:
        UserError: no images, a backend that can't be used or fails for good, or no image with a text.
    """
    config = context.config
    path = config.caption_directory / FIXED_CAPTIONS
    mark = Mark.of("fixed_captions", config)
    if not (context.force or dry_run or retry) and mark.is_set(TITLE):
        return
    if context.force and not dry_run:
        mark.clear()
        set_aside(store_beside(path))
        set_aside(path)
        distributed.barrier()
    dataset = open_dataset(config)
    images = training_images(dataset)
    if not store_beside(path).exists() and path.exists() and load_fixed_captions(path).keys() >= set(images):
        LOGGER.info("%s: not needed, %s has texts of all images and is used as it is.", TITLE, path)
        return
    with CaptionStore(store_beside(path)) as store:
        if dry_run:
            _estimate(context, images, dataset, store, retry)
            return
        _ask(context, images, dataset, store, retry)
        context.check_stop()
        distributed.barrier()
        if distributed.is_main():
            written = export(store, path, images)
            if not written:
                raise UserError(f"No training image got a text in the fixed style: {store.summary()}.")
            LOGGER.info("%s: %d of %d training images; %s", TITLE, written, len(images), store.summary())
    distributed.barrier()
    mark.set()


def _ask(
    context: Context, images: list[str], dataset: PedesDataset, store: CaptionStore, retry: bool
) -> None:
    settings, world = context.config.gen_pre_train_text, context.machine.world
    Run(store.path.parent, "log.txt", context.stop)
    LOGGER.info("%s: %d training images with '%s'.", TITLE, len(images), settings.backend)
    with open_backends(settings) as (backend, _), progress_bar(context, TITLE) as progress:
        caption_images(
            images,
            dataset.image_root,
            backend,
            store,
            progress=progress,
            retry_refused=retry or settings.retry_refused,
            rank=world.rank,
            world_size=world.size,
        )


def _estimate(
    context: Context, images: list[str], dataset: PedesDataset, store: CaptionStore, retry: bool
) -> None:
    """Say what is left to ask; nothing is asked and nothing is written."""
    settings = context.config.gen_pre_train_text
    if not distributed.is_main():
        return
    requests = image_requests(images, dataset.image_root, store, retry or settings.retry_refused)
    with open_backends(settings) as (backend, _):
        estimate = getattr(backend, "estimate", None)
        work = estimate(requests) if estimate else "on this machine, at no cost"
    print(
        f"Fixed style with '{settings.backend}': {len(requests)} of {len(images)} training images are still to be "
        f"captioned, {work}."
    )


def style_texts(context: Context, dataset: PedesDataset, split: str) -> StyleTexts:
    """The fixed-style texts of a split's images and queries for the MSM protocol; what is stored is not asked again.

    Images and queries without a text (refused, empty) have "".

    Raises:
        UserError: a backend that can't be used or fails for good; what was answered is kept.
    """
    config = context.config
    settings, folder = config.gen_pre_train_text, config.caption_directory
    records = dataset.split(split)
    images = [record.image for record in records]
    with CaptionStore(folder / GALLERY) as gallery, CaptionStore(folder / QUERIES) as queries:
        released = [released_queries(record.image, len(record.captions), gallery) for record in records]
        own = [
            caption
            for record, texts in zip(records, released, strict=True)
            if texts is None
            for caption in record.captions
        ]
        # A backend may need a server or a key: it is not even opened where everything is stored.
        if gallery.missing(images) or queries.missing(own):
            LOGGER.info("MSM: %d images and %d queries in the fixed style.", len(images), len(own))
            with open_backends(settings) as (backend, text_backend), progress_bar(context, "MSM") as progress:
                caption_images(images, dataset.image_root, backend, gallery, progress=progress)
                rewrite_queries(own, text_backend or backend, queries, progress=progress)
        texts = [
            text
            for record, known in zip(records, released, strict=True)
            for text in (fixed_texts(record.captions, queries) if known is None else known)
        ]
        return StyleTexts(texts, fixed_texts(images, gallery), config.test.msm_weight)
