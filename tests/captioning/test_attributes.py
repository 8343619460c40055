from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.attributes import garments, group, parse_reply
from captioning.lexicon import BELONGINGS, BODY, BOTH, COLOURS, LOWER, UPPER


def sets(caption: str) -> tuple[set[str], set[str]]:
    upper, lower = group(caption)
    return set(upper), set(lower)


@pytest.mark.parametrize(
    ("caption", "upper", "lower"),
    [
        (
            "a black and white striped shirt with blue jeans and a red backpack",
            "black white striped shirt",
            "blue jeans",
        ),
        (
            "The man is wearing a red t-shirt, blue jeans and white shoes, with a black backpack.",
            "red t-shirt",
            "blue jeans white shoes",
        ),
        (
            "She has long brown hair and wears a white dress with a floral print and black heels.",
            "white dress floral print",
            "white dress floral print black heels",
        ),
        ("His shirt is red and his pants are black and white.", "shirt red", "pants black white"),
        ("a man in a black and white striped shirt", "black white striped shirt", ""),
        ("a man in black and white striped shorts", "", "black white striped shorts"),
        ("his shirt and pants are black", "shirt black", "pants black"),
        ("a jacket that is black and white sneakers", "jacket black", "white sneakers"),
        ("black shirt blue jeans white shoes", "black shirt", "blue jeans white shoes"),
        (
            "a long, black coat over a grey hooded sweatshirt; black dress shoes",
            "long black coat grey hooded sweatshirt",
            "black dress shoes",
        ),
        ("a T shirt in red and knee length denim skirt", "t shirt red", "knee length denim skirt"),
        ("flip flops and short sleeves", "short sleeves", "flip flops"),
        ("white sneakers with red soles and a yellow cap", "yellow cap", "white sneakers red soles"),
        ("jeans with long sleeves", "long sleeves", "jeans"),
        ("a nike shirt with a white logo on the chest", "nike shirt white logo", ""),
        ("a shirt dress", "shirt dress", "shirt dress"),
        ("a denim jacket and suit trousers", "denim jacket", "suit trousers"),
        ("A DARK-BLUE MINI-SKIRT!", "", "dark-blue mini-skirt"),
        ("a person with a red bag, an umbrella and short black hair", "", ""),
        ("dressed in black. white shoes", "", "white shoes"),
        ("a tight blue top and tights, short shorts", "tight blue top", "tights short shorts"),
        ("a small black shoulder bag and knee-high boots", "", "knee-high boots"),
    ],
)
def test_words_go_to_their_garment(caption: str, upper: str, lower: str) -> None:
    assert sets(caption) == (set(upper.split()), set(lower.split()))


def test_order_is_the_caption_s_and_words_come_once() -> None:
    assert group("a red shirt, a red and blue scarf") == (("red", "shirt", "blue", "scarf"), ())


@pytest.mark.parametrize("colour", sorted(COLOURS - {"bright", "camel"}))
def test_every_colour_is_kept_apart_by_the_garments(colour: str) -> None:
    upper, lower = group(f"a person in a {colour} shirt and plain trousers")
    assert upper == (colour, "shirt")
    assert lower == ("plain", "trousers")


def test_every_garment_goes_to_its_half() -> None:
    for word in UPPER:
        assert group(f"wearing a blue {word}") == (("blue", word), ()), word
    for word in LOWER:
        assert group(f"wearing blue {word}") == ((), ("blue", word)), word
    for word in BOTH:
        assert group(f"wearing a blue {word}") == (("blue", word), ("blue", word)), word
    for word in BELONGINGS | BODY:
        assert group(f"with a blue {word}") == ((), ()), word


def test_a_garment_is_in_one_list_only() -> None:
    lists = (UPPER, LOWER, BOTH, BELONGINGS, BODY)
    assert sum(map(len, lists)) == len(frozenset().union(*lists))


WORDS = st.sampled_from(
    [
        "a",
        "the",
        "and",
        ",",
        ".",
        "with",
        "is",
        "red",
        "blue",
        "striped",
        "long",
        "shirt",
        "jeans",
        "dress",
        "bag",
        "hair",
        "shoes",
        "his",
        "black-white",
        "in",
        "of",
        "sleeves",
        "zqx",
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS, max_size=25).map(" ".join)))
def test_any_caption_gives_words_of_the_caption(caption: str) -> None:
    upper, lower = group(caption)
    for words in (upper, lower):
        assert len(set(words)) == len(words)
        for word in words:
            assert word == word.lower() == word.strip(" ,.!?:;")
            assert word in caption.lower()


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_a_new_sentence_changes_nothing_in_the_first(caption: str) -> None:
    first = [set(words) for words in group(caption)]
    both = [set(words) for words in group(f"{caption} . a green hat . a pink skirt .")]
    assert both == [first[0] | {"green", "hat"}, first[1] | {"pink", "skirt"}]


ANSWER = (("black", "long-sleeved", "sweater"), ("blue", "jeans"))


@pytest.mark.parametrize(
    "reply",
    [
        "Upper: black long-sleeved sweater Lower: blue jeans",
        "upper: a black, long-sleeved sweater\nlower: blue jeans.",
        "LOWER: BLUE JEANS\nUPPER: BLACK LONG-SLEEVED SWEATER",
        "Sure! Here it is:\n\n**Upper:** black long-sleeved sweater\n**Lower:** blue jeans\n\nLet me know!",
        "Upper clothing: black long-sleeved sweater; Lower clothing: blue jeans. I hope this helps.",
        "- Upper - black long-sleeved sweater\n- Lower - blue jeans",
        "Upper:\n- black\n- long-sleeved sweater\nLower:\n- blue jeans",
        '{"upper": ["black", "long-sleeved", "sweater"], "lower": ["blue", "jeans"]}',
        "Upper: clothing from the head\nLower: clothing\nUpper: black long-sleeved sweater\nLower: blue jeans",
        "Upper：black long-sleeved sweater Lower：blue jeans",
    ],
)
def test_replies_in_many_forms(reply: str) -> None:
    assert parse_reply(reply) == ANSWER


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Upper: none\nLower: red skirt", ((), ("red", "skirt"))),
        ("Upper: red coat", (("red", "coat"), ())),
        ("Upper:\nLower:", ((), ())),
        ("I can't see the picture.", None),
        ("The upper part is black and the lower part is blue.", None),
        ("supper: rice", None),
        ("", None),
    ],
)
def test_empty_and_malformed_replies(reply: str, expected: object) -> None:
    assert parse_reply(reply) == expected


@given(st.text())
def test_any_reply_is_read_or_refused(text: str) -> None:
    answer = parse_reply(text)
    assert answer is None or len(answer) == 2


@given(
    st.lists(st.sampled_from(["red", "blue", "shirt", "jeans", "striped", "long"]), unique=True, min_size=1),
    st.booleans(),
)
def test_a_reply_round_trips(words: list[str], swap: bool) -> None:
    parts = [f"Upper: {' '.join(words)}", "Lower: socks"]
    assert parse_reply("\n".join(reversed(parts) if swap else parts)) == (tuple(words), ("socks",))


def test_garments_keep_their_own_words() -> None:
    found = garments(
        "A long, black coat, black pants and black shoes with white soles; her hat and scarf are red."
    )
    assert [(garment.head, " ".join(garment.words)) for garment in found] == [
        ("coat", "long black coat"),
        ("pants", "black pants"),
        ("shoes", "black shoes"),
        ("soles", "white soles"),
        ("hat", "hat red"),
        ("scarf", "scarf red"),
    ]
