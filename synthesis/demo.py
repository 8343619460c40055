"""Make the demo data set: procedural pedestrians with captions, in the format of a benchmark.

    python -m synthesis.demo --root datasets/demo

Nothing is overwritten: a folder that already holds the same set is left alone, one that holds something else is
refused, and an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data.errors import UserError
from synthesis.drawn.attributes import Person, sample_people
from synthesis.drawn.camera import encode_jpeg, sample_shot
from synthesis.drawn.captions import describe
from synthesis.drawn.renderer import ProceduralRenderer
from synthesis.drawn.worlds import STREET, WORLDS, World
from synthesis.writers import FORMATS, Entry, Format

VERSION = 1  # raise when the same seed would draw something else


class DemoError(UserError):
    """The demo data cannot be made as asked; the message says what to change."""


@dataclass(frozen=True)
class Spec:
    """Everything that decides the bytes of a demo set; written to `spec.json`."""

    format: str
    train: int
    val: int
    test: int
    images: int
    seed: int
    version: int = VERSION
    world: str = STREET.name

    @property
    def drawn_in(self) -> World:
        """The world behind the name."""
        return WORLDS[self.world]

    def record(self) -> dict:
        """JSON-ready; a set in today's world says what it said before there were others."""
        content = asdict(self)
        return {key: value for key, value in content.items() if (key, value) != ("world", STREET.name)}

    @property
    def identities(self) -> int:
        """Number of identities in all splits."""
        return self.train + self.val + self.test

    def split(self, index: int) -> str:
        """The split of identity `index`, counted from 0."""
        if index < self.train:
            return "train"
        return "val" if index < self.train + self.val else "test"


def make_demo(
    root: str | Path,
    fmt: str = "cuhk_pedes",
    train: int = 400,
    val: int = 50,
    test: int = 100,
    images: int = 4,
    seed: int = 0,
    world: str = STREET.name,
    *,
    workers: int = 1,
) -> Path:
    """Make the demo set below `root` and return the folder of the data set, such as `root/CUHK-PEDES`.

    Args:
        root: the folder that holds data sets.
        fmt: "cuhk_pedes", "icfg_pedes" (has no val split: `val` must be 0 or is dropped) or "rstpreid".
        train, val, test: number of identities per split.
        images: images per identity.
        seed: of everything; the bytes written depend on it, on the numbers above, on the world and on nothing else.
        world: one of `synthesis.drawn.worlds.WORLDS`.
        workers: processes; 0 and 1 draw in this one, more need the caller's module to be importable without side effects.

    Raises:
        DemoError: unknown format or world, sizes below one, or a folder that holds something else.
    """
    if fmt not in FORMATS:
        raise DemoError(f"unknown format {fmt!r}; choose one of {', '.join(FORMATS)}")
    if world not in WORLDS:
        raise DemoError(f"unknown world {world!r}; choose one of {', '.join(WORLDS)}")
    if min(train, test, images) < 1 or min(val, workers) < 0:
        raise DemoError("train, test and images must be at least 1, val and workers at least 0")
    layout = FORMATS[fmt]
    spec = Spec(fmt, train, val if layout.has_val else 0, test, images, seed, world=world)
    target = Path(root) / layout.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{layout.folder}.lock"):
        if _is_there(target, spec):
            return target
        partial_folder = _open_partial(target, spec)
        _draw_all(partial_folder, spec, layout, workers)
        _finish(partial_folder, spec, layout)
        partial_folder.rename(target)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time makes a set; a second one waits and then finds it there."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_there(target: Path, spec: Spec) -> bool:
    if not target.exists():
        return False
    try:
        found = json.loads((target / "spec.json").read_text())
    except (OSError, ValueError):
        raise DemoError(
            f"{target} exists and was not made here; choose another root so that it stays as it is"
        ) from None
    wanted = spec.record()
    if found != wanted:
        different = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        raise DemoError(
            f"{target} holds another demo set (differs in {', '.join(different)}); remove it or choose another root"
        )
    return True


def _open_partial(target: Path, spec: Spec) -> Path:
    """The folder in which the set grows until it is complete; that of another spec is thrown away."""
    folder = target.with_name(f".{target.name}.partial")
    wanted = json.dumps(spec.record(), indent=2) + "\n"
    spec_file = folder / "spec.json"
    if folder.exists() and not (spec_file.exists() and spec_file.read_text() == wanted):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    spec_file.write_text(wanted)
    return folder


def _finished_identities(journal: Path) -> dict[int, dict]:
    """What an interrupted run has completed, by identity index; a torn last line is ignored."""
    done: dict[int, dict] = {}
    if journal.exists():
        for line in journal.read_text().splitlines():
            try:
                result = json.loads(line)
            except ValueError:
                continue
            done[result["index"]] = result
    return done


def _draw_all(folder: Path, spec: Spec, layout: Format, workers: int) -> None:
    """Draw every identity that the journal does not hold yet, in any number of processes."""
    journal = folder / "journal.jsonl"
    done = _finished_identities(journal)
    people = sample_people(spec.identities, spec.seed, spec.drawn_in.fashion)
    todo = [(index, person) for index, person in enumerate(people) if index not in done]
    if done:
        print(f"{folder}: continuing, {len(done)} of {spec.identities} identities are there")
    for split in {layout.path(0, camera.name, 0).rpartition("/")[0] for camera in spec.drawn_in.cameras}:
        (folder / "imgs" / split).mkdir(parents=True, exist_ok=True)
    progress = _Progress(len(todo), spec.images)
    draw = partial(draw_identity, folder=str(folder), spec=spec)
    with journal.open("a") as handle:
        # A killed run may have left half a line.
        handle.write("\n")
        for result in _spread(draw, todo, workers):
            handle.write(json.dumps(result) + "\n")
            handle.flush()
            progress.step()


