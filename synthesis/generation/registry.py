"""Generators, editors and person filters by name: where each stands, so that one that is not asked for is not loaded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

GENERATORS = {
    "drawn": "synthesis.generation.drawn_generator:DrawnGenerator",
    "diffusers": "synthesis.generation.diffusion:DiffusionGenerator",
}
EDITORS = {
    "drawn": "synthesis.generation.drawn_editor:DrawnEditor",
    "instruct_pix2pix": "synthesis.generation.instruct_pix2pix:InstructPix2Pix",
}
FILTERS = {
    "torchvision": "synthesis.generation.keypoints:KeypointFilter",
    "ultralytics": "synthesis.generation.ultralytics_keypoints:UltralyticsFilter",
}


def make(table: Mapping[str, str], name: str, options: Mapping[str, Any], **surroundings: Any) -> Any:
    """The named part, made with its options.

    Args:
        table: one of the three above.
        name: a key of it.
        options: of the constructor; a name that it does not have is refused.
        surroundings: handed over where the constructor has a parameter of that name (`synthesis.generation.parts`).

    Raises:
        ValueError: an unknown name or option, with those that there are.
    """
    if name not in table:
        raise ValueError(f"There is no backend '{name}' here; choose one of {', '.join(table)}.")
    module, _, attribute = table[name].partition(":")
    constructor = getattr(importlib.import_module(module), attribute)
    known = [n for n in inspect.signature(constructor).parameters if n not in surroundings]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"The backend '{name}' has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}."
        )
    wanted = inspect.signature(constructor).parameters
    return constructor(**options, **{key: value for key, value in surroundings.items() if key in wanted})
