"""Captions to token ids: BERT's WordPiece, with word alignment."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor

from models.texts import DROPPED, MOST_WORDS, PAD_ID, WORDS, PortableTokenizer, TextBatch, clean_caption

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
DECODE, ENCODE = "[DEC]", "[ENC]"
RETRIEVAL_LENGTH = 73
CAPTION_LENGTH = 77

_EDGE_PUNCTUATION = " \t,?'`-_/\\[]{}<>|&+=$%^@"


class BlipTokenizer:
    """BERT's uncased WordPiece plus BLIP's `[DEC]` and `[ENC]`, which come after the vocabulary's last id.

    Built from a vocabulary file in BERT's format, one piece per line; with bert-base-uncased's 30,522 the
    tokenizer has 30,524 entries, as BLIP's checkpoints do.

    Args:
        pieces: the vocabulary by id.
        keep_unknown: whether a word of which no piece is known is read as [UNK], as BERT does; False leaves it out.
    """

    file = "vocab.txt"

    def __init__(self, pieces: Sequence[str], keep_unknown: bool = False) -> None:
        self.keep_unknown = keep_unknown
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        _check_vocabulary(pieces, vocabulary)
        for extra in (DECODE, ENCODE):
            vocabulary.setdefault(extra, len(vocabulary))
        self._pieces = [piece for piece, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
        self._tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNKNOWN))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self.vocab_size = len(vocabulary)
        self.pad_id, self.unknown_id = vocabulary[PAD], vocabulary[UNKNOWN]
        self.cls_id, self.sep_id, self.mask_id = vocabulary[CLS], vocabulary[SEP], vocabulary[MASK]
        self.dec_id, self.enc_id = vocabulary[DECODE], vocabulary[ENCODE]
        self.special_ids = frozenset(
            vocabulary[piece] for piece in (PAD, UNKNOWN, CLS, SEP, MASK, DECODE, ENCODE)
        )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All pieces by id, [DEC] and [ENC] included: `BlipTokenizer(vocabulary)` is this tokenizer again."""
        return tuple(self._pieces)

    def keeping_unknown(self, wanted: bool) -> BlipTokenizer:
        """The same vocabulary, with or without [UNK] in captions."""
        return self if wanted == self.keep_unknown else BlipTokenizer(self.vocabulary, wanted)

    @classmethod
    def load(cls, directory_or_vocab: str | Path) -> BlipTokenizer:
        """From a `vocab.txt`, or the directory that holds one.

        Raises ValueError where there is none or it is no BERT vocabulary.
        """
        path = Path(directory_or_vocab)
        path = path / cls.file if path.is_dir() else path
        if not path.is_file():
            raise ValueError(
                f"no vocabulary at {path}: put bert-base-uncased's vocab.txt there (see checkpoint/README.md), "
                "or train one on the captions"
            )
        try:
            pieces = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(
                f"{path} is no text file: a BERT vocabulary has one word piece per line"
            ) from None
        try:
            return cls(pieces)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def train(cls, captions: Iterable[str], directory: str | Path, vocab_size: int = 4096) -> BlipTokenizer:
        """A WordPiece of at most `vocab_size` pieces learned on the captions, written to `directory/vocab.txt`.

        The same captions give the same file, in whatever order they come. Raises ValueError without captions.
        """
        words = Counter(word for caption in captions for word in clean_caption(caption).split())
        if not words:
            raise ValueError("no caption has a word in it: a tokenizer cannot be trained on nothing")
        pieces = _learn_pieces(words, vocab_size)
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole: half a vocabulary would be read as one.
        temporary = directory / f".{cls.file}.{os.getpid()}"
        temporary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
        temporary.replace(directory / cls.file)
        return cls(pieces)

    def __call__(self, captions: Sequence[str], max_length: int = RETRIEVAL_LENGTH) -> TextBatch:
        """[CLS] pieces [SEP] of every caption, cleaned and cut to max_length tokens, padded to the longest.

        The extra "words" numbers the word that a token is part of (see `words`) by the column of its first piece.
        """
        rows, words = [], []
        for cleaned, encoding in self._encode(captions):
            rows.append([self.cls_id, *self._known(encoding)[: max_length - 2], self.sep_id])
            words.append(_first_columns(self._of_tokens(cleaned, encoding, max_length)))
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = _padded(rows, torch.int64)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return TextBatch(ids, mask, {WORDS: _padded(words, torch.int16)})

    def cut(self, captions: Sequence[str]) -> int:
        """How many captions `tokenizer(captions)` does not hold to their end."""
        whole = [clean_caption(caption, max_words=None) for caption in captions]
        encodings = self._tokenizer.encode_batch(whole)
        return sum(
            text != clean_caption(text) or len(self._known(encoding)) > RETRIEVAL_LENGTH - 2
            for text, encoding in zip(whole, encodings, strict=True)
        )

    def portable(self) -> PortableTokenizer:
        """The same for programs without torch."""
        rules = {
            "unescape": False,
            "dropped": DROPPED.pattern,
            "max_words": MOST_WORDS,
            "left_out_ids": [] if self.keep_unknown else [self.unknown_id],
            "max_pieces": RETRIEVAL_LENGTH - 2,
            "first_id": self.cls_id,
            "last_id": self.sep_id,
        }
        return PortableTokenizer(self._tokenizer.to_str(), rules)

    def prompt_ids(self, prompt: str) -> list[int]:
        """What a decoder starts from: [DEC] and the prompt's pieces, no [SEP]."""
        ((_, encoding),) = self._encode([prompt])
        return [self.dec_id, *self._known(encoding)]

    def words(self, caption: str, max_length: int = RETRIEVAL_LENGTH) -> list[str | None]:
        """For every token of the caption the word it is part of; None for [CLS], [SEP] and commas and the like.

        A word is what stands between spaces in the cleaned caption, less the punctuation at its ends.
        """
        ((cleaned, encoding),) = self._encode([caption])
        return [word and word.text for word in self._of_tokens(cleaned, encoding, max_length)]

    def word_mask(
        self, captions: Sequence[str], words: Sequence[Collection[str]], max_length: int = RETRIEVAL_LENGTH
    ) -> Tensor:
        """Bool (B, L) beside `tokenizer(captions, max_length)`: True at every token whose word is in words[b].

        Words are compared whole and in lower case: neither "her" nor "leat" is in "leather".
        """
        if len(captions) != len(words):
            raise ValueError(f"{len(captions)} captions but {len(words)} word collections: they must pair up")
        rows = []
        for (cleaned, encoding), chosen in zip(self._encode(captions), words, strict=True):
            wanted = {_bare(word) for entry in chosen for word in clean_caption(entry).split()}
            of_tokens = self._of_tokens(cleaned, encoding, max_length)
            rows.append([word is not None and word.text in wanted for word in of_tokens])
        return _padded(rows, torch.bool)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of the pieces, special tokens left out, pieces of one word joined."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else ids
        pieces = [self._pieces[number] for number in numbers if number not in self.special_ids]
        text = " ".join(pieces).replace(" ##", "").removeprefix("##")
        text = re.sub(r" ([,?])", r"\1", text)
        return re.sub(r" ?([-'/]) ?", r"\1", text)

    def _known(self, encoding: Encoding, values: list | None = None) -> list:
        """The ids of an encoding (or one value per token of it) without [UNK]: a word of which no piece is known says
        nothing, and its embedding, which no caption trained, would be noise. With `keep_unknown` all of them."""
        values = encoding.ids if values is None else values
        if self.keep_unknown:
            return list(values)
        return [
            value for value, number in zip(values, encoding.ids, strict=True) if number != self.unknown_id
        ]

    def _of_tokens(self, cleaned: str, encoding: Encoding, max_length: int) -> list[_Word | None]:
        """The word of every token of a cut caption, [CLS] and [SEP] included."""
        return [None, *self._known(encoding, _words_of(cleaned, encoding))[: max_length - 2], None]

    def _encode(self, captions: Sequence[str]) -> list[tuple[str, Encoding]]:
        """Every caption cleaned, and its pieces."""
        cleaned = [clean_caption(caption) for caption in captions]
        return list(zip(cleaned, self._tokenizer.encode_batch(cleaned), strict=True))


