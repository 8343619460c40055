"""Captions as every text encoder takes them: cleaned, and as batches of token ids that can be cut and joined.

What makes the ids is a backbone's own tokenizer; `TextTokenizer` says what the rest of the project asks of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from models.eager import eager_on_cpu

PAD_ID = 0
WORDS = "words"  # the extra of a tokenizer that spells words in pieces

MOST_WORDS = 72  # of a caption, BLIP's
DROPPED = re.compile(r'[.!"()*#:;~]')


def clean_caption(text: str, max_words: int | None = MOST_WORDS) -> str:
    """BLIP's caption cleaning: lower case, `. ! " ( ) * # : ; ~` to spaces, single spaces, at most max_words if not None."""
    return " ".join(DROPPED.sub(" ", text.lower()).split()[:max_words])


@dataclass(frozen=True)
class TextBatch:
    """Tokenised captions, padded on the right to the longest.

    ids (B, L) int64; mask (B, L) bool, True at tokens and False at padding; extras: further (B, L) tensors
    that follow the tokens through indexing, trimming and joining (masks of attribute words, say).
    `full` is True when it is known, without asking the device, that nothing is padding: attention then
    needs no mask.
    """

    ids: Tensor
    mask: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    full: bool | None = None

    def __post_init__(self) -> None:
        for name, tensor in {"mask": self.mask, **self.extras}.items():
            if tensor.shape != self.ids.shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, the ids {tuple(self.ids.shape)}: they must agree"
                )
        if self.full is None:
            object.__setattr__(self, "full", eager_on_cpu(self.mask) and bool(self.mask.all()))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def words(self) -> Tensor:
        """(B, L) int64, below L: one number for all tokens of a word. Without the extra "words" every token is a word."""
        if WORDS in self.extras:
            return self.extras[WORDS].long()
        return torch.arange(self.ids.shape[1], device=self.ids.device).expand(self.ids.shape)

    def _map(self, change, full: bool | None) -> TextBatch:
        extras = {name: change(tensor) for name, tensor in self.extras.items()}
        return TextBatch(change(self.ids), change(self.mask), extras, full)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> TextBatch:
        """The captions at `rows` (a slice, an index or boolean tensor, or a list), same padding."""
        if isinstance(rows, int):
            rows = slice(rows, rows + 1 or None)
        return self._map(lambda tensor: tensor[rows], self.full or None)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextBatch:
        """The same batch on another device; itself where it is there already."""
        if self.ids.device == torch.device(device):
            return self
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking), self.full)

    def pin_memory(self) -> TextBatch:
        """Page-locked copies, which torch's DataLoader asks for by this name."""
        return self._map(lambda tensor: tensor.pin_memory(), self.full)

    def trim(self) -> TextBatch:
        """Without the columns that are padding in every caption (reads the mask: do it before moving to a GPU)."""
        used = int(self.mask.any(0).sum())
        return self if used == self.ids.shape[1] else self._map(lambda tensor: tensor[:, :used], None)

    def widened(self, width: int) -> TextBatch:
        """The same captions padded to `width` columns, and never `full`: batches of one width then pass through one graph."""
        room = (0, width - self.ids.shape[1])
        return self._map(lambda tensor: torch.nn.functional.pad(tensor, room), False)

    def without(self, dropped: Tensor) -> TextBatch:
        """Without the tokens at `dropped` (B, L) bool: those after them move up. The first and the last token stay."""
        last = self.mask.sum(1, keepdim=True) - 1
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        kept = self.mask & (~dropped | (columns == 0) | (columns == last))
        order = (~kept).long().argsort(dim=1, stable=True)
        mask = kept.gather(1, order)
        return self._map(lambda tensor: tensor.gather(1, order) * mask.to(tensor.dtype), None).trim()

    def with_extras(self, **extras: Tensor) -> TextBatch:
        """The same captions with these (B, L) tensors besides the extras there are."""
        return TextBatch(self.ids, self.mask, {**self.extras, **extras}, self.full)

    @staticmethod
    def cat(batches: Sequence[TextBatch]) -> TextBatch:
        """One batch of all captions in order, padded to the longest. Raises ValueError where the extras differ."""
        if not batches:
            raise ValueError("no text batch to join: give at least one")
        names = set(batches[0].extras)
        if any(set(batch.extras) != names for batch in batches):
            raise ValueError(
                "text batches with different extras cannot be joined: prepare all of them the same way"
            )
        width = max(batch.ids.shape[1] for batch in batches)

        def joined(tensors: list[Tensor]) -> Tensor:
            return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1])) for one in tensors])

        extras = {name: joined([batch.extras[name] for batch in batches]) for name in batches[0].extras}
        full = all(batch.full and batch.ids.shape[1] == width for batch in batches)
        return TextBatch(joined([b.ids for b in batches]), joined([b.mask for b in batches]), extras, full)


@dataclass(frozen=True)
class PortableTokenizer:
    """A tokenizer for programs that have the package `tokenizers` and neither torch nor this project.

    Such a program does what `rules` say, in their order:

    - unescape: HTML's escapes become the characters that they stand for, twice;
    - then the text is made lower case, what the expression `dropped` finds (None: nothing) becomes a space, and of what stands
      between spaces the first `max_words` (None: all) are joined by single spaces;
    - the file `json` gives the pieces; a word (`word_ids`) with a piece in `left_out_ids` is left out;
    - the first `max_pieces` stay, between `first_id` and `last_id` where these are not None.

    The tokenizer here does one thing more: CLIP's repairs characters that were decoded wrongly (ftfy).
    """

    json: str
    rules: dict[str, Any]


class TextTokenizer(Protocol):
    """A backbone's tokenizer: made from its vocabulary alone, so that a checkpoint can hold it.

    Attributes:
        file: name of the file that holds a vocabulary, in whatever directory.
        vocabulary: the entries by id; `TokenizerClass(vocabulary)` is the same tokenizer again.
    """

    file: ClassVar[str]
    vocabulary: tuple[str, ...]

    def __init__(self, vocabulary: Sequence[str]) -> None: ...

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """From a vocabulary's file or the directory that holds one; ValueError where there is none."""

    @classmethod
    def train(cls, captions: Iterable[str], directory: str | Path, vocab_size: int) -> TextTokenizer:
        """A vocabulary of these captions, at most `vocab_size` entries where that can be chosen, kept in `directory`."""

    def __call__(self, captions: Sequence[str]) -> TextBatch:
        """Token ids of captions, cleaned, cut to what the text encoder reads and padded to the longest."""

    def cut(self, captions: Sequence[str]) -> int:
        """How many of these captions lose their end by that."""

    def words(self, caption: str) -> Sequence[str | None]:
        """For every token of `tokenizer([caption])` the word it is part of; None for what is part of none."""

    def portable(self) -> PortableTokenizer:
        """The same vocabulary and rules for programs without torch."""
