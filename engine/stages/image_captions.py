"""Stage C: the captioner captions every training image twice, and the attributes are grouped.

Base caption after the fixed question, gender from its words, then a styled caption that continues an opening of
that gender. An image is encoded once for both; its text depends on the seed and on the image alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from captioning.attributes import group
from captioning.backends import make_backend
from captioning.files import Caption, load_pre_captions, write_captions
from captioning.gender import gender_of
from captioning.pipeline import group_captions
from captioning.prompts import CAPTIONER_QUESTION, opening
from captioning.store import CaptionStore
from data.errors import UserError
from engine import checkpoints, distributed
from engine.feeds import ImageFeed
from engine.run import LOGGER, Run
from engine.seeds import seed_of
from engine.sources import open_dataset, training_images
from engine.stage import Context, Mark, set_aside
from models.backbones.captioner import BlipCaptioner

SECTIONS = ("seed", "dataset", "gen_text")


def caption_images(context: Context) -> None:
    """Write ``captions.json``: two captions and the attribute words of every training image.

    Raises:
        UserError: the stage before has not run.
    """
    config = context.config
    directory = config.caption_directory
    mark = Mark(directory / ".gen_text.done", config, SECTIONS)
    if not context.force and mark.is_set("gen_text"):
        return
    if context.force:
        mark.clear()
        set_aside(directory / "captions.jsonl")
        distributed.barrier()
    Run(directory, "log.txt", context.stop)
    dataset = open_dataset(config)
    images = training_images(dataset)
    if config.gen_text.source == "captioner":
        captions = _generate(context, images, [dataset.path(record) for record in dataset.train])
    else:
        known = load_pre_captions(directory / "pre_captions.json")
        captions = {image: (record.base_caption, record.styled_caption) for image, record in known.items()}
    if distributed.is_main():
        _write(context, captions, images)
    distributed.barrier()
    mark.set()


def _generate(context: Context, images: list[str], paths: list[Any]) -> dict[str, tuple[str, str]]:
    """Captions of all images; what the store has already is not generated again."""
    config, machine = context.config, context.machine
    model, content = checkpoints.load_captioner(config.captioner_directory / "captioner.pth")
    model = model.to(machine.device)
    store = CaptionStore(config.caption_directory / "captions.jsonl")
    wanted = set(store.missing(images))
    missing = [index for index, image in enumerate(images) if image in wanted]
    LOGGER.info("Stage C: captioning %d images (%d are done).", len(missing), len(images) - len(missing))
    feed = ImageFeed.of(paths, config, tuple(content["image_size"]))
    mine = np.asarray(missing[machine.world.rank :: machine.world.size], dtype=np.int64)
    bar = tqdm(total=len(mine), desc="stage C", disable=None if distributed.is_main() else True)
    for chosen in _chunks(mine, config.gen_text.batch_size):
        pixels = next(feed.batches(len(chosen), machine.device, chosen))
        names = [images[i] for i in chosen]
        with torch.inference_mode(), machine.autocast():
            texts = two_pass_captions(model, pixels, names, chosen, context)
        for name, (base, styled, start) in zip(names, texts, strict=True):
            store.put(name, status="done", base_caption=base, styled_caption=styled, opening=start)
        bar.update(len(chosen))
        if context.stop:
            break
    bar.close()
    distributed.barrier()
    context.check_stop()
    store = CaptionStore(config.caption_directory / "captions.jsonl")  # what all processes have written
    records = {image: record for image in images if (record := store.get(image))}
    return {image: (record["base_caption"], record["styled_caption"]) for image, record in records.items()}


def two_pass_captions(
    model: BlipCaptioner, pixels: torch.Tensor, names: list[str], positions: np.ndarray, context: Context
) -> list[tuple[str, str, str]]:
    """(B, 3, H, W) images -> per image the base caption, the styled caption and its opening."""
    config = context.config
    settings = config.gen_text
    options = {
        "top_p": settings.top_p,
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


def _chunks(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _write(context: Context, captions: dict[str, tuple[str, str]], images: list[str]) -> None:
    """Group the attributes and write the file that training reads."""
    settings = context.config.gen_text.attributes
    styled = {image: captions[image][1] for image in images if image in captions}
    if not styled:
        raise UserError("No training image has a caption: run gen_pre_train_text.py and pre_train.py first.")
    if settings is None:
        groups = {image: group(text) for image, text in styled.items()}
    else:
        store = CaptionStore(context.config.caption_directory / "attributes.jsonl")
        backend = make_backend(settings.backend, **settings.options)
        try:
            groups = group_captions(styled, backend=backend, store=store)
        finally:
            backend.close()
    path = context.config.caption_directory / "captions.json"
    records = [Caption(image, *captions[image], *map(tuple, groups[image])) for image in styled]
    write_captions(path, records)
    distinct = len({record.styled_caption for record in records})
    words = np.mean([len(record.styled_caption.split()) for record in records])
    LOGGER.info(
        "Stage C: %s has %d images, %d distinct styled captions of %.1f words on average.",
        path,
        len(records),
        distinct,
        words,
    )
