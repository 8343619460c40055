"""Answers to prompts that hold a caption instead of an image, by rules over words."""

from __future__ import annotations

import re

from captioning.attributes import group
from captioning.gender import gender_of
from captioning.lexicon import BELONGINGS, COLOURS, DESCRIBERS, FOOTWEAR
from captioning.prompts import Kind
from captioning.simplify import shorten

_PERSON = {"male": "man", "female": "woman", "unknown": "person"}


def rewrite(caption: str, kind: Kind) -> str:
    """Answer a simplify, attributes or fixed-style prompt about `caption`; "" where nothing is left to say.

    Raises:
        ValueError: a kind that asks about an image.
    """
    if kind == "simplify":
        return shorten(caption) if caption.strip() else ""
    if kind == "attributes":
        upper, lower = group(caption)
        return f"Upper: {' '.join(upper)}\nLower: {' '.join(lower)}"
    if kind == "fixed":
        return _fixed(caption)
    raise ValueError(f"A {kind} prompt asks about an image, but the request has none.")


def _fixed(caption: str) -> str:
    """The fixed-style template filled with the words of a query; what the query leaves out stays out."""
    person = _PERSON[gender_of(caption)]
    upper, lower = group(caption)
    lower = tuple(word for word in lower if word not in upper or word in COLOURS)
    shoes = _footwear(lower)
    legs = tuple(word for word in lower if word not in shoes)
    worn = [" ".join(words) for words in (upper, legs, shoes) if words]
    parts = [f"The {person} is wearing {', '.join(worn)}."] if worn else []
    if hair := _described(caption, frozenset({"hair"})):
        parts.append(f"The {person} has {hair}.")
    if thing := _described(caption, BELONGINGS):
        parts.append(f"The {person} carries {thing}.")
    return " ".join(parts)


def _footwear(words: tuple[str, ...]) -> tuple[str, ...]:
    """The shoes among the lower words, with the adjectives right before them."""
    for position, word in enumerate(words):
        if word in FOOTWEAR:
            start = position
            while start > 0 and words[start - 1] in COLOURS | DESCRIBERS:
                start -= 1
            return words[start : position + 1]
    return ()


def _described(caption: str, nouns: frozenset[str]) -> str:
    """The first of `nouns` in the caption with the adjectives right before it."""
    words = re.findall(r"[a-z][a-z-]*", caption.lower())
    for position, word in enumerate(words):
        if word in nouns:
            start = position
            while start > 0 and words[start - 1] in COLOURS | DESCRIBERS:
                start -= 1
            return " ".join(words[start : position + 1])
    return ""