class _Word(NamedTuple):
    """A word of a cleaned caption, and at which character it begins."""

    start: int
    text: str


def _bare(word: str) -> str:
    return word.strip(_EDGE_PUNCTUATION)


def _words_of(cleaned: str, encoding: Encoding) -> list[_Word | None]:
    """The space-separated word at every token's offset: BERT's own pre-tokens would cut "t-shirt" in three."""
    word_at: list[_Word | None] = [None] * len(cleaned)
    for match in re.finditer(r"\S+", cleaned):
        word = _bare(match.group())
        start = match.start() + match.group().find(word)
        word_at[start : start + len(word)] = [_Word(start, word)] * len(word)
    return [word_at[start] for start, _ in encoding.offsets]


def _first_columns(words: Sequence[_Word | None]) -> list[int]:
    """For every token the first column of its word; its own where it is part of none."""
    first: dict[_Word | int, int] = {}
    return [first.setdefault(word or column, column) for column, word in enumerate(words)]


def _padded(rows: Sequence[Sequence[int]], dtype: torch.dtype) -> Tensor:
    """(B, L): the rows, filled up with zeros to the longest."""
    width = max(map(len, rows), default=0)
    padded = [[*row, *[0] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=dtype).reshape(len(rows), width)


def _check_vocabulary(pieces: Sequence[str], vocabulary: Mapping[str, int]) -> None:
    absent = [piece for piece in (PAD, UNKNOWN, CLS, SEP, MASK) if piece not in vocabulary]
    if absent:
        raise ValueError(
            f"not a BERT vocabulary, it lacks {', '.join(absent)}: expected one word piece per line"
        )
    if vocabulary[PAD] != PAD_ID:
        raise ValueError(f"{PAD} must be the first line of a BERT vocabulary")
    if len(vocabulary) != len(pieces):
        twice = next(piece for piece, count in Counter(pieces).items() if count > 1)
        raise ValueError(f"the piece {twice!r} is in the vocabulary twice, so ids would be ambiguous")


def _learn_pieces(words: Counter[str], vocab_size: int) -> list[str]:
    """WordPieces for these words. Deterministic: the trainer numbers continuation characters in the order of a
    randomly seeded hash map, and breaks ties between merges by number, so they are numbered beforehand here."""
    tokenizer = Tokenizer(WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    normalised = " ".join(tokenizer.normalizer.normalize_str(word) for word in words)
    parts = {part for part, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised)}
    inner = sorted({f"##{letter}" for part in parts for letter in part[1:]})
    special = [PAD, UNKNOWN, CLS, SEP, MASK]
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=special + inner, show_progress=False
    )
    tokenizer.train_from_iterator(sorted(words.elements()), trainer)
    vocabulary = tokenizer.get_vocab()
    # Pieces that no caption uses would keep the random embeddings they start with: a word that is spelled with them
    # is better left out than read as noise (on the demo, 22 -> 31 % Rank-1 on val).
    used = {piece for word in words for piece in tokenizer.encode(word).tokens}
    kept = [piece for piece in vocabulary if piece in used or piece in special]
    return sorted(kept, key=vocabulary.__getitem__)
