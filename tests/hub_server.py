"""A server that speaks the Hugging Face hub's protocol, as far as fetching and publishing models needs it, with faults to order."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pth", ".pt", ".onnx", ".gz")  # what a hub keeps in LFS


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """A model's files. With a `token` it is private to whoever sends it; `gated` refuses everybody else with that word."""

    files: dict[str, bytes]
    token: str = ""
    gated: bool = False
    private: bool = False
    commits: list[str] = field(default_factory=lambda: [hashlib.sha1(b"0").hexdigest()])

    @property
    def revisions(self) -> set[str]:
        return {"main", "v1", "refs/pr/1", *self.commits}


@dataclass
class Hub:
    """What the server has, what was asked of it, and what it does wrong.

    `breaks[file]` lists after how many bytes of an answer the connection is dropped, one entry per answer; files in `damaged`
    arrive with another first byte; `fails` answers everything with that status; where `ranges` is False, Range is ignored.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    fails: int = 0
    ranges: bool = True
    uploads: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    # The same server under another name: large files come from another host, which gets no token.
    elsewhere: str = ""

    def asked(self, pattern: str) -> list[dict[str, str]]:
        """The headers of all requests whose path matches."""
        return [headers for _, path, headers in self.requests if re.search(pattern, path)]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None once the refusal has been sent."""
        found = self.hub.repositories.get(name)
        sent = self.headers.get("Authorization", "")
        if found is None:
            self._answer(404 if sent else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif found.token and sent != f"Bearer {found.token}":
            code = "GatedRepo" if found.gated else "RepoNotFound"
            self._answer(403 if found.gated else 401, {"error": "no"}, X_Error_Code=code)
        else:
            return found
        return None

    def _begin(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, dict(self.headers)))
        return path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._begin()
        if self.hub.fails:
            self._answer(self.hub.fails, {"error": "out of order"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._list(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+?)/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/cdn/(\w+)/(.+)", path):
            self._send(found[1], found[2])
        else:
            self._answer(404, {"error": path})

    def _list(self, name: str, revision: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        if revision not in repository.revisions:
            self._answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            return
        siblings = []
        for file, content in repository.files.items():
            sibling = {"rfilename": file, "size": len(content), "blobId": git_name(content)}
            if file.endswith(LARGE):
                sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        commit = repository.commits[-1]
        self._answer(
            200,
            {"id": name, "sha": commit, "private": repository.private, "tags": [], "siblings": siblings},
        )

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        if revision not in repository.revisions:
            self._answer(404, {}, X_Error_Code="RevisionNotFound")
        elif file not in repository.files:
            self._answer(404, {}, X_Error_Code="EntryNotFound")
        elif file.endswith(LARGE):
            content = repository.files[file]
            self._answer(
                302,
                Location=f"{self.hub.elsewhere}/cdn/{sha256(content)}/{file}",
                X_Repo_Commit=repository.commits[-1],
                X_Linked_Etag=f'"{sha256(content)}"',
                X_Linked_Size=str(len(content)),
            )
        else:
            self._send(git_name(repository.files[file]), file, repository.commits[-1])

    def _send(self, digest: str, file: str, commit: str = "") -> None:
        content = next(
            repository.files[file]
            for repository in self.hub.repositories.values()
            if file in repository.files
            and digest in (sha256(repository.files[file]), git_name(repository.files[file]))
        )
        if file in self.hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.hub.ranges else None
        start = int(begin[1]) if begin else 0
        body = content[start:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks.get(file):
            self.wfile.write(body[: self.hub.breaks[file].pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        path, body = self._begin(), self._body()
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            if self._repository(found[1]):
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
                self._answer(200, {"files": modes})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._offer(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path):
            self._commit(found[1], body)
        else:
            self._answer(404, {"error": path})

    def do_PUT(self) -> None:
        path = self._begin()
        self.hub.uploads[path.removeprefix("/lfs/")] = self._body()
        self._answer(200)

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'somebody'}/{wanted['name']}"
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token.startswith("hf_good"):
            self._answer(401, {"error": "Invalid username or password."})
        elif name in self.hub.repositories:
            self._answer(409, {"error": "exists", "url": f"{self.hub.address}/{name}"})
        else:
            self.hub.repositories[name] = Repository(
                {}, token=token, private=wanted.get("private") or wanted.get("visibility") == "private"
            )
            self._answer(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def _offer(self, wanted: dict[str, Any]) -> None:
        objects = [
            {
                "oid": item["oid"],
                "size": item["size"],
                "actions": {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}"}},
            }
            for item in wanted["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.hub.uploads[value["oid"]]
                assert sha256(content) == value["oid"], "what was uploaded is not what was announced"
                repository.files[value["path"]] = content
            elif entry["key"] == "deletedFile":
                repository.files.pop(value["path"], None)
        commit = hashlib.sha1(body).hexdigest()
        repository.commits.append(commit)
        self._answer(
            200,
            {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}"},
        )


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on this machine, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    hub.elsewhere = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
