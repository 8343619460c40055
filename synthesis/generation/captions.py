"""Captions of the images of a set by a captioning backend, one for each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from captioning import prompts
from captioning.backends import Backend, Reply, Request
from captioning.pipeline import Progress, ask, share, warn_of_other_models
from captioning.store import CaptionStore
from captioning.templates import all_templates
from synthesis.generation.folder import SetFolder
from synthesis.generation.prompts import seed_of
from synthesis.generation.recipe import CaptionKind


def question(image: str, kind: CaptionKind, seed: int) -> str:
    """What the backend is asked about an image; of the variable kind each image draws a template."""
    if kind == "constant":
        return prompts.constant_prompt()
    return prompts.variable_prompt(random.Random(seed_of(seed, "caption", image)).choice(all_templates()))


def requests_for(
    folder: SetFolder, images: Iterable[str], store: CaptionStore, kind: CaptionKind, seed: int
) -> list[Request]:
    """The questions that `caption` still has to ask."""
    return [
        Request(image, folder.path(image), question(image, kind, seed)) for image in store.missing(images)
    ]


def caption(
    folder: SetFolder,
    images: Sequence[str],
    backend: Backend,
    kind: CaptionKind,
    seed: int,
    *,
    progress: Progress | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Ask for the captions that the folder lacks.

    Args:
        images: all of them, in every process.
        progress: called as ("captions", answered, asked) after every answer.

    Raises:
        ValueError: a backend that stops for good, or a store that cannot be written.
    """
    with folder.manifest("captions") as store:
        warn_of_other_models(store, backend)

        def keep(reply: Reply) -> None:
            error = {"error": reply.error} if reply.error else {}
            store.put(reply.key, status=reply.status, text=reply.text, model=backend.model, **error)

        mine = share(list(images), rank, world_size)
        ask(backend, requests_for(folder, mine, store, kind, seed), keep, "captions", progress)
