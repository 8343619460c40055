"""Requests to the page's server, exactly as they are given and as the page's own script makes them."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit

WAIT = 60  # seconds; a machine may be busy


def fetch(address: str, path: str, method: str = "GET", body: bytes | None = None, host: str | None = None):
    """(status, body) of one request whose path is sent exactly as it is given."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=WAIT)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or parts.netloc)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Content-Type", "application/json")
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def asked_for(address: str, name: str, data: list) -> dict:
    """The answer of one of the page's functions, asked for as the page's script does it."""
    config = json.loads(fetch(address, "/config")[1])
    number = next(part["id"] for part in config["dependencies"] if part["api_name"] == name)
    request = {
        "data": data,
        "fn_index": number,
        "session_hash": f"test{threading.get_ident()}",
        "trigger_id": None,
    }
    status, content = fetch(address, "/gradio_api/queue/join?", "POST", json.dumps(request).encode())
    assert status == 200, content
    _, stream = fetch(address, f"/gradio_api/queue/data?session_hash={request['session_hash']}")
    events = [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: ")]
    return next(event["output"] for event in events if event["msg"] == "process_completed")
