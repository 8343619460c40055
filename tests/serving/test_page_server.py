"""What the page's server gives to nobody, whatever it is asked for."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from tests.serving.commands import run
from tests.serving.page_requests import asked_for, fetch

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -r requirements-search.txt")

from serving.guard import Guard

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(address) -> str:
    """The route of a picture that the page shows."""
    output = asked_for(address, "find", ["a man", 10, False])
    first = output["data"][0][0]["image"]
    return "/gradio_api/file=" + first["path"]


def test_a_picture_that_is_shown_can_be_fetched(address, served):
    status, content = fetch(address, quote(served, safe="/="))
    assert (status, content[:2]) == (200, b"\xff\xd8")


def test_no_other_file_can_be_fetched(searcher, address, served):
    crops, folder = searcher.index.root, Path(served.partition("=")[2]).parent
    hit = searcher.by_sentence("a man", 1)[0]
    (folder / "link.jpg").symlink_to("/etc/passwd")
    up = "/".join([".."] * 12)
    files = [
        "/etc/passwd",
        f"{crops}/private.txt",
        f"{crops}/later.jpg",
        f"{crops}/{hit.image}",
        str(searcher.index.directory / "checkpoint.pth"),
        str(searcher.index.directory / "catalogue.sqlite"),
        str(Path(__file__).resolve().parents[2] / "README.md"),
        "README.md",
        f"{folder}/{up}/etc/passwd",
        f"{folder}/../../../../../../../etc/passwd",
        f"{folder}/link.jpg",
        f"{folder}",
        f"/{folder}/{up}/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "https://example.org/",
        "\\etc\\passwd",
        "/proc/self/environ",
    ]
    for file in files:
        for path in {f"/gradio_api/file={file}", f"/gradio_api/file={quote(file, safe='')}",
                     f"/gradio_api/file={quote(quote(file, safe=''), safe='')}", f"/file={file}",
                     f"/gradio_api/file/{file}", f"/gradio_api/proxy={file}", f"/static/{up}{file}", f"/assets/{up}{file}",
                     f"/static/{quote(up, safe='')}{file}", f"/gradio_api/stream/{file}"}:  # fmt: skip
            status, content = fetch(address, path.replace(" ", "%20"))
            assert status >= 400, path
            assert b"root:" not in content
            assert b"private" not in content


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/upload"),
        ("GET", "/gradio_api/proxy=https://example.org/"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/runs"),
        ("POST", "/gradio_api/vibe-edit/"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run/find"),
        ("POST", "/gradio_api/call/find"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/docs"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(address, method, path):
    assert fetch(address, path, method, b"{}" if method == "POST" else None)[0] in (404, 405)


def test_another_name_for_this_machine_is_refused(address):
    assert fetch(address, "/", host="evil.example:80")[0] == 404
    assert fetch(address, "/", host="localhost")[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        [None, None, None],
        ["a man", "many", True],
        ["a man", 1e300, False],
        [{"path": "/etc/passwd"}, 10, False],
        [["a"], [3], "yes"],
        ["a" * 100_000, 10, True],
    ],
)
def test_odd_input_past_the_page_does_no_harm(address, data):
    output = asked_for(address, "find", data)
    assert "root:" not in json.dumps(output)
    assert len(asked_for(address, "find", ["a man", 10, False])["data"][0]) == 10


def test_an_address_that_is_taken_is_told(searcher, messages):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run("serve", "--index", searcher.index.directory, "--port", port).code == 1
    assert f"can't be served at 127.0.0.1:{port}" in messages[-1]


def test_the_guard_knows_the_routes_by_their_whole_path(tmp_path):
    guard = Guard(None, tmp_path, None)

    def allows(path: str) -> bool:
        return guard.allows({"type": "http", "path": unquote(path), "headers": []})

    (tmp_path / "a.jpg").write_text("")
    for path in ("/", "/config", "/assets/index.js", f"/gradio_api/file={tmp_path}/a.jpg"):
        assert allows(path), path
    for path in (
        "/configs",
        "/x/config",
        "/assets/../config",
        "//",
        "/gradio_api/",
        f"/gradio_api/file={tmp_path}x/a",
    ):
        assert not allows(path), path
