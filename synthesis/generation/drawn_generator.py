"""The generator that needs no weights: a prompt's attributes as a drawn person."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from synthesis.drawn.camera import encode_jpeg, sample_shot
from synthesis.drawn.figure import Pose
from synthesis.drawn.renderer import ProceduralRenderer
from synthesis.generation.drawn_people import ALL_WORLDS, IMAGINED, camera_of, person_of
from synthesis.generation.parts import Prompt


class DrawnGenerator:
    """Draws people with polygons, about a hundred a second on one core; the text's attributes decide, the text is not read.

    Args:
        world: whose cameras, places and light the pictures have: "imagined", or one of `synthesis.drawn.worlds`.
    """

    name = "drawn"

    def __init__(self, world: str = IMAGINED.name) -> None:
        if world not in ALL_WORLDS:
            raise ValueError(
                f"The drawn generator has no world '{world}'; choose one of {', '.join(ALL_WORLDS)}."
            )
        self.world = ALL_WORLDS[world]
        self._renderer = ProceduralRenderer(self.world)

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Image.Image]:
        """See `synthesis.generation.parts.Generator`."""
        return [self.draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def draw(
        self, prompt: Prompt, seed: int, place: str = "", posed: Callable[[Pose], Pose] | None = None
    ) -> Image.Image:
        """The picture of one prompt and seed; the same person, size and light in another place or pose.

        Args:
            place: one of `synthesis.drawn.places.PLACES`; empty: where the world's camera stands.
            posed: makes another pose of the one that the seed gives.
        """
        rng = random.Random(f"drawn/{seed}")
        person = person_of(prompt.attributes, rng, self.world)
        camera, view = camera_of(prompt.attributes, rng, self.world)
        shot = sample_shot(camera, view, rng, self.world.optics)
        if place:
            shot = replace(shot, camera=replace(camera, scenes=(place,)))
        picture = self._renderer.render(person, shot, str(seed), posed)
        with Image.open(io.BytesIO(encode_jpeg(picture.image, shot))) as stored:
            return stored.convert("RGB")
