"""Backends: what looks at an image (or reads a text) and answers a prompt.

| name | what it is | needs |
|---|---|---|
| `palette` | reads the pixels by rules | nothing |
| `openai` | any OpenAI-compatible chat endpoint | a server |
| `transformers` | a local image-text-to-text or text model | weights |

Each lives in a module of its own that is imported only when asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from captioning.store import Status
from data.errors import UserError

BACKENDS = {
    "palette": ("captioning.backends.palette", "PaletteBackend"),
    "openai": ("captioning.backends.openai", "OpenAIBackend"),
    "transformers": ("captioning.backends.transformers", "TransformersBackend"),
}


class BackendError(UserError):
    """A backend cannot be made, or has stopped for good; the message is one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question: `prompt` about `image` (None: about the prompt's own text).

    `opening` repeats the words a styled caption has to begin with, for backends that do not read the prompt.
    """

    key: str
    image: Path | None
    prompt: str
    opening: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request of the same key.

    Attributes:
        status: "done" with a non-empty `text`; "refused" by a content filter; "empty" answer; "failed" to get any.
        error: what went wrong, in words, unless done.
        usage: counts such as "prompt_tokens", "completion_tokens" and "requests".
    """

    key: str
    text: str
    status: Status
    error: str = ""
    usage: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """Answers requests, in any order, each exactly once; `model` is recorded with every caption.

    One may have two methods more: `look_over(images)`, called with the paths of all images before the first question, and
    `estimate(requests)`, what they would take.
    """

    name: str
    model: str

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]: ...

    def close(self) -> None: ...


def make_backend(name: str, **options: object) -> Backend:
    """The backend called `name`, made with its own options.

    Raises:
        BackendError: an unknown name or option (the known ones are listed), or a backend that cannot start.
    """
    if name not in BACKENDS:
        raise BackendError(f"There is no captioning backend {name!r}{_nearest(name, BACKENDS)}.")
    module_name, class_name = BACKENDS[name]
    backend_class = getattr(importlib.import_module(module_name), class_name)
    parameters = inspect.signature(backend_class).parameters
    for option in options:
        if option not in parameters:
            raise BackendError(
                f"The {name} captioning backend has no option {option!r}{_nearest(option, parameters)}."
            )
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise BackendError(f"The {name} captioning backend needs the option {option!r}.")
    return backend_class(**options)


def _nearest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{hint}; known: {', '.join(names) or 'none'}"
