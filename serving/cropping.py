"""From footage to person crops: the command behind ``search.py crop``."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from data.errors import UserError
from engine.config import RuntimeConfig
from engine.distributed import Interrupted
from engine.log import LOGGER
from engine.machine import make_machine
from engine.run import StopSignal
from serving.crop_table import CropTable, Done, person_line
from serving.detecting import Detector, make_detector
from serving.footage import Frame, Source, Video, sources_of
from serving.tracks import Tracker, fingerprint_of

_QUALITY = 95  # of JPEG: these are what is searched


@dataclass(frozen=True)
class Settings:
    """What decides which crops a source gives, besides its pixels; a source goes on with the same ones only."""

    every: int
    min_height: int
    difference: int
    detector: str

    def begins(self, source: Source) -> dict[str, Any]:
        """What the table says about the beginning of a source."""
        return {**source.identity, **vars(self)}


def crop(options: argparse.Namespace) -> int:
    """Cut the persons out of a video or of frames and list them; returns the exit code.

    Raises:
        UserError: nothing to read, no detector, a folder of other things, other settings than before, or no frame that opens.
    """
    sources = sources_of(options.footage, options.source, options.fps)
    _refuse_below(options.footage, options.out)
    device = make_machine(RuntimeConfig(device=options.device)).device
    detector = make_detector(
        options.detector, device=device, least_score=options.score, side=options.detect_size
    )
    settings = Settings(options.every, options.min_height, options.difference, detector.name)
    stop = StopSignal().install()
    with CropTable(options.out) as table:
        try:
            problems = {
                source.name: Cropper(table, source, settings, detector).run(stop) for source in sources
            }
        except Interrupted as reason:
            LOGGER.warning("%s The same command goes on from here.", reason)
            return 128 + (stop.received or 0)
        _tell(table, [name for name, problem in problems.items() if not problem], options.out)
    if any(problems.values()):
        raise UserError(" ".join(problem for problem in problems.values() if problem))
    return 0


def _refuse_below(footage: Path, out: Path) -> None:
    if footage.is_dir() and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(footage)):
        raise UserError(
            f"{out} lies in {footage}, and the next time crops would be taken for frames: name a folder outside of it behind --out."
        )


def _tell(table: CropTable, names: list[str], folder: Path) -> None:
    for name in names:
        done = table.sources[name]
        print(
            f"{folder}: {done.kept} crops of {name} ({len(done.seen) - done.kept} more were like one before)."
        )


class Cropper:
    """Cuts the persons out of one source, from where an earlier process left off."""

    def __init__(self, table: CropTable, source: Source, settings: Settings, detector: Detector) -> None:
        self.table, self.source, self.settings, self.detector = table, source, settings, detector
        self.done: Done = table.begin(source.name, settings.begins(source))
        self._tracker = Tracker(settings.every, settings.difference)
        for frame, seen in self.done.seen:
            self._tracker.remember(frame, seen)
        self._unopened: list[Frame] = []  # from the source's beginning on
        self._unreadable = 0
        if self.done.image and not self._is_continued():
            raise UserError(
                f"The frames in {source.path} are others than those that {table.folder} has crops of: name them by --source NAME."
            )

    def _is_continued(self) -> bool:
        images = self.source.images
        return self.done.frame < len(images) and images[self.done.frame] == self.done.image

    def run(self, stop: StopSignal) -> str:
        """All frames that are left; a sentence where not one opens, which other sources do not wait for.

        Raises Interrupted between two frames, and UserError where the disk is full or a video has no frame.
        """
        if self.done.ended:
            return ""
        every, length = self.settings.every, self.source.length
        start = self.done.frame + every if self.done.frame >= 0 else 0
        with tqdm(total=length or None, desc=self.source.name, unit="frame", disable=None) as bar:
            bar.update(start)
            for frame in self.source.frames(every, start):
                if stop:
                    raise Interrupted(f"Stopped before frame {frame.number:,} of {self.source.name}.")
                self._frame(frame)
                bar.update(min(frame.number + every, length or frame.number + every) - bar.n)
        if self._unopened:
            return (
                f"Not one of {len(self._unopened):,} frames of {self.source.name} opens (the first: "
                f"{self._unopened[0].problem.rstrip('.')}); mend them or copy them again, then run the same command."
            )
        if self._unreadable:
            LOGGER.warning(
                "%d frames of %s do not open and are left out.", self._unreadable, self.source.name
            )
        if self.source.problem:
            LOGGER.warning("%s is damaged: %s. What opens is cropped.", self.source.path, self.source.problem)
        if isinstance(self.source, Video):
            self.table.end(self.source.name, self.source.length)
            self.done.ended = True
        return ""

    def _frame(self, frame: Frame) -> None:
        # Nothing is noted before one opens: a source that is copied again begins anew.
        if frame.pixels is None and self.done.frame < 0:
            self._unopened.append(frame)
            return
        for earlier in self._unopened:
            self._note(earlier)
        self._unopened = []
        self._note(frame)

    def _note(self, frame: Frame) -> None:
        if frame.pixels is None:
            self._unreadable += 1
            if self._unreadable == 1:
                LOGGER.warning("A frame does not open: %s", frame.problem)
        persons = [] if frame.pixels is None else self._persons(frame)
        self.table.add(
            self.source.name, frame.number, frame.seconds, persons, image=frame.image, problem=frame.problem
        )
        self.done.frame = frame.number

    def _persons(self, frame: Frame) -> list[dict[str, Any]]:
        found = [each for each in self.detector.find(frame.pixels) if each.box[3] >= self.settings.min_height]
        crops = [_cut(frame, each.box) for each in found]
        boxes, marks = [each.box for each in found], [fingerprint_of(crop) for crop in crops]
        lines = []
        for seen, crop_, each in zip(
            self._tracker.follow(frame.number, boxes, marks), crops, found, strict=True
        ):
            file = ""
            if seen.keep:
                file = f"{self.source.name}/{file_name(frame, seen.box)}"
                _write(self.table.folder / file, crop_)
            lines.append(person_line(file, seen, each.score))
            self.done.seen.append((frame.number, seen))
            self.done.kept += seen.keep
        return lines


def file_name(frame: Frame, box: tuple[int, int, int, int]) -> str:
    """A crop's file: frame, seconds where they are known, and box."""
    time = "" if frame.seconds is None else f"_t{frame.seconds:.3f}"
    left, top, wide, high = box
    return f"f{frame.number:07d}{time}_x{left}_y{top}_w{wide}_h{high}.jpg"


def _cut(frame: Frame, box: tuple[int, int, int, int]) -> Any:
    left, top, wide, high = box
    return frame.pixels[top : top + high, left : left + wide]


def _write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # hidden: no index takes it
    try:
        Image.fromarray(pixels).save(temporary, "JPEG", quality=_QUALITY)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path} can't be written ({error.strerror or error}): make room and run the same command again, it goes on."
        ) from None
