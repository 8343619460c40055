"""Searching a folder of images by sentences: the commands behind ``search.py``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import UserError
from data.folder import find_images
from engine import checkpoints
from engine.building import pixels_of
from engine.config import RuntimeConfig
from engine.distributed import Interrupted
from engine.log import LOGGER
from engine.machine import Machine, make_machine
from engine.opening import Opened, open_model
from engine.run import StopSignal
from retrieval.pictures import contact_sheet
from serving.crop_table import Origin
from serving.explaining import draw_explanations
from serving.index import CHECKPOINT
from serving.indexing import IndexWriter, Report, digest_of
from serving.opening import decoder, open_image, open_searcher
from serving.origins import Wanted, told
from serving.searcher import Hit, Searcher
from serving.stores import named_store

_SHOWN = 5  # unreadable images that are named


def _machine(options: argparse.Namespace) -> Machine:
    return make_machine(RuntimeConfig(device=options.device, precision=options.precision))


def index(options: argparse.Namespace) -> int:
    """Encode what is new or changed in the image folder and publish it; returns the exit code.

    Raises:
        UserError: no image, no checkpoint, an index of something else, a store that can't be reached, or a full disk.
    """
    machine = _machine(options)
    kept_in = None if options.store is None else named_store(options.store, options.collection)
    images = find_images(options.images, "name your folder of person crops behind --images")
    opened = open_model(options.checkpoint)
    model, image_size = machine.for_use(opened.model).place(opened.model), tuple(opened.content["image_size"])
    stop = StopSignal().install()
    with IndexWriter(options.out) as writer:
        writer.claim(model, image_size, digest_of(opened.weights), options.images, kept_in)
        _keep_checkpoint(opened, writer)
        plan = writer.plan(images)
        if plan.keep and plan.todo:
            LOGGER.info("%d images are encoded already, %d are to do.", len(plan.keep), len(plan.todo))
        try:
            with tqdm(total=len(plan.todo), desc="encoding", unit="image", disable=None) as bar:
                writer.encode(
                    plan,
                    model,
                    decoder(image_size, pixels_of(model)),
                    batch_size=options.batch_size,
                    workers=options.workers,
                    progress=_progress(bar, stop),
                )
        except Interrupted as reason:
            LOGGER.warning("%s The same command goes on from here.", reason)
            return 128 + stop.received
        report = writer.publish(plan)
    _tell(report, options)
    return 0


def _keep_checkpoint(opened: Opened, writer: IndexWriter) -> None:
    """The index has its model beside it: as a hard link where the file system allows it, else as a copy, and written anew
    where it is not one file of this project's.

    Checkpoints are replaced by renaming, so a later training does not change what the link leads to.
    """
    target = writer.directory / CHECKPOINT
    if not opened.is_own_file:
        if not target.exists():
            checkpoints.save(target, opened.content)
        writer.note_kept(digest_of(target))
    elif not target.exists():
        _link_or_copy(opened.path, target)


def _link_or_copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), temporary)
    except OSError:
        try:
            shutil.copyfile(source, temporary)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UserError(
                f"{source} can't be copied to {target} ({error.strerror}): make room there."
            ) from None
    temporary.replace(target)


def _progress(bar: tqdm, stop: StopSignal) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        bar.update(done - bar.n)
        if stop and done < total:
            raise Interrupted(f"Stopped after {done} of {total} images, which are kept.")

    return show


def _tell(report: Report, options: argparse.Namespace) -> None:
    if report.unreadable:
        LOGGER.warning("%d images do not open and are left out:", len(report.unreadable))
        for _, reason in report.unreadable[:_SHOWN]:
            LOGGER.warning("  %s", reason)
        if len(report.unreadable) > _SHOWN:
            LOGGER.warning("  and %d more", len(report.unreadable) - _SHOWN)
    print(
        f"{options.out}: {report.indexed} images can be searched "
        f"({report.added} added, {report.changed} changed, {report.removed} removed)."
    )


def query(options: argparse.Namespace) -> int:
    """Print the images for a sentence as a table or as JSON, and draw them; returns the exit code.

    Raises:
        UserError: an index or a sentence that can't be used, or a sheet that can't be written.
    """
    searcher = open_searcher(options.index, _machine(options))
    wanted = Wanted(tuple(options.source), options.after, options.before)
    hits = searcher.by_sentence(options.sentence, options.top, options.rerank, wanted)
    if options.sheet:
        _draw(searcher, options.sentence, hits, options.sheet)
    explained = _explain(searcher, options.sentence, hits, options.explain) if options.explain else None
    print(
        _as_json(searcher, options.sentence, hits, explained) if options.json else _as_table(searcher, hits)
    )
    return 0


def _explain(searcher: Searcher, sentence: str, hits: Sequence[Hit], folder: Path) -> list[Path | None]:
    """Draws why each image was found; the files, None where an image is gone."""
    drawn = draw_explanations(searcher, sentence, hits, folder)
    return list(tqdm(drawn, total=len(hits), desc="explaining", unit="image", disable=None))


def _draw(searcher: Searcher, sentence: str, hits: Sequence[Hit], path: Path) -> None:
    shown = [(hit.image, f"{hit.score:.3f}") for hit in hits]
    try:
        contact_sheet(path, sentence, shown, lambda image: open_image(searcher.index, image))
    except OSError as error:
        raise UserError(f"The sheet {path} can't be written ({error.strerror}): name another file.") from None


def _as_table(searcher: Searcher, hits: Sequence[Hit]) -> str:
    lines = ["rank   score  cosine  image" + ("  (source, time)" if searcher.index.summary.sources else "")]
    for place, hit in enumerate(hits, 1):
        mark = "" if hit.match is None else " (re-ranked)"
        known = told(hit.origin)
        place_and_time = f"  ({known})" if known else ""
        lines.append(
            f"{place:4d} {hit.score:7.3f} {hit.similarity:7.3f}  {searcher.index.root / hit.image}{place_and_time}{mark}"
        )
    return "\n".join(lines)


def _as_json(
    searcher: Searcher, sentence: str, hits: Sequence[Hit], explained: Sequence[Path | None] | None
) -> str:
    pictures = [{} for _ in hits]
    if explained is not None:
        pictures = [{"explanation": None if path is None else str(path)} for path in explained]
    found = [
        {
            "rank": place,
            "path": str(searcher.index.root / hit.image),
            "image": hit.image,
            "score": round(hit.score, 6),
            "cosine": round(hit.similarity, 6),
            "reranked": hit.match is not None,
            **_origin(hit.origin),
            **picture,
        }
        for place, (hit, picture) in enumerate(zip(hits, pictures, strict=True), 1)
    ]
    return json.dumps({"query": sentence, "hits": found}, indent=1)


def _origin(origin: Origin | None) -> dict[str, Any]:
    """Where a crop is from as JSON has it; nothing where nobody knows."""
    return {} if origin is None else {**vars(origin), "box": list(origin.box)}


def serve(options: argparse.Namespace) -> int:
    """Serve the web page until ctrl-C; returns the exit code.

    Raises:
        UserError: Gradio is not installed, the address is taken, or the index can't be used.
    """
    try:  # Gradio is an extra that training machines do not have
        from serving.page import run_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(
            "The web page needs Gradio, which is not installed: pip install -r requirements-search.txt."
        ) from None
    searcher = open_searcher(options.index, _machine(options))
    LOGGER.info(
        "%d images of %s, searched %s.",
        len(searcher.index),
        searcher.index.root,
        searcher.index.searched,
    )
    run_page(searcher, options.host, options.port)
    return 0
