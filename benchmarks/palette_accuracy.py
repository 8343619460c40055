"""How right generated captions are about demo pedestrians, attribute by attribute, and how varied they are.

    python -m benchmarks.palette_accuracy --root datasets/demo/CUHK-PEDES

The demo's `attributes.json` says what every drawn person wears. Captions are read back by `captioning.attributes`, so
any captions of demo images can be scored, those of a trained captioner too:

    python -m benchmarks.palette_accuracy --root datasets/demo/CUHK-PEDES --captions pre_gen_data/demo-seed0/captions.json
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from captioning import prompts
from captioning.attributes import Garment, garments
from captioning.backends import Request, make_backend
from captioning.files import load_captions
from captioning.gender import gender_of
from captioning.lexicon import FOOTWEAR
from captioning.pipeline import look_over
from engine import processor

RESULTS = Path(__file__).parent / "results" / "palette_accuracy-cpu.csv"
# Words for the demo's terms: the eleven basic ones, and hair's blond.
_SYNONYMS = {
    "gray": "grey", "navy": "blue", "teal": "green", "olive": "green", "maroon": "red", "burgundy": "red", "beige": "brown",
    "tan": "brown", "khaki": "brown", "lavender": "purple", "violet": "purple", "blonde": "blond", "cream": "white", "golden": "yellow",
}  # fmt: skip
_TERMS = "black white grey red orange yellow green blue purple pink brown blond".split()  # noqa: SIM905
_LOWER_KINDS = {
    "trousers": "pants trousers jeans leggings slacks tights stockings",
    "shorts": "shorts",
    "skirt": "skirt",
    "dress": "dress",
}
_PATTERNS = {
    "horizontal stripes": "stripe",
    "vertical stripes": "stripe",
    "checks": "check",
    "plain": "plain",
    "print": "plain",
}
_BAGS = {"backpack": "backpack rucksack", "bag": "bag handbag purse suitcase"}
# Share of the crop's pixels from which a bag or hat counts as visible.
_VISIBLE = 0.005


@dataclass(frozen=True)
class Accuracy:
    """Of `asked` captions, `said` mention the attribute, `right` of them truly."""

    attribute: str
    asked: int
    said: int
    right: int

    @property
    def precision(self) -> float:
        """Right share of what was said, percent."""
        return 100 * self.right / self.said if self.said else 0.0

    @property
    def abstained(self) -> float:
        """Share of captions that do not mention it, percent."""
        return 100 * (1 - self.said / self.asked) if self.asked else 0.0

    @property
    def recall(self) -> float:
        """Right share of all, percent."""
        return 100 * self.right / self.asked if self.asked else 0.0


def said_in(caption: str) -> dict[str, set[str]]:
    """The attributes a caption claims; an attribute it is silent about has an empty set."""
    worn = garments(caption)
    shoes = [garment for garment in worn if garment.head in FOOTWEAR]
    lower = [g for g in worn if "lower" in g.groups and g not in shoes]
    upper = [g for g in worn if "upper" in g.groups and g.head not in ("hat", "cap", "scarf")]
    words = re.findall(r"[a-z]+", caption.lower())
    hair = re.search(r"((?:[a-z]+ ){0,3})hair\b", caption.lower())
    hair_words = hair[1].split() if hair else []
    gender = gender_of(caption)
    top = {word for garment in upper[:1] for word in garment.words}
    dress = any(garment.head == "dress" for garment in worn)
    return {
        "gender": set() if gender == "unknown" else {gender},
        "upper colour": _colours(upper[:1]),
        "sleeves": _sleeves(" ".join(word for garment in upper for word in garment.words)),
        "upper pattern": _pattern(top) if upper else set(),
        "lower colour": _colours([garment for garment in lower if garment.head != "dress"]),
        "lower kind": {"dress"} if dress else _kinds(lower),
        "shoe colour": _colours(shoes),
        "hair length": {word for word in hair_words if word in ("short", "long")},
        "hair colour": {_SYNONYMS.get(word, word) for word in hair_words} & set(_TERMS),
        "hat colour": _colours([garment for garment in worn if garment.head in ("hat", "cap")]),
        "bag": (bags := {kind for kind, names in _BAGS.items() if set(names.split()) & set(words)}),
        "no bag": set() if bags else {"none"},
        "no hat": set() if any(garment.head in ("hat", "cap") for garment in worn) else {"none"},
    }


def _colours(worn: Iterable[Garment]) -> set[str]:
    parts = {part for garment in worn for word in garment.words for part in word.split("-")}
    return {_SYNONYMS.get(part, part) for part in parts} & set(_TERMS)


def _sleeves(text: str) -> set[str]:
    if re.search(r"\b(sleeveless|tank)\b", text):
        return {"none"}
    if re.search(r"\b(short[- ]sleeve[ds]?|t-shirt|tee|polo)\b", text):
        return {"short"}
    return {"long"} if re.search(r"\b(long[- ]sleeve[ds]?|sweater|hoodie|coat|jacket)\b", text) else set()


def _pattern(words: set[str]) -> set[str]:
    if words & {"checked", "checkered", "plaid"}:
        return {"check"}
    return {"stripe"} if words & {"striped", "stripes"} else {"plain"}


def _kinds(worn: Iterable[Garment]) -> set[str]:
    heads = {garment.head for garment in worn}
    return {kind for kind, names in _LOWER_KINDS.items() if heads & set(names.split())}


def truth_of(person: Mapping, visible: Mapping[str, float]) -> dict[str, set[str]]:
    """The right answers for one image, from `attributes.json`; several where annotators would differ."""
    upper, lower, shoes = person["upper"], person["lower"], person["shoes"]
    dress = upper["kind"] == "dress"
    kind = lower["kind"] if lower else "dress"
    kind = {"jeans": "trousers", "leggings": "trousers", "long skirt": "skirt"}.get(kind, kind)
    short = person["hair_style"] in ("short", "bald", "bun")
    bag = person["bag"]
    bag = bag and visible.get("bag", 0) >= _VISIBLE and ("backpack" if bag["kind"] == "backpack" else "bag")
    hat = person["hat"] if visible.get("hat", 0) >= _VISIBLE else None
    bald = person["hair_style"] == "bald" or hat
    answers = {
        "gender": {"male" if person["gender"] == "man" else "female"},
        "upper colour": {upper["colour"]["term"]},
        "sleeves": {upper["sleeves"]},
        "upper pattern": {_PATTERNS[upper["pattern"]]},
        "lower colour": {lower["colour"]["term"]} if lower and not dress else None,
        "lower kind": {"dress"} if dress else {kind},
        "shoe colour": {shoes["colour"]["term"]} if visible.get("shoes", 0) >= _VISIBLE else None,
        "hair length": {"short" if short else "long"},
        "hair colour": None if bald else {person["hair"]["term"]},
        "hat colour": {hat["colour"]["term"]} if hat else None,
        "bag": {bag} if bag else None,
        "no bag": None if person["bag"] else {"none"},
        "no hat": None if person["hat"] else {"none"},
    }
    return {name: answer for name, answer in answers.items() if answer is not None}


def score_captions(captions: Mapping[str, str], attributes: Mapping) -> list[Accuracy]:
    """Attribute by attribute, what captions get right.

    A claim is right if the true value is among the values claimed ("a black and white striped shirt" claims two
    colours).

    Args:
        captions: image name as in `attributes["images"]` -> caption.
        attributes: the content of a demo's `attributes.json`.

    Raises:
        ValueError: none of the captions belongs to an image of the demo.
    """
    counts: dict[str, list[int]] = {}
    for image, caption in captions.items():
        record = attributes["images"].get(image)
        if record is None:
            continue
        claimed = said_in(caption)
        for name, right in truth_of(
            attributes["identities"][str(record["identity"])], record["visible"]
        ).items():
            count = counts.setdefault(name, [0, 0, 0])
            count[0] += 1
            count[1] += bool(claimed[name])
            count[2] += bool(claimed[name] & right)
    if not counts:
        raise ValueError(
            "No caption belongs to an image of this attributes.json; are the image names relative to imgs/?"
        )
    return [Accuracy(name, *count) for name, count in counts.items()]


def language(captions: Iterable[str]) -> dict[str, float]:
    """How varied captions are: distinct ones, words, vocabulary, distinct pairs and triples of words (per cent)."""
    texts = list(captions)
    words = [re.findall(r"[a-z0-9'-]+", text.lower()) for text in texts]
    report = {
        "captions": len(texts),
        "distinct captions %": 100 * len(set(texts)) / max(len(texts), 1),
        "mean words": sum(map(len, words)) / max(len(texts), 1),
        "vocabulary": len({word for text in words for word in text}),
    }
    for size in (2, 3):
        grams = [tuple(text[i : i + size]) for text in words for i in range(len(text) - size + 1)]
        report[f"distinct {size}-grams %"] = 100 * len(set(grams)) / max(len(grams), 1)
    return report


def caption_with_palette(
    images: list[str], image_root: Path, cameras: bool
) -> tuple[dict[str, str], dict[str, str], float]:
    """Base and styled captions (stage A's way, without a text model) of `images`, and the seconds for one image."""
    backend = make_backend("palette", cameras=cameras)
    started = time.process_time()
    look_over(backend, images, image_root)
    asked = [Request(image, image_root / image, prompts.base_prompt()) for image in images]
    base = {reply.key: reply.text for reply in backend.answer(asked)}
    seconds = (time.process_time() - started) / max(len(images), 1)
    styled_requests = []
    for position, image in enumerate(images):
        opening = prompts.opening(gender_of(base[image]), position)
        styled_requests.append(Request(image, image_root / image, prompts.styled_prompt(opening), opening))
    styled = {reply.key: reply.text for reply in backend.answer(styled_requests)}
    return base, styled, seconds


def write_table(path: Path, rows: list[Accuracy], variety: Mapping[str, float], seconds: float) -> None:
    """One CSV: the attributes, then the language figures and the time."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["measure", "asked", "right when said %", "not said %", "right of all %"])
        for row in rows:
            writer.writerow(
                [
                    row.attribute,
                    row.asked,
                    f"{row.precision:.1f}",
                    f"{row.abstained:.1f}",
                    f"{row.recall:.1f}",
                ]
            )
        for name, value in {**variety, "milliseconds of one core per image": 1000 * seconds}.items():
            writer.writerow([name, "", "", "", f"{value:.4g}"])
        features = " ".join(processor.features())
        writer.writerow([f"on {processor.name()}", "", "", "", features])


def main() -> None:
    """Caption a sample of a demo set, print the table and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="demo set with attributes.json and imgs/")
    parser.add_argument("--images", type=int, default=2000, help="how many images (default 2000)")
    parser.add_argument(
        "--cameras", action="store_true", help="each folder is a camera with a light of its own"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--captions", type=Path, help="score a captions.json (stage C) instead, and write no CSV"
    )
    arguments = parser.parse_args()
    source = arguments.root / "attributes.json"
    if not source.is_file():
        parser.error(f"{source} is missing; make a demo set with python -m synthesis.demo")
    attributes = json.loads(source.read_text())
    if arguments.captions:
        captions = load_captions(arguments.captions).values()
        for kind in ("base_caption", "styled_caption"):
            texts = {caption.image: getattr(caption, kind) for caption in captions}
            print(f"{kind}s of {arguments.captions}")
            print_table(score_captions(texts, attributes), language(texts.values()))
        return
    images = sorted(attributes["images"])
    images = images[:: max(1, len(images) // arguments.images)][: arguments.images]
    base, styled, seconds = caption_with_palette(images, arguments.root / "imgs", arguments.cameras)
    rows, variety = score_captions(styled, attributes), language(styled.values())
    print_table(rows, variety)
    print(
        f"empty captions: {sum(not text for text in base.values())}; {1000 * seconds:.1f} ms of one core per image"
    )
    write_table(arguments.output, rows, variety, seconds)


def print_table(rows: list[Accuracy], variety: Mapping[str, float]) -> None:
    """The attributes, then the language figures, for people."""
    print(f"{'attribute':16} {'asked':>6} {'right when said':>16} {'not said':>9} {'right of all':>13}")
    for row in rows:
        print(
            f"{row.attribute:16} {row.asked:6} {row.precision:15.1f}% {row.abstained:8.1f}% {row.recall:12.1f}%"
        )
    for name, value in variety.items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
