"""Captions to token ids: byte pair encoding as CLIP does it, with its own vocabulary or one learnt from captions."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from models.backbones.clip.sizes import POSITIONS
from models.texts import PAD_ID, WORDS, PortableTokenizer, TextBatch

START, END, MASK = "<start_of_text>", "<end_of_text>", "<mask>"
SPECIAL = (START, END, MASK)
RELEASED_FILE = "bpe_simple_vocab_16e6.txt.gz"

_FINAL = "</w>"  # ends the last piece of a word
_RELEASED_MERGES = 49152 - 256 - 2  # as many of the file's as CLIP uses
_UNIT = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
# What a caption loses whole: CLIP cuts "t-shirt" and "man's" further.
_WHOLE_WORD = re.compile(r"\w+(?:[-'’]\w+)*")


class ClipTokenizer:
    """CLIP's lower-case byte pair encoding, and a token that stands for a hidden one, which comes after all others.

    The vocabulary is the tokens by id: single letters (of bytes), and for every merge its two parts with a space between
    them, in the order in which they are applied; at last the start, the end and the mask. A token that begins with a space
    is a step on the way to others only; no text has it, and a word that would is left out, as is one with unknown letters.

    Args:
        vocabulary: as `vocabulary` gives it; the mask is added where it is missing.
        length: most tokens of a text, start and end included.

    Raises ValueError for what is no such vocabulary.
    """

    file = "bpe.txt"

    def __init__(self, vocabulary: Sequence[str], length: int = POSITIONS) -> None:
        self.vocabulary = tuple(vocabulary)
        if self.vocabulary[-1:] == (END,):
            self.vocabulary += (MASK,)
        _check(self.vocabulary)
        self.length = length
        self.vocab_size = len(self.vocabulary)
        self.start_id, self.end_id, self.mask_id = range(self.vocab_size - len(SPECIAL), self.vocab_size)
        self._left_out = {number for number, token in enumerate(self.vocabulary) if token.startswith(" ")}
        self._left_out.add(self.mask_id)  # which an unknown letter becomes
        self._tokenizer = _byte_pairs(self.vocabulary)

    @classmethod
    def load(cls, path_or_directory: str | Path) -> ClipTokenizer:
        """From a vocabulary that was trained here, the directory that holds one, or CLIP's own file of merges (.gz).

        CLIP's own, `bpe_simple_vocab_16e6.txt.gz`, need not be there: open_clip brings it. Raises ValueError where there is
        none or it is no such vocabulary.
        """
        path = Path(path_or_directory)
        path = path / cls.file if path.is_dir() else path
        if path.name == RELEASED_FILE and not path.exists():
            path = _shipped()
        if not path.is_file():
            raise ValueError(
                f"no vocabulary at {path}: name {RELEASED_FILE}, CLIP's own, or train one on the captions"
            )
        try:
            if path.suffix == ".gz":
                return cls(_released(gzip.decompress(path.read_bytes()).decode("utf-8")))
            return cls(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
        except (OSError, EOFError, UnicodeDecodeError):
            raise ValueError(f"{path} is no vocabulary of byte pairs: it can't be read as text") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def train(cls, captions: Iterable[str], directory: str | Path, vocab_size: int) -> ClipTokenizer:
        """At most `vocab_size` tokens learnt from the captions, written to `directory/bpe.txt`.

        The same captions give the same file, in whatever order they come. Raises ValueError without captions, and for a
        vocab_size that does not hold their letters.
        """
        words = Counter(word for caption in captions for word in _words(caption))
        if not words:
            raise ValueError("no caption has a word in it: a tokenizer cannot be trained on nothing")
        tokenizer = cls(_learnt(words, vocab_size))
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole: half a vocabulary would be read as one.
        temporary = directory / f".{cls.file}.{os.getpid()}"
        temporary.write_text("".join(f"{token}\n" for token in tokenizer.vocabulary), encoding="utf-8")
        temporary.replace(directory / cls.file)
        return tokenizer

    def of_length(self, length: int) -> ClipTokenizer:
        """The same tokenizer for texts of at most `length` tokens."""
        return self if length == self.length else ClipTokenizer(self.vocabulary, length)

    def __call__(self, captions: Sequence[str]) -> TextBatch:
        """Start, pieces and end of every caption, padded to the longest; one that is too long loses its last pieces.

        The extra "words" numbers the word that a token is part of by the column of its first piece.
        """
        cleaned = [_cleaner()(caption) for caption in captions]
        rows, words = [], []
        for caption, encoding in zip(cleaned, self._tokenizer.encode_batch(cleaned), strict=True):
            kept = self._kept(encoding)
            rows.append([self.start_id, *(encoding.ids[place] for place in kept), self.end_id])
            words.append(_first_columns(self._of_tokens(caption, encoding)))
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = _padded(rows, torch.int64)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return TextBatch(ids, mask, {WORDS: _padded(words, torch.int16)})

    def cut(self, captions: Sequence[str]) -> int:
        """How many captions `tokenizer(captions)` does not hold to their end."""
        encodings = self._tokenizer.encode_batch([_cleaner()(caption) for caption in captions])
        return sum(len(self._known(encoding)) > self.length - 2 for encoding in encodings)

    def words(self, caption: str) -> list[str | None]:
        """For every token of the caption the word it is part of, such as "t-shirt"; None for start, end, commas and the like."""
        cleaned = _cleaner()(caption)
        return [word and word[0] for word in self._of_tokens(cleaned, self._tokenizer.encode(cleaned))]

    def portable(self) -> PortableTokenizer:
        """The same for programs without torch."""
        rules = {
            "unescape": True,
            "dropped": None,
            "max_words": None,
            "left_out_ids": sorted(self._left_out),
            "max_pieces": self.length - 2,
            "first_id": self.start_id,
            "last_id": self.end_id,
        }
        return PortableTokenizer(self._tokenizer.to_str(), rules)

    def _of_tokens(self, cleaned: str, encoding: Encoding) -> list[re.Match | None]:
        """The word of every token of a cut caption, start and end included."""
        words = _words_of(cleaned, encoding)
        return [None, *(words[place] for place in self._kept(encoding)), None]

    def _kept(self, encoding: Encoding) -> list[int]:
        """The places of the tokens that a text has between its start and end."""
        return self._known(encoding)[: self.length - 2]

    def _known(self, encoding: Encoding) -> list[int]:
        """The places of the tokens, less words with a piece that no caption trained: their embeddings would be noise."""
        units = encoding.word_ids
        noise = {unit for unit, number in zip(units, encoding.ids, strict=True) if number in self._left_out}
        return [place for place, unit in enumerate(units) if unit not in noise]


def _words_of(caption: str, encoding: Encoding) -> list[re.Match | None]:
    """For every token the word that it is part of; None for what is no word."""
    word_at: dict[int, re.Match] = {}
    for word in _WHOLE_WORD.finditer(caption):
        word_at |= dict.fromkeys(range(*word.span()), word)
    return [word_at.get(start) for start, _ in encoding.offsets]


def _first_columns(words: Sequence[re.Match | None]) -> list[int]:
    """For every token the first column of its word; its own where it is part of none."""
    first: dict[int, int] = {}
    return [
        column if word is None else first.setdefault(word.start(), column)
        for column, word in enumerate(words)
    ]


def _padded(rows: Sequence[Sequence[int]], dtype: torch.dtype) -> Tensor:
    """(B, L): the rows, filled up to the longest."""
    width = max(map(len, rows), default=0)
    padded = [[*row, *[PAD_ID] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=dtype).reshape(len(rows), width)


# open_clip is imported by who needs it, not at every start: it brings transformers along (0.7 s of processor time).
@cache
def _cleaner() -> Callable[[str], str]:
    """open_clip's cleaning of captions: broken and escaped characters repaired, lower case, single spaces."""
    from open_clip.tokenizer import get_clean_fn

    return get_clean_fn("lower")


