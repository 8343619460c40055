"""Pictures of an evaluation and of a search: rank lists with hits framed green, contact sheets."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from retrieval.evaluate import Evaluation

_CROP = (84, 188)  # pixels of a crop: the usual 1 : 2.2 of a standing person
_GAP, _MARGIN, _TEXT_WIDTH, _HEADER = 10, 20, 290, 44
_INK, _FAINT, _GROUND = (30, 30, 30), (120, 120, 120), (255, 255, 255)
_HIT, _MISS, _EMPTY = (22, 150, 60), (190, 190, 190), (235, 235, 235)
_MAX_BYTES = 300_000
_SHEET_COLUMNS = 5


def rank_lists(
    path: str | Path,
    evaluation: Evaluation,
    captions: Sequence[str],
    query_ids: Sequence[int],
    gallery_ids: Sequence[int],
    images: Sequence[str | Path],
    *,
    rows: int = 8,
    seed: int = 0,
    load: Callable[[str | Path], Image.Image] | None = None,
) -> list[int]:
    """Draws some queries with their best ten crops, half of them found at rank 1 and half not, into a JPEG < 300 kB.

    Args:
        images: (G,) file paths in gallery order.
        seed: draws the queries.
        load: opens an image as RGB; Pillow does where it is None.

    Returns:
        The queries drawn.
    """
    ranking = evaluation.best
    chosen = pick_queries(ranking.first_hit, rows, seed)
    load = load or _load
    gallery_ids = np.asarray(gallery_ids)
    lines = []
    for query in chosen:
        own = np.flatnonzero(gallery_ids == query_ids[query])[0]
        shown = [
            (images[index], bool(gallery_ids[index] == query_ids[query])) for index in ranking.indices[query]
        ]
        lines.append((captions[query], _places(evaluation, query), images[own], shown))
    save_small(draw_rank_lists(lines, load), Path(path))
    return chosen


def pick_queries(first_hit: np.ndarray, rows: int, seed: int) -> list[int]:
    """Up to `rows` queries, half found at rank 1 and half not (one kind fills up for the other), found ones first."""
    order = np.random.default_rng(seed).permutation(len(first_hit))
    found, missed = order[first_hit[order] == 1], order[first_hit[order] > 1]
    n_missed = min(len(missed), max(rows // 2, rows - len(found)))
    return [int(query) for query in (*found[: rows - n_missed], *missed[:n_missed])]


def _places(evaluation: Evaluation, query: int) -> str:
    text = f"first hit at rank {evaluation.best.first_hit[query]}"
    if evaluation.reranked is None:
        return text
    return f"{text}\n(rank {evaluation.cosine.first_hit[query]} before re-ranking)"


def draw_rank_lists(
    lines: Sequence[tuple[str, str, str | Path, Sequence[tuple[str | Path, bool]]]],
    load: Callable[[str | Path], Image.Image],
) -> Image.Image:
    """The picture: per line (query text, note, an image of the person, [(crop, is a hit), ...] best first)."""
    columns = max((len(shown) for *_, shown in lines), default=0)
    first = _MARGIN + _TEXT_WIDTH + _GAP
    start = first + _CROP[0] + 3 * _GAP
    width = start + columns * (_CROP[0] + _GAP) - _GAP + _MARGIN
    step = _CROP[1] + 2 * _GAP
    sheet = Image.new("RGB", (width, _HEADER + len(lines) * step + _MARGIN), _GROUND)
    draw = ImageDraw.Draw(sheet)
    _centred(draw, first, "the person")
    for column in range(columns):
        _centred(draw, start + column * (_CROP[0] + _GAP), str(column + 1))
    for number, (caption, note, person, shown) in enumerate(lines):
        y = _HEADER + number * step
        if number:
            draw.line((_MARGIN, y - _GAP, width - _MARGIN, y - _GAP), fill=_EMPTY)
        _write(draw, y, caption, note)
        _paste(sheet, draw, load, person, (first, y), None)
        for column, (image, is_hit) in enumerate(shown):
            corner = (start + column * (_CROP[0] + _GAP), y)
            _paste(sheet, draw, load, image, corner, is_hit)
    return sheet


def contact_sheet(
    path: str | Path,
    query: str,
    shown: Sequence[tuple[str, str]],
    load: Callable[[str | Path], Image.Image],
) -> None:
    """Draws what a query found, [(image, score), ...] best first, five in a row, into a JPEG < 300 kB.

    Under each crop stand its rank and score, and the end of its path. `load` opens an image as RGB.
    """
    wide, high = _CROP[0] + 4 * _GAP, _CROP[1] + 52
    rows = -(-len(shown) // _SHEET_COLUMNS)
    width = 2 * _MARGIN + _SHEET_COLUMNS * wide
    title = wrapped(query, typeface(17), width - 2 * _MARGIN)
    top = _MARGIN + 24 * len(title) + _GAP
    sheet = Image.new("RGB", (width, top + rows * high + _MARGIN), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((_MARGIN, _MARGIN + 24 * number), line, _INK, typeface(17))
    for number, (image, score) in enumerate(shown):
        row, column = divmod(number, _SHEET_COLUMNS)
        x, y = _MARGIN + column * wide + 2 * _GAP, top + row * high
        _paste(sheet, draw, load, image, (x, y), False)
        centre = x + _CROP[0] / 2
        draw.text((centre, y + _CROP[1] + 16), f"{number + 1}  ·  {score}", _INK, typeface(13), anchor="ms")
        name = _ending(image, typeface(11), wide - _GAP)
        draw.text((centre, y + _CROP[1] + 32), name, _FAINT, typeface(11), anchor="ms")
    save_small(sheet, Path(path))


def _ending(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or as much of its end as fits: file names differ there."""
    if font.getlength(text) <= width:
        return text
    start = next(n for n in range(1, len(text)) if font.getlength("…" + text[n:]) <= width)
    return "…" + text[start:]


