"""The table of a folder of crops, `crops.jsonl`: where, when and from which box each of them was cut.

Lines are JSON objects and are only ever appended, one per frame that was looked at, written after its crops:

    {"source": "door.mp4", "begins": {...}}              a source, with what decides its crops: the file, every, the detector, ...
    {"source": "door.mp4", "frame": 50, "seconds": 2.0, "persons": [
        {"file": "door.mp4/f0000050_t2.000_x10_y20_w40_h90.jpg", "box": [10, 20, 40, 90], "score": 0.91, "track": 3,
         "fingerprint": "00ff00ff00ff00ff"}]}            boxes are left, top, width, height in the frame's pixels
    {"source": "door.mp4", "ends": 1500}                 a video is done; so many frames it had

A person without `file` was seen and thinned out (`serving.tracks`). A line that a killed process left half written is cut
off by the next one, which does that frame again and so writes the same crops under the same names.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import UserError
from serving.tracks import Box, Seen

TABLE = "crops.jsonl"
_LOCK = ".crops.lock"


@dataclass(frozen=True)
class Origin:
    """Where a crop is from: its source, seconds from that one's beginning (None: nobody knows), frame and box.

    `box` is (left, top, width, height) in pixels of the frame.
    """

    source: str
    seconds: float | None
    frame: int
    box: Box


@dataclass
class Done:
    """What is known of a source: what it began with, the frame done last (-1: none), its end, everything seen, and counts."""

    begins: dict[str, Any]
    frame: int = -1
    image: str = ""
    ended: bool = False
    seen: list[tuple[int, Seen]] = field(default_factory=list)
    kept: int = 0


class CropTable:
    """A folder of crops, opened for adding to it by one process at a time.

    Raises UserError for a folder that holds something else, for a damaged table, and while another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / TABLE
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: name a folder for the crops.")
        if folder.is_dir() and not self.path.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder} holds other files and no {TABLE}: name a new or an empty folder, nothing is overwritten."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()  # before the lock: a folder with nothing but a lock would not be known as one of crops
            self._lock = (folder / _LOCK).open("w")
        except OSError as error:
            raise UserError(f"{folder} can't be written ({error.strerror}): name another --out.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(
                f"Another process is adding crops to {folder}: wait until it is done, then run this again."
            ) from None
        try:
            self._cut_torn_line()
            self.sources = _sources(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> CropTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.close()

    def _cut_torn_line(self) -> None:
        with self.path.open("r+b") as file:
            end = position = file.seek(0, os.SEEK_END)
            while position:  # backwards, to the end of the last whole line
                start = max(0, position - 65536)
                file.seek(start)
                newline = file.read(position - start).rfind(b"\n")
                if newline >= 0:
                    position = start + newline + 1
                    break
                position = start
            if position < end:
                file.truncate(position)

    def begin(self, source: str, begins: dict[str, Any]) -> Done:
        """A source's state; it is entered where it is new, or where nothing of it was done yet, as of a broken video.

        Raises UserError where it was begun from another file or with other settings.
        """
        done = self.sources.get(source)
        if done is None or (done.frame < 0 and not done.ended and begins != done.begins):
            self._append({"source": source, "begins": begins})
            done = self.sources[source] = Done(begins)
        changed = [name for name in begins if begins[name] != done.begins.get(name)]
        if {"kind", "bytes", "digest"} & set(changed):
            raise UserError(
                f"{self.folder} has crops of something else called {source}: give this one another name by --source NAME."
            )
        if changed:
            told = ", ".join(f"{name} {done.begins.get(name)}" for name in changed)
            raise UserError(
                f"The crops of {source} in {self.folder} were begun with {told}: give the same, or name another --out."
            )
        return done

    def add(
        self, source: str, frame: int, seconds: float | None, persons: list[dict[str, Any]], **more: str
    ) -> None:
        """Enters a frame; its crops are files by now."""
        line = {"source": source, "frame": frame, "seconds": seconds, "persons": persons}
        self._append({**line, **{name: text for name, text in more.items() if text}})

    def end(self, source: str, frames: int) -> None:
        """Says that a video is done."""
        self._append({"source": source, "ends": frames})

    def _append(self, line: dict[str, Any]) -> None:
        # One write: a process that is killed leaves a line or the beginning of one.
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()


def person_line(file: str, seen: Seen, score: float) -> dict[str, Any]:
    """A person as the table holds it; `file` is empty for one that was thinned out."""
    line = {"file": file} if file else {}
    mark = f"{seen.fingerprint:016x}"
    return {**line, "box": list(seen.box), "score": score, "track": seen.track, "fingerprint": mark}


def _sources(path: Path) -> dict[str, Done]:
    sources: dict[str, Done] = {}
    for number, line in _lines(path):
        try:
            if "begins" in line:
                sources[line["source"]] = Done(dict(line["begins"]))
                continue
            done = sources[line["source"]]
            if "ends" in line:
                done.ended = True
                continue
            done.frame, done.image = int(line["frame"]), line.get("image", "")
            for person in line["persons"]:
                kept = "file" in person
                seen = Seen(_box(person), int(person["track"]), int(person["fingerprint"], 16), kept)
                done.seen.append((done.frame, seen))
                done.kept += kept
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _damaged(path, number) from None
    return sources


def origins_of(path: Path) -> dict[str, Origin]:
    """Every crop that a table lists, by its path below the table's folder.

    Raises UserError for a damaged table; a last line that is half written is left out.
    """
    origins: dict[str, Origin] = {}
    for number, line in _lines(path):
        try:
            for person in line.get("persons", ()):
                if "file" in person:
                    seconds = line["seconds"]
                    seconds = None if seconds is None else float(seconds)
                    origins[str(person["file"])] = Origin(
                        str(line["source"]), seconds, int(line["frame"]), _box(person)
                    )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _damaged(path, number) from None
    return origins


def _box(person: dict[str, Any]) -> Box:
    left, top, wide, high = person["box"]
    return int(left), int(top), int(wide), int(high)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            if not content.endswith(b"\n"):
                return
            try:
                line = json.loads(content)
            except ValueError:
                raise _damaged(path, number) from None
            if not isinstance(line, dict):
                raise _damaged(path, number)
            yield number, line


def _damaged(path: Path, number: int) -> UserError:
    return UserError(
        f"Line {number} of {path} is no line of a table of crops: take it out, or crop into another folder."
    )
