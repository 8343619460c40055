"""Answers to prompts that hold a caption instead of an image, by rules over words."""

from __future__ import annotations

import re

from captioning.attributes import garments, group
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
    parts: dict[str, list[str]] = {"upper": [], "lower": [], "shoes": []}
    for garment in garments(caption):
        place = "shoes" if garment.head in FOOTWEAR else "upper" if "upper" in garment.groups else "lower"
        parts[place] += [word for word in garment.words if word not in parts[place]]
    worn = [" ".join(words) for words in parts.values() if words]
    sentences = [f"The {person} is wearing {', '.join(worn)}."] if worn else []
    if hair := _described(caption, frozenset({"hair"})):
        sentences.append(f"The {person} has {hair}.")
    if thing := _described(caption, BELONGINGS):
        sentences.append(f"The {person} carries {thing}.")
    return " ".join(sentences)


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
