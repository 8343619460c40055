"""Edits of drawn people: another place or pose is drawn again from the prompt, weather and styles are filters."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from PIL import Image

from synthesis.drawn.figure import Pose
from synthesis.generation.drawn_generator import DrawnGenerator
from synthesis.generation.drawn_people import IMAGINED
from synthesis.generation.effects import EFFECTS
from synthesis.generation.parts import Edit, Prompt

_HANGING = (0.05, 0.3)
POSTURES: Mapping[str, Callable[[Pose], Pose]] = {
    "sitting": lambda pose: replace(pose, seat=1.35, stride=0.06, arms=((0.35, 0.9), (0.35, 0.9))),
    "raising hands": lambda pose: replace(pose, stride=0.04, arms=((1.9, 1.0), (1.9, 1.0))),
    "thumb up": lambda pose: replace(pose, stride=0.04, arms=((0.5, 1.9), _HANGING), thumb=-1),
    "running": lambda pose: replace(
        pose, stride=_signed(0.72, pose.stride), arm_swing=_signed(-0.8, pose.stride), elbow=1.5, bend=1.7
    ),
    "walking": lambda pose: replace(
        pose, stride=_signed(0.38, pose.stride), arm_swing=_signed(-0.32, pose.stride), elbow=0.3
    ),
}


class DrawnEditor:
    """Edits what `DrawnGenerator` has drawn.

    Args:
        world: that of the generator.
    """

    name = "drawn"

    def __init__(self, world: str = IMAGINED.name) -> None:
        self._generator = DrawnGenerator(world)

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
        edits: Sequence[Edit],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """See `synthesis.generation.parts.Editor`.

        Raises:
            ValueError: an image that was not drawn from its prompt and seed.
        """
        entries = zip(images, prompts, edits, seeds, strict=True)
        return [self._edited(image, prompt, edit, seed) for image, prompt, edit, seed in entries]

    def _edited(self, image: Image.Image, prompt: Prompt, edit: Edit, seed: int) -> Image.Image:
        if (edit.kind, edit.name) in EFFECTS:
            effect = EFFECTS[edit.kind, edit.name]
            return effect(image.convert("RGB"), random.Random(f"{edit}/{seed}"))
        if edit.kind == "background":
            drawn = self._generator.draw(prompt, seed, place=edit.name)
        else:
            drawn = self._generator.draw(prompt, seed, posed=POSTURES[edit.name])
        if drawn.size != image.size:
            raise ValueError(
                "The drawn editor draws people again from their prompts, so it edits what the drawn generator made in the same "
                "world, uncropped: set gen_images.filter to {backend: none}."
            )
        return drawn


def _signed(size: float, like: float) -> float:
    return size if like >= 0 else -size
