"""Captions from any OpenAI-compatible chat endpoint that takes images (DashScope, a vLLM server, others).

Spoken over plain HTTP (`POST <base_url>/chat/completions`), because this module owns what decides a run of hours:
which failures are retried and when, which stop the run, and that the key is seen nowhere.

The key comes from the environment variable that `api_key_env` names. It is sent in the Authorization header and is
removed from everything a server says before that is raised, logged, returned or stored.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from captioning.backends import BackendError, Reply, Request
from captioning.backends.endpoint import Verdict, backoff, judge
from captioning.backends.picture import PictureError, jpeg_data_url
from captioning.estimate import Estimate, estimate_requests

# An empty answer is asked for this many times in all; more would pay for the same nothing.
EMPTY_ATTEMPTS = 3
# Attempts at connecting while the server has never answered: a wrong address should be told within seconds.
FIRST_CONTACT_ATTEMPTS = 3
SHORTEST_SECRET = 8

logger = logging.getLogger(__name__)


class OpenAIBackend:
    """Asks an OpenAI-compatible endpoint, `concurrency` questions at a time.

    Args:
        base_url: the endpoint up to its version, e.g. "http://localhost:8000/v1".
        model: the model's name at the endpoint.
        api_key_env: NAME of the environment variable that holds the key; "" for servers without keys.
        concurrency: questions in flight at most.
        image_size: longest side in pixels an image is scaled down to.
        jpeg_quality: of the images sent, 1 to 95.
        temperature: of the sampling; None leaves it to the server.
        max_tokens: of an answer.
        timeout: seconds for one attempt, from connecting to the last byte.
        attempts: for one question, before it is given up as failed (the next run asks it again).
        stop_after: questions failed in a row that end the run.
        extra_body: further fields of the request, e.g. {"enable_thinking": False}; None as a value removes a field.
        prompt_price, completion_price: per million tokens, for the estimate.
        seconds_per_request: time of one question, for the estimate.

    Attributes:
        usage: requests, prompt_tokens and completion_tokens so far.

    Raises:
        BackendError: an option is wrong or the key's variable is not set.
    """

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_env: str = "",
        concurrency: int = 8,
        image_size: int = 512,
        jpeg_quality: int = 90,
        temperature: float | None = None,
        max_tokens: int = 200,
        timeout: float = 120.0,
        attempts: int = 8,
        stop_after: int = 10,
        extra_body: Mapping[str, Any] | None = None,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
        seconds_per_request: float = 3.0,
    ) -> None:
        self.model = model
        self.concurrency = _at_least(1, "concurrency", concurrency)
        self.usage: Counter[str] = Counter()
        self._url, self._shown_url = _chat_url(base_url)
        self._key = _key(api_key_env)
        self._image_size = _at_least(28, "image_size", image_size)
        self._jpeg_quality = _at_least(1, "jpeg_quality", jpeg_quality)
        self._timeout = timeout
        self._attempts = _at_least(1, "attempts", attempts)
        self._stop_after = _at_least(1, "stop_after", stop_after)
        self._fields = {"temperature": temperature, "max_tokens": max_tokens, **(extra_body or {})}
        self._prices = (prompt_price, completion_price)
        self._seconds_per_request = seconds_per_request
        self._session: _Session | None = None
        self._answered = False
        self._not_before = 0.0
        self._random = random.Random()

    def answer(self, requests: Iterable[Request]) -> Generator[Reply, None, None]:
        """Answer every request once, in the order in which the answers come.

        At most `concurrency` requests are between being sent and being taken by the caller, so that a run killed
        between two answers loses no more than those. Closing the generator cancels them.

        Raises:
            BackendError: the server refuses every request (key, address, model, quota) or `stop_after` requests in
                a row have failed.
        """
        queue = iter(requests)
        session = self._session = _Session(self._key)
        pending: set[Future[Reply]] = set()
        failures = 0
        try:
            while True:
                self._fill(pending, queue, session)
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=_is_fatal):
                    pending.discard(future)
                    if future.cancelled():
                        continue
                    reply = future.result()
                    self.usage.update(reply.usage)
                    yield reply
                    # An image that does not open says nothing about the server.
                    asked = bool(reply.usage.get("requests"))
                    failures = failures + asked if reply.status == "failed" else 0
                    if failures >= self._stop_after:
                        raise self._stopped(
                            f"{failures} requests in a row failed, the last with {reply.error}"
                        )
                    self._fill(pending, queue, session)
        finally:
            session.close()

    def close(self) -> None:
        """Cancel what is in flight; a running `answer` ends."""
        if self._session is not None:
            self._session.close()

    def estimate(self, requests: Iterable[Request]) -> Estimate:
        """Requests, tokens, time and cost of answering `requests`, without asking anything."""
        return estimate_requests(
            requests,
            image_size=self._image_size,
            prices=self._prices,
            seconds=self._seconds_per_request / self.concurrency,
        )

    def _fill(self, pending: set[Future[Reply]], queue: Iterator[Request], session: _Session) -> None:
        while len(pending) < self.concurrency and not session.closed:
            request = next(queue, None)
            if request is None:
                return
            pending.add(session.submit(self._ask(request, session)))

    async def _ask(self, request: Request, session: _Session) -> Reply:
        """All attempts at one question."""
        try:
            body = await asyncio.to_thread(self._body, request)
        except PictureError as error:
            return Reply(request.key, "", "failed", str(error))
        usage: Counter[str] = Counter()
        attempt = empties = 0
        while True:
            attempt += 1
            with session.connection() as client:
                verdict = await self._attempt(client, body)
            usage.update(requests=1)
            usage.update(verdict.usage)
            error = self._redact(verdict.error)
            if verdict.kind == "answer" and verdict.text:
                return Reply(request.key, self._redact(verdict.text), "done", usage=dict(usage))
            if verdict.kind == "fatal":
                raise self._stopped(error)
            if verdict.kind == "refused":
                return Reply(request.key, "", "refused", error, dict(usage))
            if verdict.kind == "answer":
                empties += 1
                if empties == EMPTY_ATTEMPTS:
                    return Reply(request.key, "", "empty", f"{empties} empty answers", dict(usage))
            if verdict.kind == "rejected" or attempt >= self._patience(verdict):
                return Reply(request.key, "", "failed", error or "empty answers", dict(usage))
            await self._pause(request.key, attempt, verdict, error)

    async def _attempt(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Verdict:
        """One HTTP exchange, within the timeout and not before the server's Retry-After."""
        while (delay := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(delay)
        try:
            async with asyncio.timeout(self._timeout):
                response = await client.post(self._url, json=body)
        except TimeoutError:
            return Verdict("retry", error=f"no answer within {self._timeout:g} s")
        except httpx.ConnectError as error:
            return Verdict("retry", error=f"no connection ({error})")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            return Verdict("fatal", error=f"{error}. Check base_url")
        except httpx.HTTPError as error:
            return Verdict("retry", error=f"a broken connection ({str(error) or type(error).__name__})")
        self._answered = True
        return judge(response.status_code, response.headers, response.content)

    def _patience(self, verdict: Verdict) -> int:
        unknown_server = not self._answered and verdict.error.startswith("no connection")
        return min(FIRST_CONTACT_ATTEMPTS, self._attempts) if unknown_server else self._attempts

    async def _pause(self, key: str, attempt: int, verdict: Verdict, error: str) -> None:
        """Back off; a Retry-After holds back every question, not only the one that was told."""
        seconds = backoff(attempt, self._random)
        if verdict.wait:
            self._not_before = max(self._not_before, time.monotonic() + verdict.wait)
            seconds = verdict.wait
        logger.info(
            "%s: %s; attempt %d follows in %.1f s", key, error or "empty answer", attempt + 1, seconds
        )
        await asyncio.sleep(seconds)

    def _body(self, request: Request) -> dict[str, Any]:
        content: Any = request.prompt
        if request.image is not None:
            url = jpeg_data_url(request.image, self._image_size, self._jpeg_quality)
            content = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": request.prompt},
            ]
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **self._fields}
        return {name: value for name, value in body.items() if value is not None}

    def _redact(self, text: str) -> str:
        # vLLM users set keys such as "EMPTY": no secrets, and a caption may hold the word.
        return text.replace(self._key, "***") if len(self._key) >= SHORTEST_SECRET else text

    def _stopped(self, reason: str) -> BackendError:
        return BackendError(
            f"The captioning endpoint {self._shown_url} (model {self.model}) gives no captions: {reason}. "
            "What was answered is stored; the next run goes on from there."
        )


