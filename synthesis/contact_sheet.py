"""A picture of a demo set: crops of some identities with a caption under each.

python -m synthesis.contact_sheet --dataset datasets/demo/CUHK-PEDES --output sheet.jpg

Two data sets stand side by side, each under the name of its world.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from synthesis.drawn.worlds import STREET
from synthesis.writers import FORMATS

_CELL, _PICTURE, _MARGIN = (168, 292), 200, 6
_TITLE, _GAP = 28, 12


def contact_sheet(dataset: Path, identities: int = 6, images: int = 4, split: str = "test") -> Image.Image:
    """Rows of `images` crops for the first identities of a split, two identities to a row, captions below.

    Args:
        dataset: a folder made by `synthesis.demo`, in any format.
        identities: how many people.
        images: crops of each.
        split: "train", "val" or "test".

    Raises:
        ValueError: the folder holds no annotation of a known name, or too few identities.
    """
    people = list(_records(dataset, split).values())[:identities]
    if len(people) < identities:
        raise ValueError(
            f"{dataset} has {len(people)} {split} identities, {identities} were asked for; ask for fewer"
        )
    columns = 2 * images
    rows = (identities + 1) // 2
    sheet = Image.new("RGB", (columns * _CELL[0], rows * _CELL[1]), "white")
    for index, records in enumerate(people):
        for number, (path, caption) in enumerate(records[:images]):
            left = (index % 2 * images + number) * _CELL[0]
            _paste_cell(sheet, (left, index // 2 * _CELL[1]), dataset / "imgs" / path, caption)
    return sheet


def side_by_side(
    datasets: tuple[Path, Path], identities: int = 4, images: int = 4, split: str = "test"
) -> Image.Image:
    """A row for each of the first identities of two data sets, the first one's on the left; arguments as `contact_sheet`."""
    halves = []
    for dataset in datasets:
        both = contact_sheet(dataset, 2 * identities, images, split)
        half = Image.new("RGB", (both.width // 2, identities * _CELL[1] + _TITLE), "white")
        for index in range(identities):
            left, top = index % 2 * half.width, index // 2 * _CELL[1]
            row = both.crop((left, top, left + half.width, top + _CELL[1]))
            half.paste(row, (0, index * _CELL[1] + _TITLE))
        world = json.loads((dataset / "spec.json").read_text()).get("world", STREET.name)
        font = ImageFont.load_default(size=16)
        ImageDraw.Draw(half).text((_MARGIN, _MARGIN), f"{world} world", fill="black", font=font)
        halves.append(half)
    sheet = Image.new("RGB", (2 * halves[0].width + _GAP, halves[0].height), "white")
    for number, half in enumerate(halves):
        sheet.paste(half, (number * (half.width + _GAP), 0))
    ImageDraw.Draw(sheet).line(
        (halves[0].width + _GAP // 2, 0, halves[0].width + _GAP // 2, sheet.height), "grey"
    )
    return sheet


def _records(dataset: Path, split: str) -> dict[int, list[tuple[str, str]]]:
    """(path, first caption) of every image, by identity."""
    names = [layout.annotation for layout in FORMATS.values()]
    found = next((dataset / name for name in names if (dataset / name).exists()), None)
    if found is None:
        raise ValueError(f"{dataset} holds none of {', '.join(names)}; make it with python -m synthesis.demo")
    people: dict[int, list[tuple[str, str]]] = {}
    for record in json.loads(found.read_text()):
        if record["split"] == split:
            path = record.get("file_path") or record["img_path"]
            people.setdefault(record["id"], []).append((path, record["captions"][0]))
    return people


def _paste_cell(sheet: Image.Image, corner: tuple[int, int], path: Path, caption: str) -> None:
    left, top = corner
    with Image.open(path) as picture:
        crop = picture.convert("RGB")
    crop = crop.resize((round(crop.width * _PICTURE / crop.height), _PICTURE), Image.Resampling.LANCZOS)
    sheet.paste(crop, (left + (_CELL[0] - crop.width) // 2, top + _MARGIN))
    font = ImageFont.load_default(size=9.5)
    text = "\n".join(textwrap.wrap(caption, 33)[:7])
    ImageDraw.Draw(sheet).multiline_text(
        (left + _MARGIN, top + _PICTURE + 10), text, fill="black", font=font, spacing=1
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m synthesis.contact_sheet", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--dataset", type=Path, nargs="+", default=[Path("datasets/demo/CUHK-PEDES")], help="one, or two"
    )
    parser.add_argument("--output", type=Path, default=Path("output/contact_sheet.jpg"))
    parser.add_argument("--identities", type=int, help="of each (default 6, side by side 4)")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    options = parser.parse_args(arguments)
    if len(options.dataset) > 2:
        parser.error("one data set, or two side by side")
    try:
        if len(options.dataset) == 2:
            sheet = side_by_side(tuple(options.dataset), options.identities or 4, split=options.split)
        else:
            sheet = contact_sheet(options.dataset[0], options.identities or 6, split=options.split)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.output, quality=84)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
