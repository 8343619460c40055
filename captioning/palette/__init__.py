"""Reading a person's appearance from pixels alone: regions, colours, attributes and the words for them."""

from __future__ import annotations

from PIL import Image

from captioning.palette.colours import NEUTRAL, Light
from captioning.palette.description import Description, Reading
from captioning.palette.reading import read_description
from captioning.palette.regions import read_figure
from captioning.palette.wording import sentence

__all__ = ["Description", "Reading", "describe", "sentence"]


def describe(image: Image.Image, light: Light = NEUTRAL) -> Description:
    """The attributes of the person in a crop, each with its confidence.

    Args:
        image: a person crop of any size and mode.
        light: of the camera, where it is known (`palette.light.lights`).
    """
    return read_description(read_figure(image, light))
