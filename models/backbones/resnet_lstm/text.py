"""The text encoder: two word embeddings, an LSTM in both directions, and words weighed anew for every part."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.backbones.attention import Dropout
from models.backbones.resnet_lstm.sizes import Size
from models.backbones.resnet_lstm.words import MOST_WORDS
from models.texts import PAD_ID


class BiLstm(nn.Module):
    """Two LSTMs without biases, the second on the words in reverse, their states averaged.

    It gives what a packed bidirectional `nn.LSTM` gives, but never asks the device how long the captions are.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(inputs, outputs, bias=False, batch_first=True)
        self.backwards = nn.LSTM(inputs, outputs, bias=False, batch_first=True)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words (B, L, inputs) and their mask (B, L), True at words, to states (B, L, outputs); undefined at padding."""
        columns = torch.arange(mask.shape[1], device=mask.device)
        lengths = mask.sum(1, keepdim=True)
        reverse = torch.where(mask, lengths - 1 - columns, columns)[..., None]
        onward, _ = self.forwards(words)
        # gather: take_along_dim, which is the same, would tie an exported graph to one length
        back, _ = self.backwards(words.gather(1, reverse.expand_as(words)))
        return (onward + back.gather(1, reverse.expand_as(back))) / 2


class TextEncoder(nn.Module):
    """A caption's words as a whole and as parts.

    Both embeddings go through the same LSTM. Maxima are over a caption's own words, as in SSAN's paper, or over the padding
    as well, as in its released code: of a caption that has any, zero is the lower bound then.

    Args:
        size: widths.
        vocab_size: number of ids, 0 for padding among them.
        dropout: of the word embeddings, in training.
        padding_counts: whether maxima are over `MOST_WORDS` positions, padding with its zeros among them.
    """

    def __init__(self, size: Size, vocab_size: int, dropout: float, padding_counts: bool = False) -> None:
        super().__init__()
        self.padding_counts = padding_counts
        self.global_words = nn.Embedding(vocab_size, size.word_width, padding_idx=PAD_ID)
        self.local_words = nn.Embedding(vocab_size, size.word_width, padding_idx=PAD_ID)
        self.dropout = Dropout(dropout)
        self.lstm = BiLstm(size.word_width, size.state_width)
        self.word_attention = nn.Linear(size.state_width, size.parts, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, L) int64 and their mask (B, L), True at words, to maxima (B, D) of the states and (B, K, D) per part.

        A caption without words has zeros everywhere.
        """
        if ids.shape[1] == 0:
            ids, mask = pad(ids, (0, 1), value=PAD_ID), pad(mask, (0, 1))
        # Without a word the first column, of padding, stands in: its embedding is 0 and nothing has a bias, so are its states.
        mask = mask | (torch.arange(ids.shape[1], device=ids.device) == 0)
        words = torch.cat([self.dropout(self.global_words(ids)), self.dropout(self.local_words(ids))])
        whole, local = self.lstm(words, mask.repeat(2, 1)).chunk(2)
        return self._bounded(_maximum(whole, mask), mask), self._bounded(self._parts(local, mask), mask)

    def _bounded(self, maxima: Tensor, mask: Tensor) -> Tensor:
        """Maxima (B, ...) of captions that are shorter than `MOST_WORDS`, with zero among what they are taken of."""
        if not self.padding_counts:
            return maxima
        padded = (mask.sum(1) < MOST_WORDS).view(-1, *(1,) * (maxima.ndim - 1))
        return torch.where(padded, maxima.clamp(min=0.0), maxima)

    def _parts(self, states: Tensor, mask: Tensor) -> Tensor:
        """The maximum over words i of s_i^k e_i with s_i^k = sigmoid(w_k · e_i), (B, K, D)."""
        weights = self.word_attention(states).sigmoid()
        return _maximum(weights[..., None] * states[:, :, None], mask)


def _maximum(values: Tensor, mask: Tensor) -> Tensor:
    """Of values (B, L, ...) over the words, where mask (B, L) is True."""
    padding = ~mask.view(*mask.shape, *(1,) * (values.ndim - 2))
    # max and not amax: it keeps (B, ...) indices for the backward pass and not all (B, L, ...) values.
    return values.masked_fill(padding, -torch.inf).max(1).values