@cache
def typeface(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries with it: the same letters on every machine."""
    from matplotlib import get_data_path  # a command that draws nothing does not wait for it

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _centred(draw: ImageDraw.ImageDraw, x: int, text: str) -> None:
    draw.text((x + _CROP[0] / 2, _HEADER - 12), text, _FAINT, typeface(14), anchor="ms")


def _write(draw: ImageDraw.ImageDraw, y: int, caption: str, note: str) -> None:
    """The query in the left column, in the largest of three sizes that fits, cut where none does; the note below."""
    note_font = typeface(13)
    room = _CROP[1] - 20 * len(note.splitlines())
    for size in (17, 15, 13):
        font = typeface(size)
        lines = wrapped(caption, font)
        height = round(1.35 * size)
        if len(lines) * height <= room:
            break
    fitting = max(1, room // height)
    if len(lines) > fitting:
        lines = [*lines[: fitting - 1], lines[fitting - 1] + " …"]
    for number, line in enumerate(lines):
        draw.text((_MARGIN, y + number * height), line, _INK, font)
    draw.multiline_text((_MARGIN, y + _CROP[1]), note, _FAINT, note_font, anchor="ld", spacing=3)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int = _TEXT_WIDTH - _GAP) -> list[str]:
    """Lines no wider than `width` pixels; a word wider than that is broken."""
    lines = [""]
    for word in text.split():
        while font.getlength(word) > width:
            head = next(n for n in range(len(word), 0, -1) if font.getlength(word[:n]) <= width)
            lines.append(word[:head])
            word = word[head:]
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line]


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    load: Callable[[str | Path], Image.Image],
    path: str | Path,
    corner: tuple[int, int],
    is_hit: bool | None,
) -> None:
    """A crop in its box, framed green (hit), thin grey (miss), or not at all (the person looked for)."""
    x, y = corner
    try:
        crop = ImageOps.pad(load(path), _CROP, Image.Resampling.LANCZOS, color=_EMPTY)
        sheet.paste(crop, corner)
    except (OSError, ValueError):  # an image that is gone or broken by now does not cost the picture
        draw.rectangle((x, y, x + _CROP[0] - 1, y + _CROP[1] - 1), fill=_EMPTY)
        draw.text((x + _CROP[0] / 2, y + _CROP[1] / 2), "unreadable", _FAINT, typeface(12), anchor="mm")
    if is_hit is not None:
        frame = 4 if is_hit else 1
        box = (x - frame, y - frame, x + _CROP[0] + frame - 1, y + _CROP[1] + frame - 1)
        draw.rectangle(box, outline=_HIT if is_hit else _MISS, width=frame)


def _load(path: str | Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def save_small(picture: Image.Image, path: Path) -> None:
    """As JPEG of the best quality that stays below 300 kB, smaller only where no quality does; renamed when whole."""
    data = _jpeg(picture)
    while len(data) >= _MAX_BYTES:
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5), Image.Resampling.LANCZOS)
        data = _jpeg(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _jpeg(picture: Image.Image) -> bytes:
    for quality in (90, 80, 70, 55, 40):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() < _MAX_BYTES:
            break
    return buffer.getvalue()
