"""The web page of ``search.py serve``, made with Gradio: a sentence, pictures, a closer look, more like this.

Pictures reach the browser as copies in a folder of this process, made from indexed images only; no path that a browser
sends is ever opened, and `serving.guard` lets nothing else of Gradio's server through.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gradio

from data.errors import UserError
from engine.log import LOGGER
from serving.guard import Guard
from serving.index import SearchIndex
from serving.page_answers import MOST_PICTURES, RERANKED, Page, note_of
from serving.searcher import QUERY_LENGTH, Searcher

TITLE = "Find a person by a sentence"
EXAMPLES = (
    "a woman in a red coat with a black backpack",
    "a man with a blue jacket, grey trousers and white shoes",
    "a person wearing a yellow t-shirt and black shorts",
)
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


@dataclass(frozen=True)
class _Question:
    """What somebody asks with."""

    sentence: gradio.Textbox
    top: gradio.Slider
    reranks: gradio.Checkbox
    search: gradio.Button
    filters: list[gradio.components.Component]


@dataclass(frozen=True)
class _Found:
    """What was found, and a closer look at one picture of it."""

    note: gradio.HTML
    gallery: gradio.Gallery
    picture: gradio.Image
    details: gradio.HTML
    more: gradio.Button
    explains: gradio.Checkbox
    explanation: gradio.Image
    caution: gradio.HTML


def make_page(searcher: Searcher) -> gradio.Blocks:
    """The page as a Gradio application."""
    about = f"{len(searcher.index):,} images, searched {searcher.index.searched}"
    with gradio.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)
    ) as blocks:
        gradio.HTML(f"<h1>{TITLE}</h1>{note_of(about)}")
        _connect(Page(searcher), _question(searcher), _found())
    return blocks


def _question(searcher: Searcher) -> _Question:
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
    return _Question(sentence, top, reranks, search, _filters(searcher.index))


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


def _found() -> _Found:
    plain = {"format": "png", "interactive": False, "buttons": ["fullscreen"], "show_label": False}
    note = gradio.HTML(elem_id="note")
    with gradio.Row():
        with gradio.Column(scale=3):
            gallery = gradio.Gallery(
                label="Found", columns=5, height="auto", object_fit="contain", format="jpeg", allow_preview=False,
                interactive=False, buttons=[], elem_id="found",
            )  # fmt: skip
        with gradio.Column(scale=1, min_width=240):
            picture = gradio.Image(label="Picture", height=420, elem_id="picture", **plain)
            details = gradio.HTML(elem_id="details")
            more = gradio.Button("More like this", elem_id="more")
            explains = gradio.Checkbox(
                False,
                label="Explain",
                info="Which regions of the picture each word goes with",
                elem_id="explain",
            )
    explanation = gradio.Image(label="Explanation", visible=False, elem_id="explanation", **plain)
    caution = gradio.HTML(elem_id="caution")
    return _Found(note, gallery, picture, details, more, explains, explanation, caution)


def _connect(page: Page, question: _Question, found: _Found) -> None:
    """Who is asked at which event, with what, and what of the page the answer changes."""
    hits, chosen, asked = gradio.State([]), gradio.State(None), gradio.State(None)
    closer = [found.picture, found.details, chosen]
    everything = [found.gallery, hits, found.note, *closer, found.explanation, found.caution, asked]
    for event in (question.search.click, question.sentence.submit):
        event(page.find, [question.sentence, question.top, question.reranks, *question.filters], everything)
    why = {
        "fn": page.why,
        "inputs": [found.explains, chosen, asked],
        "outputs": [found.explanation, found.caution],
    }
    found.gallery.select(page.show, [hits], closer).then(**why)
    found.explains.change(**why)
    found.more.click(page.more, [chosen, question.top, *question.filters], everything)


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