class _Session:
    """An event loop in a thread of its own (so that it also works under a notebook's loop), and its connections.

    A client per connection: one client's pool of many connections searches all of them for every request, which
    at 64 connections costs more time than the answers take (httpcore 1.0).
    """

    def __init__(self, key: str) -> None:
        self.closed = False
        self._auth = _Bearer(key) if key else None
        self._certificates = httpx.create_ssl_context()
        self._clients: list[httpx.AsyncClient] = []
        self._free: list[httpx.AsyncClient] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="captioning-endpoint", daemon=True
        )
        self._thread.start()

    @contextmanager
    def connection(self) -> Iterator[httpx.AsyncClient]:
        """A client that nobody else uses meanwhile; in the session's own thread only."""
        if not self._free:
            client = httpx.AsyncClient(
                auth=self._auth,
                verify=self._certificates,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                timeout=None,
            )
            self._clients.append(client)
            self._free.append(client)
        client = self._free.pop()
        try:
            yield client
        finally:
            self._free.append(client)

    def submit(self, coroutine: Any) -> Future[Reply]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients:
            await client.aclose()
        await self._loop.shutdown_default_executor()


class _Bearer(httpx.Auth):
    def __init__(self, key: str) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


def _is_fatal(future: Future[Reply]) -> bool:
    """Sorts what stops the run behind the answers that came at the same time."""
    return not future.cancelled() and future.exception() is not None


def _key(variable: str) -> str:
    """The key in the environment; no message repeats a value, nor what may be a key given instead of a name."""
    if not variable:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise BackendError(
            "api_key_env must be the NAME of an environment variable that holds the key, never the key itself."
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BackendError(
            f"The environment variable {variable} (api_key_env) is not set: export {variable}=... and run again."
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise BackendError(
            f"The key in the environment variable {variable} has characters no HTTP header takes."
        )
    return key


def _chat_url(base_url: str) -> tuple[str, str]:
    """The address to post to, and the same without user name and password, to be shown."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError("base_url of the openai backend must look like http://host:port/v1.")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
    return parts._replace(path=path).geturl(), shown.removesuffix("/chat/completions")


def _at_least(least: int, option: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BackendError(
            f"{option} of the openai backend must be a whole number of at least {least}, not {value!r}."
        )
    return value
