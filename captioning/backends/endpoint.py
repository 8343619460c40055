"""What an OpenAI-compatible server's response means, and how long to wait before asking again. No network here."""

from __future__ import annotations

import email.utils
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from captioning.replies import cut_unfinished

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
# A server that asks for more patience than this is asked again after this long.
LONGEST_RETRY_AFTER = 600.0

# Nothing another attempt or another image could change: key, account, address, model.
_FATAL = {
    401: "the key",
    402: "the account",
    403: "the key's rights",
    404: "base_url and model",
    405: "base_url",
}
_RETRIED = {408, 409, 425, 429}
_FILTERED = re.compile(
    r"content[_ -]?(?:filter|policy)|data[_ -]?inspection|responsible ?ai|safety[_ -](?:system|filter)|inappropriate content",
    re.IGNORECASE,
)
_NO_QUOTA = re.compile(
    r"insufficient_quota|billing_hard_limit|arrearage|insufficient[_ ]balance", re.IGNORECASE
)


@dataclass(frozen=True)
class Verdict:
    """What to do with a response.

    kind: "answer" (`text`, possibly empty), "retry" (`error`; after `wait` seconds if the server said), "refused" by
    a content filter, "rejected" (this request only) or "fatal" (every request).
    """

    kind: Literal["answer", "retry", "refused", "rejected", "fatal"]
    text: str = ""
    error: str = ""
    wait: float | None = None
    usage: Mapping[str, int] = field(default_factory=dict)


def judge(status: int, headers: Mapping[str, str], content: bytes) -> Verdict:
    """What the response with HTTP `status` means."""
    body = _json(content)
    said = f"HTTP {status}: {_said(body, content)}"
    if status == 200:
        if not isinstance(body, dict):
            return Verdict("retry", error=f"an answer that is no JSON object ({len(content)} bytes)")
        return _judge_answer(body, said)
    if status < 500 and _FILTERED.search(said):
        return Verdict("refused", error=said)
    if status in _FATAL or 300 <= status < 400:
        return Verdict("fatal", error=f"{said}. Check {_FATAL.get(status, 'base_url, which redirects')}")
    if status == 429 and _NO_QUOTA.search(content.decode("utf-8", "replace")):
        return Verdict("fatal", error=f"{said}. Check the account")
    if status >= 500 or status in _RETRIED:
        return Verdict("retry", error=said, wait=retry_after(headers))
    return Verdict("rejected", error=said)


def _judge_answer(body: dict[str, Any], said: str) -> Verdict:
    counts = body.get("usage")
    counts = counts if isinstance(counts, dict) else {}
    names = ("prompt_tokens", "completion_tokens")
    usage = {name: counts[name] for name in names if isinstance(counts.get(name), int)}
    try:
        choice = body["choices"][0]
        message = choice["message"]
        finish, refusal = choice.get("finish_reason"), message.get("refusal")
        text = _text(message.get("content"))
    except (LookupError, TypeError, AttributeError):
        return Verdict("retry", error=f"an answer without a message ({said})", usage=usage)
    if finish == "content_filter" or (isinstance(refusal, str) and refusal):
        return Verdict("refused", error=refusal or "stopped by the server's content filter", usage=usage)
    if finish == "length" and text:
        text = cut_unfinished(text)
    return Verdict("answer", text=text.strip(), usage=usage)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait (`retry-after-ms`, `Retry-After` in seconds or as a date), or None."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds:
            seconds = float(milliseconds) / 1000
        elif value and re.fullmatch(r"\s*\d+(\.\d*)?\s*", value):
            seconds = float(value)
        elif value:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        else:
            return None
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def backoff(attempt: int, generator: random.Random) -> float:
    """Seconds before attempt `attempt` + 1: doubling from 1 to 60, with jitter down to a half.

    Jitter keeps requests that failed together from coming back together.
    """
    return min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * generator.uniform(0.5, 1.0)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _said(body: Any, content: bytes) -> str:
    """The server's own words on one line."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        parts = [error.get(name) for name in ("message", "code", "type")]
        words = "; ".join(str(part) for part in parts if part)
    else:
        words = error if isinstance(error, str) else content.decode("utf-8", "replace")
    return " ".join(words.split())[:300] or "no explanation"


def _text(content: Any) -> str:
    """The message's text; some servers send a list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
