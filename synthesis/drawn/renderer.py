"""From an identity and a shot to a picture; equal arguments give equal bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from synthesis.drawn.accessories import Bag, Head, paint_phone, paint_thumb
from synthesis.drawn.attributes import Person, sample_person
from synthesis.drawn.background import paint_background, paint_occluder, paint_seat, paint_shadow
from synthesis.drawn.camera import Shot, expose
from synthesis.drawn.figure import SIDES, Body, Pose, sample_pose
from synthesis.drawn.garments import Wardrobe
from synthesis.drawn.layers import Layers
from synthesis.drawn.places import PLACES, paint_place
from synthesis.drawn.worlds import STREET, World

_TALL = 400  # pixels of the supersampled canvas that a crop should reach
_SHEEN = 36.0  # grey levels of relief that even black cloth shows


@dataclass(frozen=True)
class Picture:
    """A rendered crop. `visible` maps a slot ("upper", "bag", "face", ...) to its share of the crop's pixels."""

    image: Image.Image
    view: str
    walking: bool
    visible: dict[str, float] = field(default_factory=dict)


class ProceduralRenderer:
    """Draws people with polygons; about 6 ms an image on one core.

    Args:
        world: whose scenery stands behind people, and whose people walk by.
    """

    def __init__(self, world: World = STREET) -> None:
        self.world = world

    def render(
        self, person: Person, shot: Shot, seed: str, posed: Callable[[Pose], Pose] | None = None
    ) -> Picture:
        """The picture of `person` under the circumstances `shot`; `seed` decides everything left open.

        Args:
            posed: makes another pose of the one that was drawn; clothes, scene and light stay as they are.
        """
        rng = random.Random(f"render/{seed}")
        pose = sample_pose(shot.view, shot.camera.pitch, rng)
        if posed is not None:
            pose = posed(pose)
        columns, rows = shot.size
        factor = max(2, round(_TALL / rows))
        scale = shot.height * rows * factor
        origin = (shot.left * columns * factor, shot.top * rows * factor)
        layers = Layers((columns * factor, rows * factor), origin, scale)
        if shot.crowded:
            _passer_by(layers, self.world, rng)
        paint_shadow(layers)
        draw_person(person, pose, layers, rng)
        if shot.occluded:
            paint_occluder(layers, rng, self.world.scenery)
        if shot.camera.scenes[0] in PLACES:
            scene = paint_place(shot.size, rng.choice(shot.camera.scenes), rng)
        else:
            scene = paint_background(shot.size, shot.camera.scenes, rng, self.world.scenery)
        background = np.asarray(scene, dtype=np.float32)
        colour, coverage, relief = layers.flatten(factor)
        picture = (colour + background * (1 - coverage)) * relief + _SHEEN * (relief - 1) * coverage
        image = expose(picture, shot, rng.getrandbits(32))
        return Picture(image, pose.view, pose.walking, layers.visible())


def draw_person(person: Person, pose: Pose, layers: Layers, rng: random.Random) -> None:
    """Paint a person back to front: what is behind the body, legs, torso, arms, head, what is before it."""
    body = Body(person, pose)
    wardrobe, head, bag = Wardrobe(body, layers, rng), Head(body, layers), Bag(body, layers)
    far_leg, near_leg = sorted(SIDES, key=lambda side: body.depth(body.legs[side][1]))
    far_arm, near_arm = sorted(SIDES, key=lambda side: body.depth(body.arms[side][1]))
    arms_first = [side for side in (far_arm, near_arm) if body.depth(body.arms[side][1]) < -0.04]
    if pose.seat:
        paint_seat(body, layers)
    bag.behind()
    head.behind()
    for side in arms_first:
        wardrobe.arm(side)
    wardrobe.leg(far_leg)
    wardrobe.leg(near_leg)
    wardrobe.hips()
    head.neck()
    wardrobe.torso()
    for side in (far_arm, near_arm):
        if side not in arms_first:
            wardrobe.arm(side)
    bag.before()
    head.front()
    head.side_strands()
    if person.phone:
        paint_phone(body, layers)
    paint_thumb(body, layers)


def _passer_by(layers: Layers, world: World, rng: random.Random) -> None:
    """Another person, partly outside the crop and behind the main one; its slots do not count as visible."""
    side = rng.choice((-1, 1))
    origin, scale = layers.origin, layers.scale
    layers.origin = (origin[0] + side * rng.uniform(0.2, 0.3) * scale, origin[1] - 0.03 * scale)
    layers.scale = scale * rng.uniform(0.84, 0.94)
    layers.prefix = "other "
    stranger = sample_person(rng, world.fashion)
    draw_person(stranger, sample_pose(rng.choice(("front", "back", "left", "right")), 0.08, rng), layers, rng)
    layers.origin, layers.scale, layers.prefix = origin, scale, ""
