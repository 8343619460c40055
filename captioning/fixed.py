"""Texts in one fixed style (text style normalisation, docs/methods/tsn.md): of images, and of queries rewritten into it.

Each has a store, so that nothing is asked twice. An image's key is its path, a query's key is the query itself: whoever asks
the same thing again, in whatever order, gets the stored text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from captioning import prompts
from captioning.backends import Backend, Reply, Request
from captioning.files import FixedCaption, write_fixed_captions
from captioning.pipeline import Progress, ask, look_over, share, warn_of_other_models
from captioning.store import CaptionStore


def caption_images(
    images: Sequence[str],
    image_root: str | Path,
    backend: Backend,
    store: CaptionStore,
    *,
    progress: Progress | None = None,
    retry_refused: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Ask for the text of those of `images` that `store` lacks.

    Args:
        images: paths relative to `image_root`; the whole list in every process.
        progress: called as ("fixed style", answered, asked) after every answer.
        retry_refused: ask again about images that were refused or came back empty.

    Raises:
        ValueError: a backend that stops for good, or a store that cannot be written.
    """
    mine = share(list(dict.fromkeys(images)), rank, world_size)
    warn_of_other_models(store, backend)
    look_over(backend, images, image_root)
    _ask(backend, image_requests(mine, image_root, store, retry_refused), store, progress)


def image_requests(
    images: Iterable[str], image_root: str | Path, store: CaptionStore, retry_refused: bool = False
) -> list[Request]:
    """The questions that `caption_images` still has to ask."""
    return [
        Request(image, Path(image_root) / image, prompts.fixed_prompt())
        for image in store.missing(images, retry_refused=retry_refused)
    ]


def rewrite_queries(
    queries: Iterable[str], backend: Backend, store: CaptionStore, *, progress: Progress | None = None
) -> None:
    """Ask a text model (or the rules of `palette`) to rewrite those of `queries` that `store` lacks.

    Raises:
        ValueError: a backend that stops for good, or a store that cannot be written.
    """
    requests = [Request(query, None, prompts.fixed_rewrite_prompt(query)) for query in store.missing(queries)]
    _ask(backend, requests, store, progress)


def fixed_texts(keys: Iterable[str], store: CaptionStore) -> list[str]:
    """The stored text of each image or query, "" where there is none."""
    return [_text(store, key) for key in keys]


def released_queries(image: str, count: int, store: CaptionStore) -> list[str] | None:
    """The imported rewritings of an image's own `count` queries, in their order; None where they are not there.

    A file made for other queries (another number of them) is not guessed at.
    """
    record = store.get(image) or {}
    texts = record.get("queries")
    return texts if isinstance(texts, list) and len(texts) == count else None


def export(store: CaptionStore, path: str | Path, images: Iterable[str]) -> int:
    """Write `fixed_captions.json` for those of `images` that have a text; returns their number."""
    store.refresh()
    texts: Mapping[str, str] = {image: _text(store, image) for image in dict.fromkeys(images)}
    return write_fixed_captions(path, [FixedCaption(image, text) for image, text in texts.items() if text])


def _ask(backend: Backend, requests: list[Request], store: CaptionStore, progress: Progress | None) -> None:
    def keep(reply: Reply) -> None:
        error = {"error": reply.error} if reply.error else {}
        store.put(reply.key, status=reply.status, fixed_caption=reply.text, model=backend.model, **error)

    try:
        ask(backend, requests, keep, "fixed style", progress)
    finally:
        store.flush()


def _text(store: CaptionStore, key: str) -> str:
    record = store.get(key)
    return record.get("fixed_caption", "") if record and record["status"] == "done" else ""
