"""Stage A, the captions of a sample of images, and the grouping of their clothing words: resumable, in waves.

Per image (methods: PDTG of PSPD): base caption; if longer than 50 characters, simplified by the text model or by
rules; the gender read from it; a styled caption whose opening rotates within the gender; simplified likewise.

Each step is one wave over all images that need it, so that a backend always has enough to fill its concurrency or
its batches. Every answer is stored as it comes, under `<image>::<step>`; an image that has both captions gets its
record under its own name. What is stored is never asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from captioning import attributes, prompts
from captioning.backends import Backend, Reply, Request
from captioning.estimate import Estimate
from captioning.files import PreCaption, write_pre_captions
from captioning.gender import gender_of
from captioning.replies import is_refusal, tidy
from captioning.simplify import shorten
from captioning.store import CaptionStore, StoreSummary

Progress = Callable[[str, int, int], None]
Words = tuple[tuple[str, ...], tuple[str, ...]]
Item = TypeVar("Item")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleReport:
    """What one call of `caption_sample` did: images asked about, images found ready, and the store afterwards."""

    asked: int
    ready: int
    summary: StoreSummary

    def __str__(self) -> str:
        return f"{self.ready} images were captioned before, {self.asked} asked about now\n{self.summary}"


def share(items: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """The part of `items` that process `rank` of `world_size` works on; all parts together are all items."""
    if not 0 <= rank < world_size:
        raise ValueError(f"Rank {rank} does not exist among {world_size} processes.")
    return list(items[rank::world_size])


def caption_sample(
    images: Sequence[str],
    image_root: str | Path,
    backend: Backend,
    store: CaptionStore,
    *,
    text_backend: Backend | None = None,
    progress: Progress | None = None,
    retry_refused: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> SampleReport:
    """Caption `images` (stage A), asking only for what `store` lacks.

    Args:
        images: paths relative to `image_root`. The opening of an image's styled caption follows from its position,
            so give the same list again when resuming, and the whole list in every process.
        backend: answers the questions about images.
        text_backend: simplifies captions of more than 50 characters; None: rules (`captioning.simplify`).
        progress: called as (step, answered, asked) after every answer.
        retry_refused: ask again about images that were refused or came back empty.
        rank, world_size: this process's share of the images; all processes write one store.

    Raises:
        ValueError: a backend that stops for good (its server's words are in the message) or a store that cannot be
            written. Everything answered until then is stored.
    """
    positions = {image: position for position, image in enumerate(dict.fromkeys(images))}
    mine = share(list(positions), rank, world_size)
    todo = store.missing(mine, retry_refused=retry_refused)
    warn_of_other_models(store, backend)
    look_over(backend, positions, image_root)
    run = _StageA(Path(image_root), backend, text_backend, store, progress, retry_refused, positions)
    try:
        run.caption(todo)
    finally:
        store.flush()
    return SampleReport(asked=len(todo), ready=len(mine) - len(todo), summary=store.summary())


def estimate_sample(
    images: Sequence[str],
    image_root: str | Path,
    backend: Backend,
    store: CaptionStore,
    *,
    text_backend: Backend | None = None,
    retry_refused: bool = False,
) -> Estimate:
    """What `caption_sample` with the same arguments would still take (`--dry-run`); nothing is asked.

    Backends without an `estimate` of their own (they cost no money) count as nothing.
    """
    todo = store.missing(images, retry_refused=retry_refused)
    steps = {step: [step_key(image, step) for image in todo] for step in ("base", "styled")}
    looks = {
        "base": prompts.base_prompt(),
        "styled": prompts.styled_prompt(prompts.opening("unknown", 0)),
    }
    questions = [
        Request(key, Path(image_root) / image, looks[step])
        for step, keys in steps.items()
        for image, key in zip(todo, keys, strict=True)
        if store.status(key) != "done"
    ]
    # Captions that a text model simplifies are about as long as the question itself.
    texts = [Request(request.key, None, prompts.simplify_prompt(request.prompt)) for request in questions]
    total = Estimate()
    for asked, requests in ((backend, questions), (text_backend, texts)):
        estimate = getattr(asked, "estimate", None)
        total += estimate(requests) if estimate else Estimate()
    return total


def export(store: CaptionStore, path: str | Path, images: Iterable[str]) -> int:
    """Write `pre_captions.json` for those of `images` that have both captions; returns their number.

    With several processes: wait for all of them, then call this in one.
    """
    store.refresh()
    names = PreCaption.__dataclass_fields__
    records = [store.get(image) for image in dict.fromkeys(images) if store.status(image) == "done"]
    captions = [
        PreCaption(image=r["key"], **{name: r[name] for name in names if name in r}) for r in records if r
    ]
    return write_pre_captions(path, captions)


def group_captions(
    captions: dict[str, str],
    backend: Backend | None = None,
    store: CaptionStore | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Words]:
    """The upper and lower clothing words of each caption.

    Args:
        captions: key -> caption.
        backend: a text model; None, or where its answer is malformed or missing: rules (`attributes.group`).
        store: where the model's answers are kept, so that the same caption is never asked about twice.
        progress: called as ("attributes", answered, asked).

    Returns:
        key -> (upper words, lower words), in the order of `captions`.
    """
    if backend is None:
        return {key: attributes.group(caption) for key, caption in captions.items()}
    answers = _grouping_answers(captions, backend, store, progress)
    groups: dict[str, Words] = {}
    by_rules = 0
    for key, caption in captions.items():
        parsed = attributes.parse_reply(answers.get(key, ""))
        # "Upper: none. Lower: none." is an answer in form only.
        usable = parsed is not None and any(parsed)
        groups[key] = parsed if usable else attributes.group(caption)
        by_rules += not usable
    if by_rules:
        logger.info(
            "%d of %d captions grouped by rules: the model gave no usable answer", by_rules, len(groups)
        )
    return groups


def _grouping_answers(
    captions: dict[str, str], backend: Backend, store: CaptionStore | None, progress: Progress | None
) -> dict[str, str]:
    """The model's answers by key, from the store where it has them."""
    answers: dict[str, str] = {}
    requests = []
    for key, caption in captions.items():
        record = store.get(step_key(key, "attributes")) if store else None
        # A caption generated anew makes its old grouping worthless.
        if record and record["status"] != "failed" and record.get("caption") == caption:
            answers[key] = record["text"]
        else:
            requests.append(Request(key, None, prompts.attribute_prompt(caption)))

    def keep(reply: Reply) -> None:
        answers[reply.key] = reply.text
        if store is not None:
            store.put(
                step_key(reply.key, "attributes"),
                status=reply.status,
                step="attributes",
                caption=captions[reply.key],
                text=reply.text,
                model=backend.model,
            )

    ask(backend, requests, keep, "attributes", progress)
    return answers


def step_key(image: str, step: str) -> str:
    """The store key of one step of an image."""
    return f"{image}::{step}"


@dataclass(frozen=True)
class _StageA:
    """One process's waves over its images; every wave leaves the store complete up to its step."""

    image_root: Path
    backend: Backend
    text_backend: Backend | None
    store: CaptionStore
    progress: Progress | None
    retry_refused: bool
    positions: dict[str, int]

    def caption(self, images: list[str]) -> None:
        base_answers = self._describe("base", {image: (prompts.base_prompt(), "") for image in images})
        base: dict[str, str] = {}
        self._shorten("base", base_answers, {}, base.__setitem__)
        openings = {image: self._opening(image, caption) for image, caption in base.items()}
        styled_answers = self._describe(
            "styled",
            {image: (prompts.styled_prompt(opening), opening) for image, opening in openings.items()},
        )
        self._shorten(
            "styled",
            styled_answers,
            openings,
            lambda image, styled: self._complete(image, base[image], styled, openings[image]),
        )

    def _opening(self, image: str, base_caption: str) -> str:
        """The rotating opening, or the one an earlier run has already asked with."""
        asked = self.store.get(step_key(image, "styled"))
        if asked and asked.get("opening"):
            return asked["opening"]
        return prompts.opening(gender_of(base_caption), self.positions[image])

    def _describe(self, step: str, questions: dict[str, tuple[str, str]]) -> dict[str, str]:
        """Answers by image to (prompt, opening) about it; an image without one is settled with that status."""
        keys = {step_key(image, step): image for image in questions}
        missing = self.store.missing(keys, retry_refused=self.retry_refused)

        def keep(reply: Reply) -> None:
            image = keys[reply.key]
            prompt, opening = questions[image]
            model = self.backend.model
            self._put(reply, step=step, prompt=prompt, opening=opening, model=model)
            if reply.status != "done":
                self.store.put(image, status=reply.status, at=step, error=reply.error, model=model)

        requests = [Request(key, self.image_root / keys[key], *questions[keys[key]]) for key in missing]
        ask(self.backend, requests, keep, step, self.progress)
        records = {image: self.store.get(key) for key, image in keys.items()}
        return {image: r["text"] for image, r in records.items() if r and r["status"] == "done"}

    def _shorten(
        self, step: str, answers: dict[str, str], openings: dict[str, str], take: Callable[[str, str], None]
    ) -> None:
        """Hand each image's caption to `take`, simplified if it is long, as soon as it is there."""
        step = f"{step}-short"
        waiting: dict[str, str] = {}
        for image, answer in answers.items():
            record = self.store.get(step_key(image, step))
            if len(answer) <= prompts.SIMPLIFY_ABOVE:
                take(image, answer)
            elif record and record["status"] != "failed":
                take(image, _shorter(answer, record["text"], openings.get(image, "")))
            elif self.text_backend is None:
                take(image, shorten(answer))
            else:
                waiting[step_key(image, step)] = image
        if self.text_backend is None:
            return
        model = self.text_backend.model

        def keep(reply: Reply) -> None:
            image = waiting[reply.key]
            self._put(reply, step=step, model=model)
            take(image, _shorter(answers[image], reply.text, openings.get(image, "")))

        requests = [
            Request(key, None, prompts.simplify_prompt(answers[image])) for key, image in waiting.items()
        ]
        ask(self.text_backend, requests, keep, step, self.progress)

    def _put(self, reply: Reply, **fields: str) -> None:
        extra = {name: value for name, value in (("error", reply.error), ("usage", reply.usage)) if value}
        self.store.put(reply.key, status=reply.status, text=reply.text, **fields, **extra)

    def _complete(self, image: str, base_caption: str, styled_caption: str, opening: str) -> None:
        self.store.put(
            image,
            base_caption=base_caption,
            styled_caption=styled_caption,
            gender=gender_of(base_caption),
            opening=opening,
            prompts={"base": prompts.base_prompt(), "styled": prompts.styled_prompt(opening)},
            model=self.backend.model,
        )


def look_over(backend: Backend, images: Iterable[str], image_root: str | Path) -> None:
    """Show all images to a backend that wants to see them before the first question (`look_over`): the same in every process
    and after a stop, whatever is stored already."""
    if look := getattr(backend, "look_over", None):
        look([Path(image_root) / image for image in images])


def ask(
    backend: Backend,
    requests: list[Request],
    keep: Callable[[Reply], None],
    step: str = "",
    progress: Progress | None = None,
) -> None:
    """Hand each settled reply to `keep` as it comes; however this ends, nothing goes on in the background."""
    if not requests:
        return
    replies = backend.answer(requests)
    try:
        for count, reply in enumerate(replies, start=1):
            keep(settle(reply))
            if progress:
                progress(step, count, len(requests))
    finally:
        # An exception's traceback would keep the generator, and with it the requests in flight, alive.
        if isinstance(replies, Generator):
            replies.close()


def settle(reply: Reply) -> Reply:
    """The reply with a tidy text, and with the status that its words deserve."""
    if reply.status != "done":
        return reply
    if is_refusal(reply.text):
        return replace(reply, status="refused", error=reply.text[:200], text="")
    text = tidy(reply.text)
    if not text:
        return replace(reply, status="empty", error="the answer holds no caption", text="")
    return replace(reply, text=text)


def _shorter(caption: str, answer: str, opening: str) -> str:
    """The text model's version, or the rules' where it is empty, longer, or does not begin as the caption does.

    The beginning names the person and is the captioner's prompt in stage B: the opening, or else the first two words.
    """
    start = opening.lower()
    if not start or not caption.lower().startswith(start):
        start = " ".join(caption.lower().split()[:2])
    return answer if len(answer) <= len(caption) and answer.lower().startswith(start) else shorten(caption)


def warn_of_other_models(store: CaptionStore, backend: Backend) -> None:
    """Say so where the store has captions of another model: they are kept."""
    others = {name: count for name, count in store.summary().models.items() if name != backend.model}
    if others:
        logger.warning(
            "%s already holds %d images captioned by %s; they are kept and not asked about again with %s. "
            "Use another pre_gen_data folder to caption them anew.",
            store.path,
            sum(others.values()),
            ", ".join(others),
            backend.model,
        )
