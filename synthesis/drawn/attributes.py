"""Who the identities are: what each one wears and carries, drawn from one random stream per identity."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from synthesis.drawn.colours import RGB, Colour, make_colour, sample_colour, vary

SKIN_TONES: tuple[RGB, ...] = (
    (244, 208, 180),
    (232, 190, 155),
    (214, 168, 130),
    (186, 136, 98),
    (140, 96, 66),
    (96, 64, 46),
)
HAIR_COLOURS: dict[str, tuple[RGB, float]] = {
    "black": ((30, 26, 26), 0.42),
    "brown": ((84, 54, 34), 0.28),
    "blond": ((214, 176, 100), 0.16),
    "grey": ((158, 156, 154), 0.08),
    "red": ((160, 68, 32), 0.06),
}
UPPER_COLOURS = {
    "black": 14, "white": 13, "grey": 11, "red": 11, "orange": 5, "yellow": 8,
    "green": 9, "blue": 13, "purple": 6, "pink": 6, "brown": 5,
}  # fmt: skip
LOWER_COLOURS = {
    "black": 22, "white": 9, "grey": 15, "red": 6, "yellow": 2, "green": 8, "blue": 19, "purple": 3, "pink": 4, "brown": 12,
}  # fmt: skip
SKIRT_COLOURS = {
    "black": 16,
    "white": 12,
    "grey": 8,
    "red": 14,
    "yellow": 8,
    "green": 9,
    "blue": 14,
    "purple": 7,
    "pink": 12,
}
SHOE_COLOURS = {
    "black": 32,
    "white": 28,
    "grey": 10,
    "red": 9,
    "blue": 8,
    "brown": 11,
    "yellow": 1,
    "pink": 1,
}
BAG_COLOURS = {
    "black": 28, "brown": 16, "red": 13, "blue": 13, "grey": 8, "green": 7, "white": 6, "pink": 4, "yellow": 3, "orange": 2,
}  # fmt: skip
HAT_COLOURS = {
    "black": 22,
    "white": 17,
    "red": 16,
    "blue": 15,
    "grey": 9,
    "yellow": 7,
    "green": 7,
    "pink": 4,
    "brown": 3,
}

PLAIN, HORIZONTAL, VERTICAL, CHECKS, PRINT = (
    "plain",
    "horizontal stripes",
    "vertical stripes",
    "checks",
    "print",
)


@dataclass(frozen=True)
class Garment:
    """An upper or lower garment. `second` is the colour of its pattern, `inner` that of what an open one shows."""

    kind: str
    colour: Colour
    pattern: str = PLAIN
    second: Colour | None = None
    sleeves: str = ""  # "long", "short", "none"; "" for lower garments
    is_open: bool = False
    inner: Colour | None = None


@dataclass(frozen=True)
class Thing:
    """Shoes, a bag, a hat or a scarf: its kind and colour."""

    kind: str
    colour: Colour


@dataclass(frozen=True)
class Person:
    """One identity. `lower` is None under a dress with bare legs; `build` scales the width of the body."""

    gender: str  # "man", "woman"
    build: float
    skin: RGB
    hair: Colour
    hair_style: str  # "short", "shoulder-length", "long", "ponytail", "bun", "bald"
    upper: Garment
    lower: Garment | None
    shoes: Thing
    bag: Thing | None = None
    hat: Thing | None = None
    scarf: Thing | None = None
    glasses: bool = False
    beard: bool = False
    phone: bool = False
    mask: bool = False

    def description(self) -> tuple[str, ...]:
        """Everything about the identity that has a name; unique in a data set."""
        words = [self.gender, self.hair.term, self.hair_style, str(self.glasses), str(self.beard)]
        for part in (self.upper, self.lower, self.shoes, self.bag, self.hat, self.scarf):
            if part is None:
                words.append("-")
                continue
            words += [part.kind, part.colour.name]
            if isinstance(part, Garment):
                words += [
                    part.pattern,
                    part.second.term if part.second else "",
                    part.sleeves,
                    str(part.is_open),
                ]
                words.append(part.inner.term if part.inner else "")
        words += [thing for thing in ("phone", "mask") if getattr(self, thing)]
        return tuple(words)

    def record(self) -> dict:
        """The identity as JSON-ready nested dictionaries; a phone and a mask, which the demo's people have none of, where there is one."""
        content = asdict(self)
        return {name: value for name, value in content.items() if value or name not in ("phone", "mask")}


