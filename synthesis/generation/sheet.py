"""A picture of a synthetic set: a row for each prompt with its images, what the filter left out, edits, and captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from synthesis.generation.export import Entry
from synthesis.generation.folder import SetFolder
from synthesis.generation.recipe import Planned, cropped_path

SHEET = "contact_sheet.jpg"
_CELL, _PICTURE, _MARGIN, _TEXT = (150, 262), 168, 5, 9.5
_RED = (196, 30, 30)


def contact_sheet(
    folder: SetFolder, images: Sequence[Planned], entries: Sequence[Entry], rows: int = 6, columns: int = 7
) -> Image.Image:
    """The first prompts of a set.

    Args:
        images: all generated ones, also those that the filter left out, which stand framed in red with the reason.
        entries: the images of the set.
        rows: prompts; `columns`: pictures of each: generated ones at the left, edits of the first kept one at the right.
    """
    by_prompt: dict[int, list[Planned]] = {}
    for image in images:
        by_prompt.setdefault(image.prompt.number, []).append(image)
    shown = list(by_prompt.values())[:rows]
    with folder.manifest("captions") as captions, folder.manifest("people") as people:
        texts = {record["key"]: record.get("text", "") for record in captions}
        reasons = {record["key"]: record.get("reason", "") for record in people}
    cells = [_cells(generated, entries, reasons, columns) for generated in shown]
    wide = max((len(row) for row in cells), default=0)
    sheet = Image.new("RGB", ((wide + 1) * _CELL[0], max(1, len(shown)) * _CELL[1]), "white")
    for row, generated in enumerate(shown):
        top = row * _CELL[1]
        _write(sheet, (0, top), generated[0].prompt.text, lines=18)
        for column, (path, title, red) in enumerate(cells[row], start=1):
            _paste(folder, sheet, (column * _CELL[0], top), path, title or texts.get(path, ""), red)
    return sheet


def _cells(
    generated: Sequence[Planned], entries: Sequence[Entry], reasons: dict[str, str], columns: int
) -> list[tuple[str, str, bool]]:
    """Path, words instead of a caption, and whether it was left out, of each picture of a prompt."""
    kept = {entry.origin.path: entry for entry in entries if not entry.edit}
    first = next((image.path for image in generated if image.path in kept), "")
    edits = [entry.path for entry in entries if entry.edit and entry.origin.path == first]
    # An edit of each kind before a second one of any: they come in the order of the kinds.
    room = max(columns - 2, columns - len(generated)) if edits else 0
    spread = [edits[number * len(edits) // room] for number in range(room)] if len(edits) > room else edits
    cells = []
    for image in generated[: columns - len(spread)]:
        reason = reasons.get(cropped_path(image.path), "")
        path = kept[image.path].path if image.path in kept else image.path
        cells.append((path, f"left out: {reason}" if reason else "", bool(reason)))
    return cells + [(path, "", False) for path in spread]


def _paste(
    folder: SetFolder, sheet: Image.Image, corner: tuple[int, int], path: str, words: str, red: bool
) -> None:
    if not folder.path(path).is_file():
        return
    picture = folder.open_image(path)
    scale = min(_PICTURE / picture.height, (_CELL[0] - 2 * _MARGIN) / picture.width)
    picture = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
    )
    left, top = corner[0] + (_CELL[0] - picture.width) // 2, corner[1] + _MARGIN
    sheet.paste(picture, (left, top))
    if red:
        ImageDraw.Draw(sheet).rectangle(
            (left, top, left + picture.width - 1, top + picture.height - 1), outline=_RED, width=3
        )
    _write(sheet, (corner[0], corner[1] + _PICTURE), words, lines=6, colour=_RED if red else (0, 0, 0))


def _write(
    sheet: Image.Image,
    corner: tuple[int, int],
    words: str,
    *,
    lines: int,
    colour: tuple[int, int, int] = (0, 0, 0),
) -> None:
    text = "\n".join(textwrap.wrap(words, 29)[:lines])
    ImageDraw.Draw(sheet).multiline_text(
        (corner[0] + _MARGIN, corner[1] + 10),
        text,
        fill=colour,
        font=ImageFont.load_default(size=_TEXT),
        spacing=1,
    )
