"""Sentence templates for varied captions: opening x order of the garments x connective, 150 in all.

SynTBPR (arXiv 2503.22171) shows a captioning model one random template for each image, so that captions of a set do not all
have one shape. These are this project's own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

OPENINGS = (
    "The {person} is wearing",
    "The {person} wears",
    "A {person} in",
    "The {person} is dressed in",
    "This {person} has on",
    "A {person} wearing",
)
ORDERS = (
    ("upper", "lower", "shoes"),
    ("lower", "upper", "shoes"),
    ("shoes", "upper", "lower"),
    ("upper", "shoes", "lower"),
    ("lower", "shoes", "upper"),
)
CONNECTIVES = ("with", "also has", "sentence", "before", "two sentences")
SLOTS: Mapping[str, str] = {
    "upper": "[upper garment]",
    "lower": "[lower garment]",
    "shoes": "[shoes]",
    "hair": "[hair]",
    "belongings": "[belongings]",
}


@dataclass(frozen=True)
class Template:
    """The shape of one caption."""

    opening: str
    order: tuple[str, ...]
    connective: str

    @property
    def text(self) -> str:
        """The template as a model reads it, slots in brackets."""
        return self.fill("[person]", SLOTS)

    def fill(self, person: str, slots: Mapping[str, str]) -> str:
        """A caption; what a slot has no words for is left out.

        Args:
            person: "man", "woman" or "person".
            slots: words for any of `SLOTS`, and "hat", which follows what is worn.

        Returns:
            the sentence or sentences, "" where nothing is worn.
        """
        worn = [slots[slot] for slot in (*self.order, "hat") if slots.get(slot)]
        hair, belongings = slots.get("hair", ""), slots.get("belongings", "")
        things = [thing for thing in (hair, belongings) if thing]
        if not worn:
            return ""
        text = f"{self.opening.format(person=person)} {listed(worn)}"
        if not things:
            return f"{text}."
        if self.connective == "with":
            return f"{text}, with {listed(things)}."
        if self.connective == "also has":
            return f"{text}, and also has {listed(things)}."
        if self.connective == "before":
            return f"With {listed(things)}, {text[0].lower()}{text[1:]}."
        if self.connective == "sentence":
            return f"{text}. The {person} has {listed(things)}."
        sentences = [
            f"The hair is {hair.removesuffix(' hair')}." if hair else "",
            f"The {person} carries {belongings}." if belongings else "",
        ]
        return " ".join([f"{text}.", *(sentence for sentence in sentences if sentence)])


CONSTANT = Template("A {person} wearing", ("upper", "lower", "shoes"), "with")


@functools.cache
def all_templates() -> tuple[Template, ...]:
    """Every template, in a fixed order."""
    return tuple(Template(*parts) for parts in product(OPENINGS, ORDERS, CONNECTIVES))


def template_of(text: str) -> Template:
    """The template whose text this is.

    Raises:
        ValueError: none of them.
    """
    known = _by_text()
    if text not in known:
        raise ValueError(f"No caption template reads {text[:60]!r}; use those of captioning.templates.")
    return known[text]


@functools.cache
def _by_text() -> dict[str, Template]:
    return {template.text: template for template in all_templates()}


def listed(phrases: Sequence[str]) -> str:
    """ "a, b and c"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
