"""The web page of ``search.py serve``, made with Gradio: a sentence, pictures, a closer look, more like this.

Gradio serves far more than this page asks for (uploads, a proxy, any file of its cache's parents, a log of runs), so
``Guard`` lets through only what the page needs. Pictures reach the browser as copies in a folder of this process, made
from indexed images only; no path that a browser sends is ever opened.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio
from PIL import Image

from data.errors import UserError
from engine.log import LOGGER
from serving.clock import seconds_of
from serving.explaining import explain
from serving.index import SearchIndex
from serving.opening import open_image
from serving.origins import Wanted, told
from serving.searcher import QUERY_LENGTH, Hit, Searcher

EXAMPLES = (
    "a woman in a red coat with a black backpack",
    "a man with a blue jacket, grey trousers and white shoes",
    "a person wearing a yellow t-shirt and black shorts",
)
MOST_PICTURES = 100
RERANKED = 32
CAUTION = (
    "What the model drew on, not whether it is right: a region that is lit shows nothing about the person in it, and a word may "
    "count by what it looked at together with others."
)
_THUMBNAIL = (320, 480)
_KEPT_SECONDS = 3600  # how long pictures stay in this process's folder
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CSS = """
#found [data-testid=block-label] {display: none;}
#found .grid-wrap {max-height: none; height: auto; overflow: visible;}
#found .thumbnail-item {aspect-ratio: auto; height: auto; display: flex; flex-direction: column;}
#found .thumbnail-item img {height: 15rem; object-fit: contain;}
#found .caption-label {position: static; max-width: 100%; opacity: 1; border: none; background: none;
                       white-space: pre-line; overflow-wrap: anywhere; text-align: center;}
