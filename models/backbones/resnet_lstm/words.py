"""Captions to ids of whole words, of a vocabulary learnt from the training captions."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from models.texts import DROPPED, PAD_ID, PortableTokenizer, TextBatch, clean_caption

MOST_WORDS = 100
LEAST_COUNT = 2
_UNKNOWN = "[UNK]"  # no word: it has brackets

# Letters and digits; a hyphen or an apostrophe between them is part of the word.
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")


def words_of(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation: "A T-shirt, blue." is a, t-shirt, blue."""
    return _WORD.findall(clean_caption(caption, max_words=MOST_WORDS))


class Words:
    """SSAN's word vocabulary: ids 1, 2, ... in order, 0 for padding, and no token at a caption's start or end.

    A word that it does not know is left out of a caption. One without any known word is a row of padding.

    Args:
        vocabulary: the words by id, the first of which has id 1.

    Raises ValueError for a vocabulary without words, with a word twice, or with what `words_of` would never give.
    """

    file = "words.txt"

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        _check(self.vocabulary)
        self._ids = {word: number for number, word in enumerate(self.vocabulary, start=PAD_ID + 1)}
        self.vocab_size = len(self.vocabulary) + 1

    @classmethod
    def load(cls, path_or_directory: str | Path) -> Words:
        """From a `words.txt`, one word per line, or the directory that holds one.

        Raises ValueError where there is none or it is no such vocabulary.
        """
        path = Path(path_or_directory)
        path = path / cls.file if path.is_dir() else path
        if not path.is_file():
            raise ValueError(
                f"no word vocabulary at {path}: train one on the captions, or name the one that was"
            )
        try:
            return cls(path.read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text file: a word vocabulary has one word per line") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def train(cls, captions: Iterable[str], directory: str | Path, vocab_size: int) -> Words:
        """The words that occur at least twice, in the order they first do, written to `directory/words.txt`.

        At most vocab_size ids, that of padding included: of more words the most frequent, of equally frequent ones the
        first. Raises ValueError where no word occurs twice.
        """
        counts = Counter(word for caption in captions for word in words_of(caption))
        often = {word for word, count in counts.most_common(vocab_size - 1) if count >= LEAST_COUNT}
        if not often:
            raise ValueError(
                f"no word occurs {LEAST_COUNT} times in the captions: a vocabulary needs more of them"
            )
        vocabulary = cls([word for word in counts if word in often])
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole: half a vocabulary would be read as one.
        temporary = directory / f".{cls.file}.{os.getpid()}"
        temporary.write_text("".join(f"{word}\n" for word in vocabulary.vocabulary), encoding="utf-8")
        temporary.replace(directory / cls.file)
        return vocabulary

    def __call__(self, captions: Sequence[str], max_length: int = MOST_WORDS) -> TextBatch:
        """The known words of every caption, at most max_length, padded to the longest and to one column at least."""
        rows = [[self._ids[word] for word in self.words(caption)[:max_length]] for caption in captions]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        width = max([1, *map(len, rows)])
        ids = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows], dtype=torch.int64)
        return TextBatch(ids.reshape(len(rows), width), torch.arange(width) < lengths[:, None])

    def words(self, caption: str) -> list[str]:
        """The words of a caption that are known, of which each is a token."""
        return [word for word in words_of(caption) if word in self._ids][:MOST_WORDS]

    def portable(self) -> PortableTokenizer:
        """The same for programs without torch."""
        unknown = self.vocab_size  # the id after the last, which no text keeps
        tokenizer = Tokenizer(WordLevel({**self._ids, _UNKNOWN: unknown}, unk_token=_UNKNOWN))
        tokenizer.pre_tokenizer = Split(Regex(_WORD.pattern), behavior="removed", invert=True)
        rules = {
            "unescape": False,
            "dropped": DROPPED.pattern,
            "max_words": MOST_WORDS,
            "left_out_ids": [unknown],
            "max_pieces": MOST_WORDS,
            "first_id": None,
            "last_id": None,
        }
        return PortableTokenizer(tokenizer.to_str(), rules)

    def cut(self, captions: Sequence[str]) -> int:
        """How many captions have more words than are looked at."""
        return sum(
            len(_WORD.findall(clean_caption(caption, max_words=None))) > MOST_WORDS for caption in captions
        )


def _check(vocabulary: Sequence[str]) -> None:
    if not vocabulary:
        raise ValueError("the vocabulary has no word in it: train one on the captions")
    for line, word in enumerate(vocabulary, start=1):
        if words_of(word) != [word]:
            raise ValueError(
                f"line {line} of the vocabulary, {word!r}, is no word in lower case: expected one per line"
            )
    if len(set(vocabulary)) != len(vocabulary):
        twice = next(word for word, count in Counter(vocabulary).items() if count > 1)
        raise ValueError(f"the word {twice!r} is in the vocabulary twice, so ids would be ambiguous")
