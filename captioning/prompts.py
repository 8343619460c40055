"""What the backends are asked, and how a question is recognised again.

Every prompt is one of seven kinds. A backend that understands language simply answers it; one that does not (the
`palette` backend reads pixels only) asks `kind_of` what is wanted and `payload_of` for the text inside.

Kinds:
    base        describe the clothing, beginning with "The man is wearing" or "The woman is wearing" (stage A)
    styled      the same, continuing a given opening (stage A)
    simplify    shorten a caption without losing clothing
    attributes  sort a caption's clothing into "Upper: ..." and "Lower: ..."
    fixed       fill the template of one fixed style from an image, or rewrite a query into it (text style
                normalisation, TSN)
    constant    one sentence with everything that describes the person, for generated images (SynTBPR)
    variable    the same in the style of one of `captioning.templates`
"""

from __future__ import annotations

from typing import Literal

from captioning.gender import Gender
from captioning.templates import Template

Kind = Literal["base", "styled", "simplify", "attributes", "fixed", "constant", "variable"]
Stage = Literal["A", "C"]

# A base caption longer than this is sent to the text model to be simplified (characters; methods.md 1.1).
SIMPLIFY_ABOVE = 50

BASE_PROMPT = (
    "Look at the person in this picture and describe what they wear and how they look, nothing else: clothes, "
    "shoes, hair, bags and other things worn or carried, each with its colour. First decide whether the person is "
    'a man or a woman. Write one sentence that begins with "The man is wearing" or "The woman is wearing". '
    "Leave out the background, the pose, guesses and opinions."
)

STYLED_PROMPT = (
    "Look at the person in this picture and describe what they wear and how they look, nothing else: clothes, "
    "shoes, hair, bags and other things worn or carried, each with its colour. Write one sentence that begins with "
    'exactly these words: "{opening}". Leave out the background, the pose, guesses and opinions.'
)

SIMPLIFY_PROMPT = (
    "Shorten this description of a person. Keep the way it begins, and keep only what is said about clothing and "
    "appearance, in the same style and without adding anything. Answer with the shortened description alone.\n"
    "Description: {caption}"
)

ATTRIBUTE_PROMPT = (
    "Sort the clothing in this description of a person by where it is worn. Answer in exactly this form, copying "
    "the words of the description and leaving a part empty if nothing is said about it:\n"
    "Upper: clothing from the head to the waist\n"
    "Lower: clothing from the waist to the feet, shoes included\n"
    "Description: {caption}"
)

# TSN's slots, in its order; the three groups are sentences of their own so that a missing one can be left out.
FIXED_TEMPLATE = (
    "The {gender} is wearing {upper colour} {upper garment}, {lower colour} {lower garment} and {shoe colour} "
    "{shoes}. The {gender} has {hairstyle} {hair colour} hair and is {age group}. The {gender} carries {belongings}."
)

FIXED_PROMPT = (
    "Fill in this template for the person in the picture. Replace every part in braces by one or a few plain "
    "words, drop a part that cannot be seen, change nothing else, and answer with the filled template alone.\n"
    f"Template: {FIXED_TEMPLATE}"
)

FIXED_REWRITE_PROMPT = (
    "Rewrite this description of a person in the form of the template. Replace every part in braces by words of "
    "the description, leave out every part that the description does not mention, add nothing, and answer with "
    f"the filled template alone.\nTemplate: {FIXED_TEMPLATE}\n"
    "Description: {caption}"
)

CONSTANT_PROMPT = (
    "Give one sentence about the person in this picture that names age, gender, upper garment, lower garment, hair, shoes and "
    "belongings, each with its colour and style. Leave out the background, the pose, guesses and opinions, and answer with the "
    "sentence alone."
)

VARIABLE_PROMPT = (
    "Describe the person in this picture by gender, upper garment, lower garment, hair, shoes and belongings, each with its colour, "
    "in a style similar to the example below. Put person, man or woman in the place of [person], words of your own in the places "
    "of the other brackets, leave out what is not visible, invent nothing, and answer with the description alone.\n"
    "Example: {template}"
)

# The captioner (stages B and C) is trained and asked with this question for the base caption.
CAPTIONER_QUESTION = "what does a man or woman wear?"