#picture img {width: 100%; height: 100%; object-fit: contain;}
"""

# What the page's own script asks for; everything else that Gradio has a route for is not found.
_NEEDED = re.compile(
    r"/(?:|config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(?:static|assets|svelte)/.+"
    r"|gradio_api/(?:queue/(?:join|data)|heartbeat/\w+|startup-events|info/?|theme\.css|app_id/?|cancel|reset/?))"
)
_FILE = re.compile(r"/gradio_api/file=(?P<path>.+)")
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'"
)


class Guard:
    """ASGI middleware in front of Gradio: the page's own routes, files of one folder, and no other host.

    ``folder`` is what pictures are served from. ``hosts`` are the names that a request may call this server by, None
    for any: a page elsewhere whose name is made to lead to this machine must not read it. The policy that goes with every
    answer keeps the browser from asking anybody else.
    """

    def __init__(self, app: Callable, folder: Path, hosts: tuple[str, ...] | None) -> None:
        self.app, self.folder, self.hosts = app, folder.resolve(), hosts

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        """Passes a request on, or answers 404."""
        if scope["type"] == "websocket" or (scope["type"] == "http" and not self.allows(scope)):
            await _refuse(scope, send)
            return

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def allows(self, scope: dict[str, Any]) -> bool:
        """Whether a request is one that the page makes."""
        named = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self.hosts is not None and urlsplit(f"//{named}").hostname not in self.hosts:
            return False
        path = scope["path"]
        wanted = _FILE.fullmatch(path)
        if wanted is None:
            return _NEEDED.fullmatch(path) is not None and ".." not in unquote(path)
        file = Path(os.path.realpath(wanted["path"]))
        return file.is_absolute() and wanted["path"] == str(file) and file.is_relative_to(self.folder)


async def _refuse(scope: dict[str, Any], send: Callable) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Not found"})


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
            return None, _note("This picture is no longer there: search again."), None
        hit = found[place]
        try:
            picture = open_image(self.searcher.index, hit.image)
        except UserError as error:
            return None, _note(str(error)), hit
        lines = [f"{place + 1}. {hit.image}", _scores(hit)]
        if hit.origin is not None:
            left, top, wide, high = hit.origin.box
            lines += [told(hit.origin), f"frame {hit.origin.frame}, {wide} x {high} px at {left}, {top}"]
        return picture, _note(*lines), hit

    def why(self, explains: object, chosen: Hit | None, asked: str | None) -> tuple:
        """Whether to explain, the chosen picture, and the sentence that found it -> its explanation, and a note on it."""
        if explains is not True or not isinstance(chosen, Hit):
            return _shown(None), _note("Click a picture." if explains is True else "")
        if not isinstance(asked, str):
            return _shown(None), _note(
                "This picture was found by another one: only a sentence has words to explain."
            )
        try:
            with self._lock:
                picture = explain(self.searcher, asked, chosen)
        except UserError as error:
            return _shown(None), _note(str(error))
        return _shown(picture), _note(CAUTION)

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
        said = _note(note or f"{len(hits)} pictures, the best first.")
        return pictures, hits, said, None, "", None, _shown(None), ""

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


def _filters(index: SearchIndex) -> list[gradio.components.Component]:
    """Boxes for sources and times, where the index knows any."""
    names = list(index.summary.sources)
    if not names:
        return []
    with gradio.Row():
        return [
            gradio.Dropdown(names, multiselect=True, label="Sources (none: all)", elem_id="sources"),
            gradio.Textbox(label="After", placeholder="seconds or HH:MM:SS", max_length=20, elem_id="after"),
            gradio.Textbox(
                label="Before", placeholder="seconds or HH:MM:SS", max_length=20, elem_id="before"
            ),
        ]


def _scores(hit: Hit) -> str:
    if hit.match is None:
        return f"cosine {hit.similarity:.4f}"
    return f"match {hit.match:.4f} (ITM logit + cosine), cosine {hit.similarity:.4f}"


def _shown(picture: Image.Image | None) -> dict[str, Any]:
    """An image box with this picture; without one there is no box."""
    return gradio.update(value=picture, visible=picture is not None)


def _note(*lines: str) -> str:
    return "<br>".join(html.escape(line) for line in lines)


def make_page(searcher: Searcher) -> gradio.Blocks:
    """The page as a Gradio application."""
    page, found = Page(searcher), searcher.index
    about = f"{len(found):,} images, searched {found.searched}"
    with gradio.Blocks(
        title="Find a person by a sentence",
        analytics_enabled=False,
        delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS),
    ) as blocks:
        gradio.HTML(f"<h1>Find a person by a sentence</h1>{_note(about)}")
        hits, chosen, asked = gradio.State([]), gradio.State(None), gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=3):
                sentence = gradio.Textbox(
                    label="What does the person look like?",
                    max_length=QUERY_LENGTH,
                    elem_id="sentence",
                    autofocus=True,
                )
                gradio.Examples([[example] for example in EXAMPLES], sentence, cache_examples=False)
            with gradio.Column(scale=1, min_width=240):
                top = gradio.Slider(1, MOST_PICTURES, 10, step=1, label="Pictures", elem_id="top")
                reranks = gradio.Checkbox(
                    False,
                    label=f"Re-rank the best {RERANKED}",
                    info="Image-text matching: slower, often better",
                    elem_id="rerank",
                    visible=searcher.can_rerank,
                )
                search = gradio.Button("Search", variant="primary", elem_id="search")
        filters = _filters(found)
        note = gradio.HTML(elem_id="note")
        with gradio.Row():
            with gradio.Column(scale=3):
                gallery = gradio.Gallery(
                    label="Found", columns=5, height="auto", object_fit="contain", format="jpeg", allow_preview=False,
                    interactive=False, buttons=[], elem_id="found",
                )  # fmt: skip
            with gradio.Column(scale=1, min_width=240):
                picture = gradio.Image(
                    label="Picture",
                    show_label=False,
                    height=420,
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="picture",
                )
                details = gradio.HTML(elem_id="details")
                more = gradio.Button("More like this", elem_id="more")
                explains = gradio.Checkbox(
                    False,
                    label="Explain",
                    info="Which regions of the picture each word goes with",
                    elem_id="explain",
                )
        explanation = gradio.Image(
            label="Explanation",
            show_label=False,
            format="png",
            interactive=False,
            visible=False,
            buttons=["fullscreen"],
            elem_id="explanation",
        )
        caution = gradio.HTML(elem_id="caution")
        answer = [gallery, hits, note, picture, details, chosen, explanation, caution, asked]
        for event in (search.click, sentence.submit):
            event(page.find, [sentence, top, reranks, *filters], answer)
        why = {"fn": page.why, "inputs": [explains, chosen, asked], "outputs": [explanation, caution]}
        gallery.select(page.show, [hits], [picture, details, chosen]).then(**why)
        explains.change(**why)
        more.click(page.more, [chosen, top, *filters], answer)
    return blocks


@contextlib.contextmanager
def page_server(searcher: Searcher, host: str, port: int) -> Iterator[str]:
    """The page, served from a thread; yields its address.

    Raises:
        UserError: the address can't be listened on.
    """
    port = _usable_port(host, port)
    with tempfile.TemporaryDirectory(prefix="search-pictures-") as folder, _environment(folder):
        blocks = make_page(searcher)
        hosts = _LOOPBACK if host in _LOOPBACK else None
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                max_file_size=1,
                footer_links=[],
                theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=_CSS,
                app_kwargs={"middleware": [(Guard, (Path(folder), hosts), {})]},
            )
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        finally:
            blocks.close(verbose=False)


@contextlib.contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Gradio keeps its copies in ``folder``, asks nobody on the internet, and reaches this machine without a proxy."""
    without_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), *_LOOPBACK]))
    wanted = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "NO_PROXY": without_proxy}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _usable_port(host: str, port: int) -> int:
    """The port, or any free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return trial.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise UserError(
            f"The page can't be served at {host}:{port} ({error}): name another --port or --host."
        ) from None


def run_page(searcher: Searcher, host: str, port: int) -> None:
    """Serve the page until ctrl-C or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with page_server(searcher, host, port) as address:
        LOGGER.info("The page is at %s; ctrl-C ends it.", address)
        if host not in _LOOPBACK:
            LOGGER.warning("Everybody who reaches this machine can see the images: there is no password.")
        ended.wait()
