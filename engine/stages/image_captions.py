"""Stage C: the captioner captions every training image twice, and the attributes are grouped.

Base caption after the fixed question, gender from its words, then a styled caption that continues an opening of
that gender. An image is encoded once for both; its text depends on the seed and on the image alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from captioning.backends import make_backend
from captioning.files import (
    CAPTIONS,
    Caption,
    store_beside,
    write_captions,
)
from captioning.gender import gender_of
from captioning.pipeline import Words, group_captions
from captioning.prompts import CAPTIONER_QUESTION, opening
from captioning.store import CaptionStore
from data.errors import UserError
from engine import checkpoints, distributed
from engine.building import pixels_of
from engine.config import Config
from engine.feeds import ImageFeed
from engine.log import LOGGER
from engine.marks import Mark
from engine.run import Run
from engine.seeds import seed_of
from engine.sources import open_dataset, training_images
from engine.stage import Context, set_aside
from engine.stages.asking import progress_bar
from engine.stages.caption_needs import captions_are_there, kept_of_stage_a, not_needed
from models import Captioner
from retrieval.memory import in_portions

STAGE = "gen_text"
Record = Mapping[str, Any]


def caption_images(context: Context) -> None:
    """Write ``captions.json``: two captions and the attribute words of every training image.

    Raises:
        UserError: the stage before has not run.
    """
    config = context.config
    path = config.caption_directory / CAPTIONS
    mark = Mark.of(STAGE, config)
    if (not context.force and mark.is_set(STAGE)) or not_needed(config, STAGE):
        return
    if context.force:
        mark.clear()
        set_aside(store_beside(path))
        set_aside(path)  # or it would be taken for captions put there by hand
        distributed.barrier()
    Run(path.parent, "log.txt", context.stop)
    dataset = open_dataset(config)
    images = training_images(dataset)
    if not store_beside(path).exists() and captions_are_there(config, images):
        LOGGER.info("%s: not needed, %s has captions of all images and is used as it is.", STAGE, path)
    else:
        kept = kept_of_stage_a(config, images)
        if config.gen_text.source == "pre_captions":
            records: Mapping[str, Record] = kept
        else:
            records = kept | _generated(context, images, kept, dataset.image_root)
        if distributed.is_main():
            _write(context, records, path)
        distributed.barrier()
    mark.set()


def _generated(
    context: Context, images: list[str], kept: Mapping[str, Record], image_root: Path
) -> dict[str, Record]:
    """The records of all images but the ``kept`` ones that have captions; what the store has is not generated again."""
    path = store_beside(context.config.caption_directory / CAPTIONS)
    context.compute_in(path.parent)
    with CaptionStore(path) as store:
        wanted = [image for image in images if image not in kept]
        missing = set(store.missing(wanted))
        LOGGER.info("Stage C: captioning %d images (%d are done).", len(missing), len(images) - len(missing))
        # By position, not by turns: the other processes may have written since this one read the store.
        world = context.machine.world
        mine = [i for i in range(world.rank, len(images), world.size) if images[i] in missing]
        distributed.barrier()
        if mine:
            _generate(context, images, image_root, np.asarray(mine), store)
        distributed.barrier()
        context.check_stop()
        store.refresh()  # what all processes have written
        records = {image: store.get(image) for image in wanted if store.status(image) == "done"}
    if len(records) < len(wanted):
        LOGGER.warning(
            "%d of %d images have no usable caption and are left out.",
            len(wanted) - len(records),
            len(images),
        )
    return records


def _generate(
    context: Context, images: list[str], image_root: Path, chosen: np.ndarray, store: CaptionStore
) -> None:
    """Caption the images at the positions ``chosen``, batch by batch, until done or asked to stop."""
    config = context.config
    path = config.captioner_directory / "captioner.pth"
    if not path.exists():
        raise UserError(f"There is no captioner {path}: run pre_train.py first.")
    model, content = checkpoints.load_captioner(path)
    machine = context.machine.for_use(model)
    model = machine.place(model)
    feed = ImageFeed.of(
        [image_root / image for image in images],
        config,
        tuple(content["image_size"]),
        pixels=pixels_of(model),
    )
    size = config.gen_text.batch_size

    def caption(positions: np.ndarray, part: slice) -> list[tuple[str, str, str, str]]:
        positions = positions[part]
        names = [images[i] for i in positions]
        pixels = next(feed.batches(size, machine.device, positions))
        with torch.inference_mode(), machine.autocast():
            texts = two_pass_captions(model, pixels, names, positions, config)
        return [(name, *parts) for name, parts in zip(names, texts, strict=True)]

    with tqdm(total=len(chosen), desc="stage C", disable=None if distributed.is_main() else True) as bar:
        for start in range(0, len(chosen), size):
            if context.stop:
                return
            positions = chosen[start : start + size]
            for texts in in_portions(model, "captions", len(positions), partial(caption, positions)):
                for name, base, styled, start_of_styled in texts:
                    # A captioner that ends at once says nothing after the question.
                    store.put(
                        name,
                        status="done" if base and styled else "empty",
                        base_caption=base,
                        styled_caption=styled,
                        opening=start_of_styled,
                    )
                bar.update(len(texts))


def two_pass_captions(
    model: Captioner, pixels: torch.Tensor, names: list[str], positions: np.ndarray, config: Config
) -> list[tuple[str, str, str]]:
    """(B, 3, H, W) images -> per image the base caption, the styled caption and its opening."""
    settings = config.gen_text
    options = {
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "repetition_penalty": settings.repetition_penalty,
        "min_length": settings.min_length,
        "max_length": settings.max_length,
    }
    tokens = model.encode_images(pixels)
    seeds = [seed_of(config.seed, "base", name) for name in names]
    answers = model.generate(tokens, [CAPTIONER_QUESTION] * len(names), seeds=seeds, **options)
    bases = [answer[len(CAPTIONER_QUESTION) :].strip() for answer in answers]
    openings = [opening(gender_of(base), int(i), "C") for base, i in zip(bases, positions, strict=True)]
    seeds = [seed_of(config.seed, "styled", name) for name in names]
    styled = model.generate(tokens, openings, seeds=seeds, **options)
    return list(zip(bases, styled, openings, strict=True))


def _write(context: Context, records: Mapping[str, Record], path: Path) -> None:
    """Group the attributes and write the file that training reads."""
    if not records:
        raise UserError("No training image has a caption: run gen_pre_train_text.py and pre_train.py first.")
    groups = _groups(context, records, path)
    captions = [
        Caption(image, record["base_caption"], record["styled_caption"], *groups[image])
        for image, record in records.items()
    ]
    write_captions(path, captions)
    words = np.mean([len(caption.styled_caption.split()) for caption in captions])
    LOGGER.info(
        "Stage C: %s has %d images, %d distinct styled captions of %.1f words on average.",
        path,
        len(captions),
        len({caption.styled_caption for caption in captions}),
        words,
    )


def _groups(context: Context, records: Mapping[str, Record], path: Path) -> dict[str, Words]:
    """Upper and lower words by image: those that came with the captions, else the text model's, else the rules'."""
    groups: dict[str, Words] = {
        image: (tuple(record.get("upper", ())), tuple(record.get("lower", ())))
        for image, record in records.items()
    }
    groups = {image: words for image, words in groups.items() if any(words)}
    rest = {image: record["styled_caption"] for image, record in records.items() if image not in groups}
    settings = context.config.gen_text.attributes
    if settings is None or not rest:
        return groups | group_captions(rest)
    backend = make_backend(settings.backend, **settings.options)
    try:
        with (
            CaptionStore(path.with_name("attributes.jsonl")) as store,
            progress_bar(context, "stage C") as progress,
        ):
            return groups | group_captions(rest, backend, store, progress=progress)
    finally:
        backend.close()
