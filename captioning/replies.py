"""Make a model's answer a caption: peel off the chatter around it, and recognise a refusal written as prose."""

from __future__ import annotations

import re

# "<think> ... </think>" of reasoning models; one that was never closed holds no answer at all.
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
# "Sure!", "Here is the description:", "Simplified description:", "Caption -": words about the answer, up to a colon.
_INTERJECTION = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|absolutely)\b[^\n:.!]{0,80}[!.:,]\s*", re.IGNORECASE
)
_ANNOUNCEMENT = re.compile(
    r"^(?:here(?:'s| is| are)\b[^\n:]{0,100}|(?:the |a |my )?(?:[a-z]+ ){0,2}"
    r"(?:description|caption|answer|output|sentence|version|response)(?: of [^\n:]{0,60})?)\s*:\s*",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\*\*|__|`+|^#+\s*|^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_QUOTES = "\"'“”‘’«»"

# Anchored at the start: a caption may well say "a sign that reads I'm sorry".
_REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:very |really |so )?sorry|sorry|i apologi[sz]e|unfortunately,? i|"
    r"i (?:can(?:'t|not| not)|could not|couldn't|am (?:not able|unable)|won't|will not|must decline)|"
    r"i(?:'m| am) (?:not able|unable|not comfortable)|as an ai\b)",
    re.IGNORECASE,
)


def tidy(answer: str) -> str:
    """The caption inside an answer: one line, without thinking, announcements, markup and quotes around it.

    An answer that is nothing but chatter becomes "".
    """
    text = _THINKING.sub(" ", answer).replace("’", "'").strip()
    text = _MARKUP.sub("", text).strip()
    for pattern in (_INTERJECTION, _ANNOUNCEMENT):
        text = pattern.sub("", text, count=1).strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1]
    return " ".join(text.split())


def is_refusal(answer: str) -> bool:
    """Whether the answer declines to describe the picture."""
    return bool(_REFUSAL.match(_THINKING.sub(" ", answer).replace("’", "'").strip()))


def cut_unfinished(answer: str) -> str:
    """Drop the broken end of an answer that ran into its token limit: back to the last clause, else the last word."""
    end = max(answer.rfind(mark) for mark in ".!?;,")
    if end > len(answer) // 3:
        return answer[:end].rstrip(" ,;")
    return answer.rsplit(" ", 1)[0]
