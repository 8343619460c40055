"""A data set of generated people, as `gen_images.py` makes them."""

from __future__ import annotations

from pathlib import Path

from data.annotation import Annotation


class Synthetic(Annotation):
    """Generated people with the captions and identities that their making gives them.

    Nothing is published about such a set: its counts are what its configuration asks for, and each has its own.

    Layout: `synthetic.json` (`split file_path id captions`; other keys, such as what an image was generated from, are not
    read) beside `imgs/`, in the folder itself or in one named `synthetic`.
    """

    name = "synthetic"
    folder = "synthetic"
    files = ("synthetic.json",)
    image_key = "file_path"
    source = "gen_images.py"
    terms = "Generated images: they show nobody who exists. What made them may have terms of its own."
    expected = None

    @classmethod
    def _how_to_get_it(cls) -> str:
        return f"it is made by {cls.source}"

    @classmethod
    def _remedy(cls, root: Path) -> str:
        return (
            f"A synthetic set is made by {cls.source}: run it first, or set its folder to where the set lies."
        )
