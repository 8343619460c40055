"""Where indexed crops are from, by the tables that lie beside them, and searching some of them only."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.errors import UserError
from serving.clock import clock
from serving.crop_table import TABLE, Origin, origins_of

_NAMED = 8  # sources in a message


def find_origins(root: Path, images: Iterable[str]) -> dict[str, Origin]:
    """The origin of every image (paths below `root`) that a `crops.jsonl` in one of its folders lists.

    Raises UserError for a damaged table.
    """
    images = set(images)
    folders: set[str] = set()
    for image in images:
        folder = posixpath.dirname(image)
        while folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    found: dict[str, Origin] = {}
    for folder in sorted(folders):
        table = root / folder / TABLE
        if table.is_file():
            for file, origin in origins_of(table).items():
                image = posixpath.join(folder, file)
                if image in images:
                    found[image] = origin
    return found


@dataclass(frozen=True)
class Wanted:
    """Which images a search is about: of one of these sources (all where there are none), from `after` to `before` in seconds."""

    sources: tuple[str, ...] = ()
    after: float | None = None
    before: float | None = None

    def __bool__(self) -> bool:
        return bool(self.sources) or self.after is not None or self.before is not None

    def includes(self, origin: Origin) -> bool:
        """Whether a crop is wanted; one whose time nobody knows is not where a time is asked for."""
        if self.sources and origin.source not in self.sources:
            return False
        if self.after is None and self.before is None:
            return True
        if origin.seconds is None:
            return False
        return (self.after is None or origin.seconds >= self.after) and (
            self.before is None or origin.seconds <= self.before
        )

    def check(self, known: Collection[str], timed: bool) -> None:
        """Whether an index can be asked for this that knows these sources (in order), and times or none.

        Raises UserError where it knows no sources, or not these, or no time, and for an end before the beginning.
        """
        if not known:
            raise UserError(
                "This index knows no source and time of its images: they come from the crops.jsonl that search.py crop writes."
            )
        missing = [source for source in self.sources if source not in known]
        if missing:
            more = " and more" if len(known) > _NAMED else ""
            raise UserError(
                f"The index has nothing of the source {missing[0]}: it has {', '.join(list(known)[:_NAMED])}{more}."
            )
        if self.after is not None and self.before is not None and self.after > self.before:
            raise UserError("--after is later than --before: nothing lies between them.")
        if not timed and not (self.after is None and self.before is None):
            raise UserError(
                "This index knows no time of its images: give search.py crop the frames' rate by --fps."
            )

    def rows(self, origins: Mapping[int, Origin]) -> list[int]:
        """The rows of the index that are wanted; UserError as from `check`."""
        known = sorted({origin.source for origin in origins.values()})
        self.check(known, any(origin.seconds is not None for origin in origins.values()))
        return [row for row, origin in origins.items() if self.includes(origin)]


EVERYTHING = Wanted()


def told(origin: Origin | None) -> str:
    """Source and time for people; empty where nobody knows."""
    if origin is None:
        return ""
    return origin.source if origin.seconds is None else f"{origin.source} {clock(origin.seconds)}"
