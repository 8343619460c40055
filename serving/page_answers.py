"""What the search page answers: to a sentence, to a click into the pictures, to the question for more or for why."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Any

import gradio
from PIL import Image

from data.errors import UserError
from serving.clock import seconds_of
from serving.explaining import explain
from serving.index import SearchIndex
from serving.opening import open_image
from serving.origins import Wanted, told
from serving.searcher import Hit, Searcher

MOST_PICTURES = 100
RERANKED = 32
CAUTION = (
    "What the model drew on, not whether it is right: a region that is lit shows nothing about the person in it, and a word may "
    "count by what it looked at together with others."
)
_THUMBNAIL = (320, 480)


class Page:
    """What happens when somebody searches, clicks or asks for more; everything a browser sends is checked."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self._lock = threading.Lock()  # Gradio answers several browsers from several threads

    def find(self, sentence: object, top: object, reranks: object, *filters: object) -> tuple:
        """A sentence, the number of pictures, whether to re-rank, and `_wanted`'s arguments -> what the page shows."""
        answer = self._answer(
            lambda: self.searcher.by_sentence(
                str(sentence), _number(top), RERANKED if reranks is True else 0, _wanted(*filters)
            )
        )
        return *answer, str(sentence)

    def more(self, chosen: Hit | None, top: object, *filters: object) -> tuple:
        """The chosen picture, and what else `find` takes -> the pictures most like it."""
        if not isinstance(chosen, Hit):
            return *self._answer(lambda: [], "Click a picture first."), None
        answer = self._answer(
            lambda: self.searcher.like(chosen, _number(top), _wanted(*filters)),
            f"Most like {chosen.image}, without the picture itself.",
        )
        return *answer, None

    def show(self, found: object, event: gradio.SelectData) -> tuple:
        """A click into the pictures -> the whole picture, what is known about it, and the choice."""
        place = event.index
        if not isinstance(found, list) or not isinstance(place, int) or not 0 <= place < len(found):
            return None, note_of("This picture is no longer there: search again."), None
        hit = found[place]
        try:
            picture = open_image(self.searcher.index, hit.image)
        except UserError as error:
            return None, note_of(str(error)), hit
        lines = [f"{place + 1}. {hit.image}", _scores(hit)]
        if hit.origin is not None:
            left, top, wide, high = hit.origin.box
            lines += [told(hit.origin), f"frame {hit.origin.frame}, {wide} x {high} px at {left}, {top}"]
        return picture, note_of(*lines), hit

    def why(self, explains: object, chosen: Hit | None, asked: str | None) -> tuple:
        """Whether to explain, the chosen picture, and the sentence that found it -> its explanation, and a note on it."""
        if explains is not True or not isinstance(chosen, Hit):
            return _image_box(None), note_of("Click a picture." if explains is True else "")
        if not isinstance(asked, str):
            return _image_box(None), note_of(
                "This picture was found by another one: only a sentence has words to explain."
            )
        try:
            with self._lock:
                picture = explain(self.searcher, asked, chosen)
        except UserError as error:
            return _image_box(None), note_of(str(error))
        return _image_box(picture), note_of(CAUTION)

    def _answer(self, search: Callable[[], list[Hit]], note: str = "") -> tuple:
        """(pictures, hits, note, no picture, no details, no choice, no explanation, no note on it); a sentence instead where it can't be done."""
        try:
            with self._lock:
                self._refresh()
                hits = search()
        except UserError as error:
            hits, note = [], str(error)
        pictures = [
            (self._thumbnail(hit), "\n".join([f"{place}  ·  {hit.score:.3f}", hit.image, *_origin(hit)]))
            for place, hit in enumerate(hits, 1)
        ]
        said = note_of(note or f"{len(hits)} pictures, the best first.")
        return pictures, hits, said, None, "", None, _image_box(None), ""

    def _refresh(self) -> None:
        """Reads the index anew when another process has published a newer one."""
        known = self.searcher.index
        if known.is_outdated():
            fresh = SearchIndex(known.directory)
            if fresh.header["checkpoint"] != known.header["checkpoint"]:
                raise UserError("The index was made anew with another model: start the page again.")
            self.searcher.index = fresh
            known.close()

    def _thumbnail(self, hit: Hit) -> Image.Image:
        """The picture, small; an empty one where the file is gone by now."""
        try:
            picture = open_image(self.searcher.index, hit.image)
        except UserError:
            return Image.new("RGB", (80, 176), (225, 225, 225))
        picture.thumbnail(_THUMBNAIL)
        return picture


def _origin(hit: Hit) -> list[str]:
    known = told(hit.origin)
    return [known] if known else []


def _number(value: object) -> int:
    try:
        return min(MOST_PICTURES, max(1, int(value)))
    except (TypeError, ValueError, OverflowError):
        raise UserError("The number of pictures is none: use the slider.") from None


def _wanted(sources: object = None, after: object = "", before: object = "") -> Wanted:
    """The filter as a browser sends it: a list of names, and two times or empty boxes."""
    sources = sources or []
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise UserError("The sources are none: choose them from the list.")
    times = []
    for text in (after, before):
        text = "" if text is None else str(text).strip()
        try:
            times.append(seconds_of(text) if text else None)
        except ValueError as error:
            raise UserError(str(error)) from None
    return Wanted(tuple(sources), *times)


def _scores(hit: Hit) -> str:
    if hit.match is None:
        return f"cosine {hit.similarity:.4f}"
    return f"match {hit.match:.4f} (ITM logit + cosine), cosine {hit.similarity:.4f}"


def _image_box(picture: Image.Image | None) -> dict[str, Any]:
    """An image box with this picture; without one there is no box."""
    return gradio.update(value=picture, visible=picture is not None)


def note_of(*lines: str) -> str:
    """Lines as HTML; whatever stands in them is text."""
    return "<br>".join(html.escape(line) for line in lines)
