"""What stands before Gradio's server: it serves far more than the search page asks for, and only that is let through.

Among the rest are uploads, a proxy, any file of its cache's parents and a log of runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

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
