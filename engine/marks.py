"""Finished-marks: small files that say a stage is finished, and with which settings.

Every stage's mark is described here, and nothing here needs torch: one process that starts at once can look at all of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.log import LOGGER
from retrieval.results import write_atomically

IMAGE_STAGE = "gen_images"
CAPTION_STAGES = ("gen_pre_train_text", "pre_train", "gen_text")
STAGES = (IMAGE_STAGE, *CAPTION_STAGES, "train", "test")  # in order
# Which settings a stage's outcome depends on; the texts in one fixed style are a part of the first stage.
SECTIONS = {
    IMAGE_STAGE: ("gen_images",),
    "gen_pre_train_text": ("seed", "dataset", "gen_pre_train_text"),
    "fixed_captions": ("dataset", "gen_pre_train_text"),
    "pre_train": ("seed", "dataset", "gen_pre_train_text", "pre_train"),
    "gen_text": ("seed", "dataset", "gen_text"),
    "train": ("seed", "dataset", "model", "train", "cluster", "correction"),
    "test": ("seed", "dataset", "test"),
}


class Mark:
    """A small file that says a stage is finished and with which settings."""

    def __init__(self, path: Path, config: Config, sections: tuple[str, ...]) -> None:
        self.path = path
        content = config.model_dump(mode="json")
        self.settings = {name: content[name] for name in sections}

    @classmethod
    def of(cls, stage: str, config: Config) -> Mark:
        """The mark of a stage, in the folder of what that stage makes.

        Args:
            stage: a key of `SECTIONS`.
        """
        folder = {
            "pre_train": config.captioner_directory,
            "train": config.run_directory,
            "test": config.run_directory,
        }
        if config.gen_images is not None:
            folder[IMAGE_STAGE] = Path(config.gen_images.root)
        # Which synthetic set there is makes a difference to trainings that read it.
        more = ("gen_images",) if stage == "train" and config.train.data != "real" else ()
        path = folder.get(stage, config.caption_directory) / f".{stage}.done"
        return cls(path, config, (*SECTIONS[stage], *more))

    def changes(self) -> list[str] | None:
        """Which settings have changed since the stage was finished; None where it is not finished.

        A setting that there was none of at that time had what is its default now.
        """
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        defaults = Config().model_dump(mode="json", include=set(self.settings))
        return differences(_completed(known, defaults), self.settings)

    def is_set(self, stage: str) -> bool:
        """True when the stage is finished; says so, and names settings that have changed since."""
        changed = self.changes()
        if changed is None:
            return False
        LOGGER.info("%s: already finished (%s); --force does it again.", stage, self.path.parent)
        if changed:
            LOGGER.warning(
                "%s was finished with other settings: %s. They are used as they are; --force does the stage again.",
                stage,
                "; ".join(changed[:5]),
            )
        return True

    def set(self) -> None:
        """Write the mark, atomically; everything the stage made must be on disk by now."""
        # Not at the top: it brings torch, which a stage has by now and who reads marks does without.
        from engine import distributed

        if distributed.is_main():
            write_atomically(self.path, json.dumps(self.settings, indent=1))

    def clear(self) -> None:
        """Forget that the stage was finished."""
        from engine import distributed

        if distributed.is_main():
            self.path.unlink(missing_ok=True)


def _completed(known: Any, defaults: Any) -> Any:
    """Settings, and the defaults of those that they lack in sections that they have."""
    if not (isinstance(known, dict) and isinstance(defaults, dict)):
        return known
    return defaults | {name: _completed(value, defaults.get(name)) for name, value in known.items()}


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The values that differ between two nested settings, as "section.key old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in differences(old.get(name), new.get(name), f"{prefix}.{name}".strip("."))
        ]
    return [] if old == new else [f"{prefix} {old!r} -> {new!r}"]
