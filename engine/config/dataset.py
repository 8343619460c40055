"""Which images: the data set, the demo that is drawn as one, and a second one for the clustering."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from data import DATASETS
from engine.config.section import Count, Positive, Section


class SynthesisConfig(Section):
    """Demo pedestrians, drawn when the data set's folder is not there yet (``synthesis.demo``)."""

    train: Positive = 400
    val: Count = 50
    test: Positive = 100
    images: Positive = 4
    seed: Count = 0
    world: Literal["street", "source", "target"] = "street"  # synthesis/drawn/worlds.py


class DatasetConfig(Section):
    """Which images; see ``docs/datasets.md`` for the layout on disk."""

    name: str = "cuhk_pedes"  # a class in data/
    tag: str = ""  # short name in output paths; empty: the data set's name
    root: str = "datasets"
    synthesis: SynthesisConfig | None = None
    image_cache: bool = True  # decode and resize once, train from a memory map
    skip_unreadable: bool = False

    @field_validator("name")
    @classmethod
    def _is_there(cls, value: str) -> str:
        """Refused here, because the first stage that opens the data set may come hours later."""
        if value not in DATASETS:
            raise ValueError(f"There is no such data set; choose one of {', '.join(DATASETS)}")
        return value

    @property
    def label(self) -> str:
        """The name used in paths and results."""
        return self.tag or self.name


class SourceConfig(DatasetConfig):
    """Another data set, whose training images and captions every round's model encodes for the clustering's source term."""

    captions: Literal["own", "generated"] = "own"
    pre_gen_data: str = ""  # folder of the generated ones; empty: pre_gen_data/<its tag or name>
