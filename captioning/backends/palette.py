"""The embedded backend: reads the pixels by rules, needs no model, no network and no key (docs/palette.md)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from captioning import prompts
from captioning.backends import Reply, Request
from captioning.palette import Description, describe, sentence
from captioning.palette.colours import NEUTRAL, Light
from captioning.palette.light import lights
from captioning.palette.rewriting import rewrite
from captioning.palette.wording import templated
from captioning.templates import template_of


class PaletteBackend:
    """Answers `captioning.prompts` from what `captioning.palette` reads; about a hundred images a second and core.

    A picture in which no person can be told from the background gives the status "empty"; an unreadable file gives
    "failed".

    Args:
        cameras: whether each folder is the pictures of one camera, whose light is taken from many of them.
    """

    name = "palette"
    model = "palette-1"

    def __init__(self, cameras: bool = False) -> None:
        self._cameras = cameras
        self._images: Sequence[Path] = ()
        self._lights: dict[Path, Light] | None = None

    def look_over(self, images: Sequence[Path]) -> None:
        """Take the light of the cameras from all these images; none is opened before one is asked about."""
        self._images, self._lights = images, None

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """One reply for each request, in order, as it is ready.

        Raises:
            ValueError: a prompt that is none of `captioning.prompts`.
        """
        for request in requests:
            kind = prompts.kind_of(request.prompt)
            try:
                text = self._text(request, kind)
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                yield Reply(request.key, "", "failed", f"The image {request.image} does not open: {error}")
                continue
            yield (
                Reply(request.key, text, "done")
                if text
                else Reply(request.key, "", "empty", "Nothing can be read from this image.")
            )

    def close(self) -> None:
        """Nothing is held open."""

    def _light(self, image: Path) -> Light:
        if not self._cameras:
            return NEUTRAL
        if self._lights is None:
            self._lights = lights(self._images)
        return self._lights.get(image.parent, NEUTRAL)

    def _text(self, request: Request, kind: prompts.Kind) -> str:
        caption = prompts.payload_of(request.prompt)
        if caption is not None:
            return rewrite(caption, kind)
        if request.image is None:
            raise ValueError(
                f"The {kind} prompt of {request.key!r} asks about an image, but the request has none."
            )
        variant = zlib.crc32(f"{request.key}\n{request.opening}".encode())
        stat = request.image.stat()
        description = _read(request.image, stat.st_mtime_ns, stat.st_size, self._light(request.image))
        if kind == "constant":
            return templated(description)
        if kind == "variable":
            return templated(description, template_of(prompts.example_of(request.prompt)), variant)
        return sentence(description, kind, request.opening, variant)


@lru_cache(maxsize=1 << 16)  # an image is asked about once per caption, at different times
def _read(path: Path, modified: int, size: int, light: Light) -> Description:
    with Image.open(path) as image:
        return describe(ImageOps.exif_transpose(image), light)