@dataclass(frozen=True)
class UpperKind:
    """How often a kind of upper garment is worn (`men`, `women`, by weight), its sleeves and its patterns."""

    men: float
    women: float
    season: str  # "summer", "winter", "any"
    sleeves: tuple[str, ...]
    patterns: dict[str, float]
    open_share: float = 0.0


_SHIRT_PATTERNS = {PLAIN: 0.5, CHECKS: 0.3, VERTICAL: 0.2}
_TOP_PATTERNS = {PLAIN: 0.46, HORIZONTAL: 0.24, PRINT: 0.3}
UPPER_KINDS: dict[str, UpperKind] = {
    "t-shirt": UpperKind(24, 16, "summer", ("short",), _TOP_PATTERNS),
    "polo shirt": UpperKind(8, 2, "summer", ("short",), {PLAIN: 0.7, HORIZONTAL: 0.3}),
    "shirt": UpperKind(13, 8, "any", ("long", "long", "short"), _SHIRT_PATTERNS),
    "blouse": UpperKind(0, 8, "any", ("long", "short"), {PLAIN: 0.7, VERTICAL: 0.15, CHECKS: 0.15}),
    "tank top": UpperKind(2, 6, "summer", ("none",), {PLAIN: 0.75, HORIZONTAL: 0.25}),
    "sweater": UpperKind(10, 10, "winter", ("long",), {PLAIN: 0.6, HORIZONTAL: 0.4}),
    "hoodie": UpperKind(10, 5, "winter", ("long",), {PLAIN: 0.65, PRINT: 0.35}),
    "jacket": UpperKind(16, 12, "winter", ("long",), {PLAIN: 1.0}, open_share=0.6),
    "suit jacket": UpperKind(6, 3, "any", ("long",), {PLAIN: 1.0}, open_share=1.0),
    "coat": UpperKind(6, 11, "winter", ("long",), {PLAIN: 0.9, CHECKS: 0.1}, open_share=0.35),
    "down jacket": UpperKind(5, 5, "winter", ("long",), {PLAIN: 1.0}),
    "dress": UpperKind(0, 16, "any", ("short", "none", "long"), {PLAIN: 0.6, HORIZONTAL: 0.2, CHECKS: 0.2}),
}
_LOWER_KINDS: dict[tuple[str, str], dict[str, float]] = {
    ("man", "summer"): {"jeans": 30, "trousers": 32, "shorts": 38},
    ("man", "winter"): {"jeans": 45, "trousers": 55},
    ("woman", "summer"): {
        "jeans": 22,
        "trousers": 14,
        "shorts": 22,
        "skirt": 24,
        "long skirt": 12,
        "leggings": 8,
    },
    ("woman", "winter"): {"jeans": 32, "trousers": 24, "skirt": 16, "long skirt": 10, "leggings": 18},
}
_SUIT_COLOURS = {"black": 5, "grey": 4, "blue": 3, "brown": 1}
_JEANS_COLOURS = {"blue": 70, "black": 18, "grey": 12}
_BAGS = {
    "man": {"": 38, "backpack": 34, "shoulder bag": 16, "suitcase": 6, "handbag": 6},
    "woman": {"": 30, "backpack": 22, "shoulder bag": 22, "suitcase": 5, "handbag": 21},
}
SHARES = 4  # into which all combinations of garments fall


@dataclass(frozen=True)
class Fashion:
    """What the people of a world wear: how often which garment and colour, by weight.

    Attributes:
        name: part of every person's random stream; "" is today's demo.
        seasons: drawn from with equal chances.
        bags: by gender, "" is none; `hats` the share of people with a hat.
        shares: which of the `SHARES` parts of all combinations of garments are worn (`share_of`): worlds with disjoint
            shares have no combination in common, and so no identity.
        look_alikes: the share of people who differ from the one before them in one or two things only.
    """

    name: str = ""
    seasons: tuple[str, ...] = ("summer", "winter")
    upper_kinds: Mapping[str, UpperKind] = field(default_factory=lambda: UPPER_KINDS)
    lower_kinds: Mapping[tuple[str, str], dict[str, float]] = field(default_factory=lambda: _LOWER_KINDS)
    upper_colours: Mapping[str, float] = field(default_factory=lambda: UPPER_COLOURS)
    lower_colours: Mapping[str, float] = field(default_factory=lambda: LOWER_COLOURS)
    skirt_colours: Mapping[str, float] = field(default_factory=lambda: SKIRT_COLOURS)
    jeans_colours: Mapping[str, float] = field(default_factory=lambda: _JEANS_COLOURS)
    shoe_colours: Mapping[str, float] = field(default_factory=lambda: SHOE_COLOURS)
    bag_colours: Mapping[str, float] = field(default_factory=lambda: BAG_COLOURS)
    hat_colours: Mapping[str, float] = field(default_factory=lambda: HAT_COLOURS)
    bags: Mapping[str, dict[str, float]] = field(default_factory=lambda: _BAGS)
    hats: float = 0.2
    shares: frozenset[int] = frozenset(range(SHARES))
    look_alikes: float = 0.0