OPENINGS_STAGE_A: dict[Gender, tuple[str, ...]] = {
    "male": ("he is wearing", "the man wears", "a man wears", "the boy has", "a man in"),
    "female": ("she is wearing", "the woman wears", "a woman wears", "the girl has", "a woman in"),
    "unknown": (
        "the person wears",
        "this person is wearing",
        "a person in",
        "the pedestrian has",
        "someone wearing",
    ),
}
OPENINGS_STAGE_C: dict[Gender, tuple[str, ...]] = {
    "male": ("he is wearing", "the man wears", "a man in"),
    "female": ("she is wearing", "the woman wears", "a woman in"),
    "unknown": ("the person wears", "this person is wearing", "a person in"),
}

_DESCRIPTION = "\nDescription: "
_EXAMPLE = "\nExample: "


def opening(gender: Gender, index: int, stage: Stage = "A") -> str:
    """The opening of the `index`-th styled caption: it rotates within the gender's group.

    Args:
        gender: "male", "female" or "unknown" (`captioning.gender.gender_of`).
        index: any integer, usually the image's position in the sample.
        stage: "A" (five openings per group) or "C" (three).
    """
    groups = {"A": OPENINGS_STAGE_A, "C": OPENINGS_STAGE_C}
    if stage not in groups:
        raise ValueError(f"There is no stage {stage!r} with openings; choose 'A' or 'C'.")
    if gender not in groups[stage]:
        raise ValueError(f"Unknown gender {gender!r}; choose one of {', '.join(groups[stage])}.")
    group = groups[stage][gender]
    return group[index % len(group)]


def base_prompt() -> str:
    """The question for a base caption."""
    return BASE_PROMPT


def styled_prompt(opening: str) -> str:
    """The question for a caption that begins with `opening`."""
    return STYLED_PROMPT.replace("{opening}", opening)


def simplify_prompt(caption: str) -> str:
    """The request to shorten `caption`."""
    return SIMPLIFY_PROMPT.replace("{caption}", caption)


def attribute_prompt(caption: str) -> str:
    """The request to sort the clothing of `caption`; read the answer with `captioning.attributes.parse_reply`."""
    return ATTRIBUTE_PROMPT.replace("{caption}", caption)


def fixed_prompt() -> str:
    """The request to fill the fixed-style template from an image."""
    return FIXED_PROMPT


def fixed_rewrite_prompt(caption: str) -> str:
    """The request to rewrite a query into the fixed style."""
    return FIXED_REWRITE_PROMPT.replace("{caption}", caption)


def constant_prompt() -> str:
    """The question for a sentence that names everything."""
    return CONSTANT_PROMPT


def variable_prompt(template: Template) -> str:
    """The question for a caption in the style of a template."""
    return VARIABLE_PROMPT.replace("{template}", template.text)


def example_of(prompt: str) -> str:
    """The text of the template inside a variable prompt."""
    return prompt.partition(_EXAMPLE)[2]


def kind_of(prompt: str) -> Kind:
    """Which kind of prompt this is, recognised by its fixed beginning.

    Raises:
        ValueError: the prompt was not made by this module.
    """
    for kind, template in _TEMPLATES:
        if prompt.startswith(template.split("{opening}")[0].split(_DESCRIPTION)[0].split(_EXAMPLE)[0]):
            return kind
    raise ValueError(
        f"This prompt is none of captioning.prompts ({prompt[:40]!r}...): only a language model can answer it; "
        "use the openai or transformers backend for prompts of your own."
    )


def payload_of(prompt: str) -> str | None:
    """The caption inside a simplify, attributes or rewriting prompt; None where the prompt is about an image."""
    _, mark, caption = prompt.partition(_DESCRIPTION)
    return caption if mark else None


# Distinct from the first words on, except that both image prompts share a sentence: `base` asks for the gender.
_TEMPLATES: tuple[tuple[Kind, str], ...] = (
    ("base", BASE_PROMPT),
    ("styled", STYLED_PROMPT),
    ("simplify", SIMPLIFY_PROMPT),
    ("attributes", ATTRIBUTE_PROMPT),
    ("fixed", FIXED_PROMPT),
    ("fixed", FIXED_REWRITE_PROMPT),
    ("constant", CONSTANT_PROMPT),
    ("variable", VARIABLE_PROMPT),
)
