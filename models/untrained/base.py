"""What a backbone is with its released weights and nothing that was trained here: enough to search with (zero-shot)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn

from models.batch import Batch, TrainingCaption
from models.methods.base import Method


class Untrained(Method):
    """A backbone alone, under its own name.

    Class attributes:
        vocabulary: what its released weights were trained with, as a configuration names it.
    """

    supervision = "labels"
    vocabulary: ClassVar[str]

    def prepare(self, captions: Sequence[TrainingCaption]) -> NoReturn:
        raise TypeError(f"{self.name} has no losses: it is searched with as it was released")

    def losses(self, batch: Batch) -> NoReturn:
        raise TypeError(f"{self.name} has no losses: it is searched with as it was released")
