"""Shorten a caption by rules, for runs without a text model.

What a text model is asked for (appearance only, same style, nothing added) done with what can be recognised for
certain: sentences and clauses about mood, pose, place and impression go, everything else stays word for word.
"""

from __future__ import annotations

import re

from captioning import attributes
from captioning.lexicon import BELONGINGS, BODY

# A clause that begins like this is about the picture or the writer's impression, not about clothing.
_ASIDE = re.compile(
    r"^(?:and |while |as |which |that |all of which |the overall |overall|in the background|against |giving |gives |"
    r"creating |creates |suggesting |suggests |adding |adds |making |lending |conveying |exuding |perfect for |"
    r"suitable for |complet(?:ing|es) |he (?:seems|appears|looks)|she (?:seems|appears|looks)|"
    r"the (?:background|scene|setting|image|picture|photo|lighting|atmosphere))\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CLAUSE = re.compile(r"(?<=[,;])\s+")


def shorten(caption: str) -> str:
    """The caption without the sentences and asides that name no clothing.

    The first clause always stays, since it names the person.

    >>> shorten("The man is wearing a red coat, giving him a casual look. He is standing on a street.")
    'The man is wearing a red coat.'
    """
    first, *others = _SENTENCE.split(caption.strip())
    kept = [_without_asides(first), *(_without_asides(other) for other in others if _says_something(other))]
    return " ".join(kept)


def _without_asides(sentence: str) -> str:
    first, *others = _CLAUSE.split(sentence)
    kept = [first, *(clause for clause in others if not _ASIDE.match(clause) or _says_something(clause))]
    short = " ".join(kept).rstrip(" ,;")
    end = sentence[-1:]
    return short + end if end in (".", "!", "?") and not short.endswith(end) else short


def _says_something(text: str) -> bool:
    """Whether clothing, hair or something carried is named."""
    # "The overall look" is no garment; overalls are.
    text = re.sub(r"\boverall\b", "", text.lower())
    words = re.findall(r"[a-z][a-z-]*", text)
    return any(attributes.group(text)) or any(word in BELONGINGS or word in BODY for word in words)