def _shipped() -> Path:
    from open_clip.tokenizer import default_bpe

    return Path(default_bpe())


def _splitter() -> Steps:
    """Text to words, in letters that stand for bytes."""
    split = Split(_UNIT, behavior="removed", invert=True)
    return Steps([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def _words(caption: str) -> list[str]:
    return [word for word, _ in _splitter().pre_tokenize_str(_cleaner()(caption))]


def _byte_pairs(vocabulary: Sequence[str]) -> Tokenizer:
    """The encoder of a vocabulary."""
    tokenizer = Tokenizer(_model(vocabulary))
    tokenizer.pre_tokenizer = _splitter()
    return tokenizer


def _model(vocabulary: Sequence[str]) -> BPE:
    entries = [token.removeprefix(" ") for token in vocabulary]
    merges = [tuple(entry.split(" ")) for entry in entries if " " in entry]
    numbers = {entry.replace(" ", ""): number for number, entry in enumerate(entries)}
    return BPE(numbers, merges, end_of_word_suffix=_FINAL, unk_token=MASK)


def _released(text: str) -> list[str]:
    """CLIP's vocabulary from its file of merges: a line about the version, then one merge a line, more than are used."""
    from open_clip.tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = text.split("\n")[1 : 1 + _RELEASED_MERGES]
    return [*letters, *(letter + _FINAL for letter in letters), *merges, START, END]


def _learnt(words: Counter[str], vocab_size: int) -> list[str]:
    """The vocabulary of these words. Deterministic: the trainer numbers the ends of words in the order of a randomly seeded
    hash map and breaks ties between merges by number, so letters are numbered beforehand here."""
    letters = sorted({letter for word in words for letter in word})
    letters += sorted({word[-1] + _FINAL for word in words})
    least = len(letters) + len(SPECIAL)
    if vocab_size < least:
        raise ValueError(
            f"a vocabulary of {vocab_size} tokens does not hold the letters of these captions: {least} or more are needed"
        )
    tokenizer = Tokenizer(BPE(end_of_word_suffix=_FINAL))
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        min_frequency=2,
        special_tokens=letters,
        end_of_word_suffix=_FINAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(words.elements()), trainer)
    merges = [" ".join(parts) for parts in json.loads(tokenizer.to_str())["model"]["merges"]]
    entries = [*letters, *merges]
    encoder = Tokenizer(_model([*entries, *SPECIAL]))
    used = {piece for word in words for piece in encoder.encode(word).tokens}
    return [entry if entry.replace(" ", "") in used else f" {entry}" for entry in entries] + list(SPECIAL)


def _check(vocabulary: Sequence[str]) -> None:
    if vocabulary[-len(SPECIAL) :] != SPECIAL:
        raise ValueError(
            f"it is no vocabulary of byte pairs: it ends otherwise than with {', '.join(SPECIAL)}"
        )
    known: set[str] = set()
    for line, token in enumerate(vocabulary[: -len(SPECIAL)], start=1):
        parts = token.removeprefix(" ").split(" ")
        if len(parts) > 2 or not all(parts) or (len(parts) == 2 and not known.issuperset(parts)):
            raise ValueError(
                f"line {line} of the vocabulary, {token!r}, is no letter and no merge of two tokens before it"
            )
        known.add("".join(parts))
