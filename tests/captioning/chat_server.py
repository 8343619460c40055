"""A local chat endpoint for tests that answers like a busy, unreliable provider.

It speaks enough HTTP/1.1 for an OpenAI-compatible client and injects faults by chance: 429 (with and without
Retry-After), 500, slow replies, replies that never come, connection resets, truncated JSON and empty content.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

FAULTS = ("429", "429-after", "500", "slow", "hang", "reset", "half-body", "bad-json", "empty")
COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "pink")


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it: `size` is the image's (width, height), None without an image."""

    size: tuple[int, int] | None
    prompt: str
    authorization: str
    body: dict = field(repr=False)


class ChatServer:
    """Runs in a thread while used as a context manager.

    Args:
        fault_rate: share of the requests that get a random fault; the rest is answered after `latency` seconds.
        answer: Asked -> text; the default describes clothes that depend on the image's size.
        scripted: responses for the first requests, in order: a fault's name or (status, headers, bytes).

    Attributes:
        asked: every request, in order. good: requests by (size, prompt) that were answered in full.
        peak: the most requests that were open at one time. faults: what was injected.
    """

    def __init__(
        self, *, fault_rate=0.0, latency=0.0, seed=0, answer=None, scripted=(), faults=FAULTS
    ) -> None:
        self.fault_rate, self.latency, self.faults_to_inject = fault_rate, latency, faults
        self.answer = answer or describe
        self.scripted = list(scripted)
        self.asked: list[Asked] = []
        self.good: Counter = Counter()
        self.faults: Counter = Counter()
        self.open = self.peak = 0
        self._random = random.Random(seed)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        verbatim = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            asked = _read(body, verbatim.get("Authorization", ""))
            self.asked.append(asked)
            return await self._respond(asked, reader, writer)
        finally:
            self.open -= 1

    async def _respond(
        self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        fault: object = None
        if self.scripted:
            fault = self.scripted.pop(0)
        elif self._random.random() < self.fault_rate:
            fault = self._random.choice(self.faults_to_inject)
        if isinstance(fault, tuple):
            return await _send(writer, *fault)
        self.faults[fault] += 1
        if fault == "hang":
            # Until the client gives up and closes. It may ask elsewhere before its closing is seen here, so that
            # this request no longer counts as open.
            self.open -= 1
            await reader.read(1)
            self.open += 1
            return False
        await asyncio.sleep(0.15 if fault == "slow" else self.latency * self._random.uniform(0.5, 1.5))
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault in ("429", "429-after"):
            after = {"Retry-After": "0"} if fault == "429" else {"retry-after-ms": "20"}
            return await _send(writer, 429, after, b'{"error": {"message": "Rate limit reached"}}')
        if fault == "500":
            return await _send(writer, 500, {}, b"upstream connect error")
        text = "" if fault == "empty" else self.answer(asked)
        content = reply_body(text)
        if fault == "bad-json":
            return await _send(writer, 200, {}, content[: self._random.randrange(1, len(content) - 1)])
        if fault == "half-body":
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            writer.write(head + content[: len(content) // 2])
            await writer.drain()
            return False
        keep = await _send(writer, 200, {}, content)
        if text:
            self.good[asked.size, asked.prompt] += 1
        return keep


def reply_body(text: object, **choice: object) -> bytes:
    """A chat completion that says `text`."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
    ).encode()


def describe(asked: Asked) -> str:
    """Clothes that depend on the size; the answer to a question about text is a shorter text."""
    if asked.size is None:
        return "The man is wearing a short answer."
    width, height = asked.size
    shirt, trousers = COLOURS[width % 8], COLOURS[height % 8]
    start = asked.prompt.split('exactly these words: "')
    opening = start[1].split('"')[0] if len(start) == 2 else "The man is wearing"
    return f"{opening} a {shirt} shirt and {trousers} trousers of size {width} by {height}"


def sized_images(directory, count: int) -> list[str]:
    """`count` images whose size tells them apart, as paths relative to `directory`."""
    names = []
    for index in range(count):
        name = f"cam_{index % 3}/{index:05d}.png"
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + index % 50, 100 + index // 50), (index % 256, 80, 90)).save(directory / name)
        names.append(name)
    return names


async def _send(writer: asyncio.StreamWriter, status: int, headers: dict, content: bytes) -> bool:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
    await writer.drain()
    return True


def _read(body: dict, authorization: str) -> Asked:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return Asked(None, content, authorization, body)
    url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
    prompt = next(part["text"] for part in content if part["type"] == "text")
    with Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) as image:
        return Asked(image.size, prompt, authorization, body)