def _spread(draw: partial, todo: list[tuple[int, Person]], workers: int) -> Iterator[dict]:
    if workers < 2 or len(todo) < 2:
        yield from map(draw, todo)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(draw, todo, chunksize=max(1, min(8, len(todo) // workers)))


class _Progress:
    """A line that says how many images are drawn: rewritten on a terminal, every tenth elsewhere."""

    def __init__(self, identities: int, images: int) -> None:
        self.total, self.images, self.done = identities, images, 0
        self.start = time.perf_counter()
        self.live = sys.stderr.isatty()

    def step(self) -> None:
        """One more identity is finished."""
        self.done += 1
        tenth = self.done * 10 // self.total > (self.done - 1) * 10 // self.total
        if tenth or (self.live and self.done % 10 == 0):
            seconds = time.perf_counter() - self.start
            end = "\r" if self.live and self.done < self.total else "\n"
            count, total = self.done * self.images, self.total * self.images
            print(
                f"drawing people: {count}/{total} images, {seconds:.0f} s",
                end=end,
                file=sys.stderr,
                flush=True,
            )


def _views(count: int, rng: random.Random) -> list[str]:
    """Viewpoints of an identity's images: among the first four always a front, a back and a side."""
    views: list[str] = []
    while len(views) < count:
        four = [
            "front",
            "back",
            rng.choice(("left", "right")),
            rng.choice(("front", "back", "left", "right")),
        ]
        rng.shuffle(four)
        views += four
    return views[:count]


def draw_identity(task: tuple[int, Person], folder: str, spec: Spec) -> dict:
    """Draw, write and describe all images of one identity.

    Returns:
        JSON-ready {"index", "identity", "split", "images": [{"path", "captions", "mistakes", "view", "visible", ...}]}.
    """
    index, person = task
    layout = FORMATS[spec.format]
    identity = layout.first_identity + index
    world = spec.drawn_in
    renderer = ProceduralRenderer(world)
    rng = random.Random(f"shots/{spec.seed}/{index}")
    drawn = []
    for number, view in enumerate(_views(spec.images, rng)):
        camera = world.cameras[number % len(world.cameras)]
        shot = sample_shot(camera, view, rng, world.optics)
        picture = renderer.render(person, shot, f"{spec.seed}/{index}/{number}")
        path = layout.path(identity, camera.name, number)
        file = Path(folder) / "imgs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(picture.image, shot))
        writer = random.Random(f"captions/{spec.seed}/{index}/{number}")
        captions = [
            describe(person, picture, writer, layout.words, world.wording) for _ in range(layout.captions)
        ]
        drawn.append(
            {
                "path": path,
                "captions": [caption.text for caption in captions],
                "mistakes": [caption.mistake for caption in captions],
                "view": picture.view,
                "walking": picture.walking,
                "occluded": shot.occluded,
                "visible": {slot: round(share, 4) for slot, share in picture.visible.items()},
            }
        )
    return {
        "index": index,
        "identity": identity,
        "split": spec.split(index),
        "person": person.record(),
        "images": drawn,
    }


def _finish(folder: Path, spec: Spec, layout: Format) -> None:
    """Write the annotation and, apart from it, the true attributes; drop the journal."""
    journal = folder / "journal.jsonl"
    done = _finished_identities(journal)
    entries: list[Entry] = []
    truth: dict[str, dict] = {"identities": {}, "images": {}}
    for index in range(spec.identities):
        result = done[index]
        truth["identities"][str(result["identity"])] = result["person"]
        for image in result["images"]:
            entries.append(
                Entry(image["path"], result["identity"], result["split"], tuple(image["captions"]))
            )
            known = {key: value for key, value in image.items() if key not in ("path", "captions")}
            truth["images"][image["path"]] = {"identity": result["identity"], **known}
    (folder / layout.annotation).write_text(json.dumps([layout.record(entry) for entry in entries]))
    (folder / "attributes.json").write_text(json.dumps(truth))
    journal.unlink()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m synthesis.demo", description="Make the demo data set.")
    parser.add_argument("--root", default="datasets/demo", help="folder that will hold the data set")
    parser.add_argument("--format", default="cuhk_pedes", choices=tuple(FORMATS))
    parser.add_argument("--like", choices=tuple(FORMATS), help="format and sizes of a real set (much larger)")
    parser.add_argument("--train", type=int, help="identities (default 400)")
    parser.add_argument("--val", type=int, help="identities (default 50)")
    parser.add_argument("--test", type=int, help="identities (default 100)")
    parser.add_argument("--images", type=int, help="images per identity (default 4, in the target world 6)")
    parser.add_argument("--world", default=STREET.name, choices=tuple(WORLDS), help="whose people are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    sizes = {"train": 400, "val": 50, "test": 100, "images": WORLDS[options.world].images}
    if options.like:
        sizes = dict(FORMATS[options.like].like)
    sizes |= {name: getattr(options, name) for name in sizes if getattr(options, name) is not None}
    try:
        folder = make_demo(
            options.root,
            options.like or options.format,
            seed=options.seed,
            world=options.world,
            workers=options.workers,
            **sizes,
        )
    except (DemoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130
    print(f"The demo set is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
