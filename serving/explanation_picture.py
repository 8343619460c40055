"""The picture of an explanation: the crop, what the whole sentence goes with, and the same for every word."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from retrieval.pictures import typeface, wrapped

# Words that say nothing of what can be seen: drawn pale.
_STOPS = (
    "a an the this that these those some and or but with without in on of at to by for from into over under as is are was "
    "were be been being am has have had having does do did it its he she they him her them his hers their theirs who whom "
    "whose which what there here wear wears wearing dressed also very"
)
STOP_WORDS = frozenset(_STOPS.split())

_BOX = (96, 210)  # pixels that a crop is fitted into
_GAP, _MARGIN, _LABEL = 12, 20, 44
_COLUMNS = 8
_INK, _FAINT, _PALE, _GROUND = (30, 30, 30), (110, 110, 110), (165, 165, 165), (255, 255, 255)
_MAP = "turbo"
_LEGEND = (220, 12)


class Maps(Protocol):
    """What a model's `word_maps` says of one image and one sentence; see `models.word_maps`."""

    words: tuple[str, ...]
    maps: np.ndarray
    overall: np.ndarray
    effects: np.ndarray
    explains: str
    score: float


def explanation_picture(
    crop: Image.Image, sentence: str, name: str, found: Maps, pale: Collection[str] = STOP_WORDS
) -> Image.Image:
    """Draws the maps of all words over the crop, eight pictures in a row.

    Each map has its own scale, from nothing to its largest value. Below a word stands what it adds to the score.

    Args:
        crop: RGB, of any size.
        sentence: what was asked.
        name: of the image, for the second line; may be empty.
        found: what the model says.
        pale: words that are drawn pale.
    """
    digits = 2 if found.explains == "match" else 3
    cells = [
        (crop, "the picture", "", _FAINT),
        (overlaid(crop, np.asarray(found.overall)), "all words", "", _INK),
    ]
    for word, values, added in zip(found.words, np.asarray(found.maps), found.effects, strict=True):
        is_pale, picture = word in pale, overlaid(crop, values)
        if is_pale:
            picture = Image.blend(picture, Image.new("RGB", picture.size, _GROUND), 0.65)
        added = round(float(added), digits) + 0.0  # no "-0.00"
        note = f"{added:+.{digits}f}" if values.any() else "nothing"
        cells.append((picture, word, note, _PALE if is_pale else _INK))
    return _sheet(sentence, "  ·  ".join(filter(None, [name, _score(found)])), cells)


def overlaid(crop: Image.Image, values: np.ndarray) -> Image.Image:
    """A map (h, w) over a grey, light copy of the crop; the more of the map's largest value, the more of its colour covers it."""
    crop = _fitted(crop)
    grey = Image.blend(crop.convert("L").convert("RGB"), Image.new("RGB", crop.size, _GROUND), 0.35)
    heat = values / max(float(values.max()), np.finfo(np.float32).tiny)
    spread = Image.fromarray(heat.astype(np.float32)).resize(crop.size, Image.Resampling.BICUBIC)
    heat = np.asarray(spread).clip(0, 1)[..., None]
    cover = 0.15 + 0.6 * heat
    mixed = np.asarray(grey) * (1 - cover) + _coloured(heat[..., 0]) * cover
    return Image.fromarray(mixed.round().astype(np.uint8))


def _coloured(heat: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps  # a command that draws nothing does not wait for it

    return colormaps[_MAP](heat)[..., :3] * 255


def _fitted(crop: Image.Image) -> Image.Image:
    scale = min(_BOX[0] / crop.width, _BOX[1] / crop.height)
    size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    return crop.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _score(found: Maps) -> str:
    named = "match logit" if found.explains == "match" else "cosine"
    return f"{named} {found.score:.3f}"


def _sheet(
    sentence: str, note: str, cells: Sequence[tuple[Image.Image, str, str, tuple[int, int, int]]]
) -> Image.Image:
    """(picture, label, number, colour of the label) in rows, below the sentence and above the legend."""
    columns = min(len(cells), _COLUMNS)
    wide, high = _BOX[0] + _GAP, _BOX[1] + _LABEL
    width = max(2 * _MARGIN + columns * wide - _GAP, 620)
    title = wrapped(sentence, typeface(17), width - 2 * _MARGIN)
    top = _MARGIN + 24 * len(title) + 30
    rows = -(-len(cells) // _COLUMNS)
    sheet = Image.new("RGB", (width, top + rows * high + 58), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((_MARGIN, _MARGIN + 24 * number), line, _INK, typeface(17))
    draw.text((_MARGIN, top - 28), wrapped(note, typeface(12), width - 2 * _MARGIN)[0], _FAINT, typeface(12))
    for number, (picture, label, added, ink) in enumerate(cells):
        row, column = divmod(number, _COLUMNS)
        x, y = _MARGIN + column * wide, top + row * high
        picture = _fitted(picture)
        sheet.paste(picture, (x + (_BOX[0] - picture.width) // 2, y + (_BOX[1] - picture.height) // 2))
        centre = x + _BOX[0] / 2
        draw.text((centre, y + _BOX[1] + 16), *_label(label, ink), anchor="ms")
        draw.text(
            (centre, y + _BOX[1] + 31), added, _FAINT if ink == _INK else _PALE, typeface(11), anchor="ms"
        )
    _legend(sheet, draw, top + rows * high + 8)
    return sheet


def _label(text: str, ink: tuple[int, int, int]) -> tuple:
    """The word in the largest size that fits, cut where none does, its colour and its letters."""
    for size in (14, 12, 10):
        if typeface(size).getlength(text) <= _BOX[0]:
            return text, ink, typeface(size)
    length = next(n for n in range(len(text), 0, -1) if typeface(10).getlength(text[:n] + "…") <= _BOX[0])
    return text[:length] + "…", ink, typeface(10)


def _legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    """A bar of the colours, and what they and the numbers mean."""
    bar = _coloured(np.linspace(0, 1, _LEGEND[0])[None].repeat(_LEGEND[1], 0))
    font = typeface(11)
    x = _MARGIN + font.getlength("nothing ") + 4
    draw.text((_MARGIN, top + 10), "nothing", _FAINT, font, anchor="ls")
    sheet.paste(Image.fromarray(bar.round().astype(np.uint8)), (round(x), top))
    draw.text((x + _LEGEND[0] + 8, top + 10), "most, each picture by itself", _FAINT, font, anchor="ls")
    draw.text(
        (_MARGIN, top + 30),
        "Number: what the word adds to the score. Pale: words that say nothing of what is seen.",
        _FAINT,
        font,
        anchor="ls",
    )
