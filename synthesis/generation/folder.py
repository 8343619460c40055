"""The folder of a synthetic set while it is made: images, manifests, and what it is made with.

    <root>/settings.json          what decides its images; another recipe is refused
    <root>/manifests/*.jsonl      prompts, generated, people, edited, captions: one append-only store per step
    <root>/imgs/generated|people|edited/
    <root>/synthetic.json         the data set, once it is complete

A manifest has a record for every image that is finished, written after its file: so a file that a killed process left without
one is written over with the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from captioning.store import CaptionStore
from data.errors import UserError

Manifest = Literal["prompts", "generated", "people", "edited", "captions"]
QUALITY = 95  # of JPEG: edits and training read these files, not what was in memory


class SetFolder:
    """One set's folder.

    Args:
        root: made with the first file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.images = self.root / "imgs"
        self.annotation = self.root / "synthetic.json"
        self.settings_file = self.root / "settings.json"

    def is_foreign(self) -> bool:
        """Whether it holds a finished set that this pipeline did not make, or did elsewhere and of which the data set alone was copied."""
        return self.annotation.is_file() and not self.settings_file.exists()

    def manifest(self, name: Manifest) -> CaptionStore:
        """The store of a step, open until it is closed."""
        return CaptionStore(self.root / "manifests" / f"{name}.jsonl")

    def path(self, image: str) -> Path:
        """Where an image lies."""
        return self.images / image

    def lacking(self, store: CaptionStore, images: list[str]) -> list[str]:
        """Those of `images` that are still to be made: without a record, or with one whose file is gone."""
        missing = set(store.missing(images))
        return [
            image
            for image in images
            if image in missing or (store.status(image) == "done" and not self.path(image).is_file())
        ]

    def is_lacking(self, name: Manifest, images: list[str]) -> bool:
        """Whether a step still has any of its images to make."""
        with self.manifest(name) as store:
            return bool(self.lacking(store, images))

    def open_image(self, image: str) -> Image.Image:
        """An image of the set, decoded, in RGB.

        Raises:
            UserError: the file is gone or does not open.
        """
        try:
            with Image.open(self.path(image)) as picture:
                return picture.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise UserError(
                f"{self.path(image)} does not open ({error}): remove it, and the same command makes it again."
            ) from None

    def save_image(self, image: str, picture: Image.Image) -> None:
        """Write an image under a temporary name, then rename it."""
        self._save(self.path(image), picture)

    def save_picture(self, name: str, picture: Image.Image) -> None:
        """The same for a picture beside the annotation, which is none of the set."""
        self._save(self.root / name, picture)

    @staticmethod
    def _save(path: Path, picture: Image.Image) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            picture.save(temporary, "JPEG", quality=QUALITY)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note what decides the images of this set.

        Raises:
            UserError: the folder holds images that were made with other settings.
        """
        if self.settings_file.is_file():
            known = json.loads(self.settings_file.read_text("utf-8"))
            different = [name for name in {**known, **settings} if known.get(name) != settings.get(name)]
            if different:
                raise UserError(
                    f"{self.root} holds a set that was begun with other settings ({', '.join(different)}): go on with those, name "
                    "another gen_images.root, or give --force, which keeps the old set aside and begins a new one."
                )
            return
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.settings_file.with_name(f".settings.{os.getpid()}")
        temporary.write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
        temporary.replace(self.settings_file)
