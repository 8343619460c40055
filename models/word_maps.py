"""Which regions of an image the words of a caption go with: the answer of a model that is asked why.

Every backbone has a verb for it, `word_maps(images, captions)`. One that matches looks into its cross-attention. One that compares
features has none; it asks, for every word, where in the image that lies which agrees with what the word adds to the caption:

    d_w = t - t_w,   s_w = v · d_w

with v and t the features of image and caption, of length 1, and t_w that of the caption without the word: s_w is what the
cosine would lose. Which regions it comes from is read from the gradients of s_w, as in Chefer et al. (ICCV 2021, equation 5). The
plain similarity of a word's token and a patch's, which suggests itself, says next to nothing: a contrast trains the two
tokens that become features, and no other. In models that have solved a task of coloured squares the patch most similar to a
colour's token is the square of that colour in fewer than a quarter of the images, where chance has a twelfth
(tests/methods/test_word_maps_trained.py measures both).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from losses.precision import widen
from models.texts import TextBatch


@dataclass(frozen=True)
class WordMaps:
    """Of one image and one caption.

    Attributes:
        words: the W words that the model reads, in order, in the tokenizer's spelling; those it does not know are left out.
        maps: (W, h, w) float32 on the CPU, a value per region of the image, the first row at its top. None is negative; each
            map has the sum 1, or 0 where nothing of the image speaks for the word.
        overall: (h, w), the same of the caption as a whole.
        effects: (W,) float32, by how much the score would be lower without the word.
        explains: which score that is, and the maps are about.
        score: it.
    """

    words: tuple[str, ...]
    maps: Tensor
    overall: Tensor
    effects: Tensor
    explains: Literal["match", "cosine"]
    score: float


def words_in(texts: TextBatch, spelled: Sequence[Sequence[str | None]]) -> list[dict[int, str]]:
    """For every caption its words by the column of their first token.

    Args:
        texts: B captions.
        spelled: of each what `tokenizer.words` says.
    """
    return [
        {column: word for column, word in enumerate(of_tokens) if word is not None and row[column] == column}
        for of_tokens, row in zip(spelled, texts.words.tolist(), strict=True)
    ]


def summed_by_word(values: Tensor, words: Tensor, columns: Sequence[int]) -> Tensor:
    """What tokens (L, N) say, added up to words (W, N).

    Args:
        values: of every token.
        words: (L,) a row of `TextBatch.words`.
        columns: of the first token of each word.
    """
    if not columns:
        return values.new_zeros(0, values.shape[1])
    return torch.stack([values[words == column].sum(0) for column in columns])


def of_sum_one(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """The shares of maps (..., h w) as (..., h, w), on the CPU."""
    return shares(widen(maps).detach().cpu()).unflatten(-1, grid)


def shares(rows: Tensor) -> Tensor:
    """Rows (..., N) divided by their sums; one of nothing stays 0."""
    return rows / rows.sum(-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


@torch.no_grad()
def directions_of(whole: Tensor, without: Sequence[Tensor]) -> list[Tensor]:
    """Of each caption t, and d_w of each of its words: (1 + W, F).

    Args:
        whole: (B, F) features of captions.
        without: for each of them (W, F), of what is left without one word.
    """
    whole = normalize(widen(whole), dim=1)
    return [
        torch.cat([t[None], t - normalize(widen(left), dim=1)])
        for t, left in zip(whole, without, strict=True)
    ]


def contrasted(
    features: Tensor,
    directions: Sequence[Tensor],
    sources: Sequence[Tensor],
    regions: Callable[[Sequence[Tensor]], Tensor],
    words: Sequence[Sequence[str]],
    grid: tuple[int, int],
) -> list[WordMaps]:
    """The maps of a model that compares features, from the gradients of v · t and v · d_w.

    Args:
        features: (B, F) of images, whose rows know nothing of each other, with a graph that leads to `sources`.
        directions: for each image what `directions_of` gives.
        sources: tensors of the image encoder, of which the regions are parts.
        regions: gradients of the sources to (B, N), what each region contributes; none is negative.
        words: of each caption.
        grid: (h, w), N = h w.
    """
    found: list[list[Tensor]] = [[] for _ in words]
    with torch.enable_grad():
        features = normalize(widen(features), dim=1)
    for number in range(max(map(len, directions))):
        asked = [row for row, own in enumerate(directions) if number < len(own)]
        with torch.enable_grad():
            score = sum(features[row] @ directions[row][number] for row in asked)
        rows = regions(torch.autograd.grad(score, sources, retain_graph=True))
        for row in asked:
            found[row].append(rows[row])
    return [
        _of_one(maps, own.detach() @ feature.detach(), spelled, grid)
        for maps, own, feature, spelled in zip(found, directions, features, words, strict=True)
    ]


def _of_one(maps: Sequence[Tensor], scores: Tensor, words: Sequence[str], grid: tuple[int, int]) -> WordMaps:
    overall, *rest = of_sum_one(torch.stack(list(maps)), grid)
    by_word = torch.stack(rest) if rest else overall.new_zeros(0, *grid)
    scores = scores.cpu()
    return WordMaps(tuple(words), by_word, overall, scores[1:], "cosine", float(scores[0]))