STREET_FASHION = Fashion()


def _pick(weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _contrasting(colour: Colour, rng: random.Random) -> Colour:
    """A pattern colour that stands out: white or black most often, else another term."""
    light = sum(colour.rgb) / 3
    if light > 150:
        weights = {"black": 5, "blue": 3, "red": 3, "green": 1, "grey": 0.5}
    else:
        weights = {"white": 8, "yellow": 1, "red": 1, "grey": 1, "pink": 0.5}
    weights.pop(colour.term, None)
    return make_colour(_pick(weights, rng), "", rng)


def _sample_upper(gender: str, season: str, fashion: Fashion, rng: random.Random) -> Garment:
    worn = {
        name: kind.men if gender == "man" else kind.women
        for name, kind in fashion.upper_kinds.items()
        if kind.season in (season, "any")
    }
    name = _pick(worn, rng)
    kind = fashion.upper_kinds[name]
    colour = sample_colour(_SUIT_COLOURS if name == "suit jacket" else fashion.upper_colours, rng)
    pattern = _pick(kind.patterns, rng)
    second = None if pattern == PLAIN else _contrasting(colour, rng)
    is_open = rng.random() < kind.open_share
    inner = None
    if is_open:
        weights = {"white": 5, "blue": 1} if name == "suit jacket" else fashion.upper_colours
        inner = sample_colour({term: share for term, share in weights.items() if term != colour.term}, rng)
    return Garment(name, colour, pattern, second, rng.choice(kind.sleeves), is_open, inner)


def _sample_lower(
    gender: str, season: str, upper: Garment, fashion: Fashion, rng: random.Random
) -> Garment | None:
    if upper.kind == "dress":
        tights = season == "winter" and rng.random() < 0.7
        return Garment("tights", make_colour("black", "", rng)) if tights else None
    if upper.kind == "suit jacket":
        same = replace(upper.colour, rgb=vary(upper.colour.rgb, rng, 0.3))
        kind = "skirt" if gender == "woman" and rng.random() < 0.3 else "trousers"
        return Garment(kind, same if rng.random() < 0.6 else sample_colour(_SUIT_COLOURS, rng))
    kind = _pick(fashion.lower_kinds[gender, season], rng)
    if kind == "jeans":
        dyed = sample_colour(fashion.jeans_colours, rng)
        return Garment(kind, replace(dyed, rgb=tuple(round(0.78 * channel + 24) for channel in dyed.rgb)))
    if kind == "leggings":
        return Garment(kind, sample_colour({"black": 6, "grey": 2, "blue": 1, "purple": 1, "pink": 1}, rng))
    colour = sample_colour(fashion.skirt_colours if "skirt" in kind else fashion.lower_colours, rng)
    patterns = (
        {PLAIN: 0.8, CHECKS: 0.12, HORIZONTAL: 0.08} if kind != "trousers" else {PLAIN: 0.95, VERTICAL: 0.05}
    )
    if upper.pattern in (HORIZONTAL, VERTICAL, CHECKS):
        patterns = {PLAIN: 1.0}
    pattern = _pick(patterns, rng)
    return Garment(kind, colour, pattern, None if pattern == PLAIN else _contrasting(colour, rng))


def _sample_shoes(gender: str, season: str, upper: Garment, fashion: Fashion, rng: random.Random) -> Thing:
    if upper.kind == "suit jacket":
        kind = "leather shoes" if gender == "man" else "high heels"
        return Thing(kind, sample_colour({"black": 3, "brown": 1}, rng))
    weights = {"sneakers": 60.0, "leather shoes": 18.0}
    weights |= {"sandals": 10.0} if season == "summer" else {"boots": 24.0}
    if gender == "woman":
        weights = weights | {"high heels": 14.0, "leather shoes": 6.0}
    kind = _pick(weights, rng)
    formal = kind in ("leather shoes", "boots", "sandals")
    return Thing(
        kind, sample_colour({"black": 5, "brown": 4, "grey": 1} if formal else fashion.shoe_colours, rng)
    )


def _sample_bag(gender: str, fashion: Fashion, rng: random.Random) -> Thing | None:
    kind = _pick(fashion.bags[gender], rng)
    return Thing(kind, sample_colour(fashion.bag_colours, rng)) if kind else None


def _sample_hat(gender: str, season: str, fashion: Fashion, rng: random.Random) -> Thing | None:
    if rng.random() > fashion.hats:
        return None
    if season == "winter":
        kind = _pick({"knit hat": 6, "cap": 4}, rng)
    else:
        kind = _pick({"cap": 8 if gender == "man" else 4, "sun hat": 1 if gender == "man" else 5}, rng)
    return Thing(kind, sample_colour(fashion.hat_colours, rng))


def _sample_hair(gender: str, rng: random.Random) -> tuple[Colour, str]:
    weights = {name: share for name, (_, share) in HAIR_COLOURS.items()}
    name = _pick(weights, rng)
    if gender == "man":
        style = _pick({"short": 86, "bald": 7, "shoulder-length": 4, "ponytail": 3}, rng)
    else:
        style = _pick({"long": 38, "shoulder-length": 22, "ponytail": 22, "bun": 10, "short": 8}, rng)
    return Colour(name, "", vary(HAIR_COLOURS[name][0], rng)), style


def sample_person(rng: random.Random, fashion: Fashion = STREET_FASHION) -> Person:
    """Draw one identity from `rng`; what is worn fits the season and the gender, loosely as in a street."""
    gender = rng.choice(("man", "woman"))
    season = rng.choice(fashion.seasons)
    hair, style = _sample_hair(gender, rng)
    upper = _sample_upper(gender, season, fashion, rng)
    return Person(
        gender=gender,
        build=rng.choice((0.93, 1.0, 1.0, 1.06, 1.16)),
        skin=vary(rng.choice(SKIN_TONES), rng, 0.5),
        hair=hair,
        hair_style=style,
        upper=upper,
        lower=_sample_lower(gender, season, upper, fashion, rng),
        shoes=_sample_shoes(gender, season, upper, fashion, rng),
        bag=_sample_bag(gender, fashion, rng),
        hat=_sample_hat(gender, season, fashion, rng),
        scarf=Thing("scarf", sample_colour(fashion.hat_colours, rng))
        if season == "winter" and rng.random() < 0.12
        else None,
        glasses=rng.random() < 0.14,
        beard=gender == "man" and rng.random() < 0.15,
    )


def combination(person: Person) -> tuple[str, str, str, str]:
    """The garments that a person is described by first: kinds and basic colours of the upper and the lower one."""
    lower = person.lower
    below = (lower.kind, lower.colour.term) if lower else ("", "")
    return person.upper.kind, person.upper.colour.term, *below


def share_of(person: Person) -> int:
    """Which of the `SHARES` parts of all combinations the person's belongs to, the same for ever and everywhere."""
    return zlib.crc32("/".join(combination(person)).encode()) % SHARES


_ALTERED = ("shoes", "bag", "hat", "hair", "upper", "lower")


def _look_alike(person: Person, fashion: Fashion, rng: random.Random) -> Person:
    """Another person in nearly the same things: one or two of them are others, of garments the colour alone."""
    stranger = sample_person(rng, fashion)
    changes: dict = {"build": stranger.build, "skin": stranger.skin}
    for part in rng.sample(_ALTERED, rng.choice((1, 2))):
        own, other = getattr(person, part), getattr(stranger, part)
        if part in ("upper", "lower"):
            plain = own is not None and own.pattern == PLAIN and own.kind != "suit jacket"
            other = replace(own, colour=sample_colour(fashion.upper_colours, rng)) if plain else own
            if plain and other.inner is not None and other.inner.term == other.colour.term:
                other = own
        changes[part] = other
    return replace(person, **changes)


def sample_people(count: int, seed: int, fashion: Fashion = STREET_FASHION) -> list[Person]:
    """`count` identities with pairwise different descriptions; person i depends on `seed` and those before it only."""
    people: list[Person] = []
    seen: set[tuple[str, ...]] = set()
    stream = f"person/{fashion.name}/{seed}" if fashion.name else f"person/{seed}"
    for index in range(count):
        # Before any attempt: those of a stranger fail more often, by falling into another world's share.
        chance = random.Random(f"{stream}/{index}").random()
        alike = bool(people) and chance < fashion.look_alikes
        attempt = 0
        while True:
            rng = random.Random(f"{stream}/{index}/{attempt}")
            person = _look_alike(people[-1], fashion, rng) if alike else sample_person(rng, fashion)
            if person.description() not in seen and share_of(person) in fashion.shares:
                break
            attempt += 1
        seen.add(person.description())
        people.append(person)
    return people
