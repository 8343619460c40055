"""What the stages that ask captioning backends share: opening them, and progress that a stop signal ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from captioning.backends import Backend, make_backend
from engine import distributed
from engine.config import PreTextConfig
from engine.distributed import Interrupted
from engine.stage import Context


@contextmanager
def open_backends(settings: PreTextConfig) -> Iterator[tuple[Backend, Backend | None]]:
    """What looks at the images and, if there is one, what works on texts."""
    opened = [make_backend(part.backend, **part.options) for part in (settings, settings.text) if part]
    try:
        yield opened[0], opened[1] if settings.text else None
    finally:
        for backend in opened:
            backend.close()


@contextmanager
def progress_bar(context: Context, title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (step, answered, asked) that shows progress and raises ``Interrupted`` when a stop was asked for."""
    with tqdm(desc=title, disable=None if distributed.is_main() else True) as bar:

        def progress(step: str, answered: int, asked: int) -> None:
            bar.set_description(f"{title}, {step}")
            bar.total = asked
            bar.update(answered - bar.n)
            if context.stop:  # every answer so far is in the store
                raise Interrupted(f"Stopped in {title}.")

        yield progress
