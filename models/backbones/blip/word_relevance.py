"""What of an image each token of a text looked at when BLIP decided that they match: gradient-weighted cross-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losses.precision import no_autocast
from models.backbones.attention import attend_plainly
from models.backbones.blip.text import DENSE, KeyValue, TextStack
from models.word_maps import shares


def word_relevance(
    stack: TextStack,
    head: nn.Module,
    ids: Tensor,
    mask: Tensor,
    image_tokens: Tensor,
    image_attentions: Sequence[Tensor],
) -> Tensor:
    """How much the answer "match" rests on what each text token takes from each patch of the image.

    Chefer et al.'s rules (ICCV 2021, equations 5 to 9). With y the match logit and A the attention (heads, rows, columns) of a layer,

        Ā = mean over heads of max(0, A ⊙ ∂y/∂A)
        R = sum over the text's layers of Ā_cross · (I + norm(P - I)),   P = (I + Ā_n) ... (I + Ā_1) over the image's layers

    where norm divides rows by their sums: P says which patches a token of the image encoder's end is made of. A row of Ā_cross
    alone is the Grad-CAM of a token as ALBEF draws it (Li et al., NeurIPS 2021), who choose one layer by hand. Two things are
    otherwise than in the paper, since words are asked for and not the text as a whole: rows are not mixed by the text's
    self-attention, and layers are summed, as ∂y/∂A holds already how much of what a word has taken reaches the decision
    through the layers above. In the last one only the first token is read by the head: its other rows are 0.

    Attention is computed plainly here, in single precision: the stack's own way never holds its weights, and shares or
    packs what this needs for itself.

    Args:
        stack: the text encoder, in evaluation mode.
        head: hidden states (B, width) of the first token to logits (B, 2); index 1 is "match".
        ids: (B, L) int64, [ENC] first.
        mask: (B, L) bool, False at padding, whose rows are 0.
        image_tokens: (B, N, image_width), of each text's image, with a graph that leads to image_attentions.
        image_attentions: (B, heads, N, N) of each layer of the image encoder, the first one first.

    Returns:
        (B, L, N) float32 (float64 for float64 tokens), none negative.
    """
    with torch.enable_grad():
        attentions: list[Tensor] = []
        hidden = stack.embeddings(ids, None)
        for layer in stack.encoder.layer:
            own = layer.attention.keys_values(hidden, DENSE)
            hidden = layer.attention(hidden, own, DENSE, mask[:, None, None, :])
            image = layer.crossattention.keys_values(image_tokens, DENSE)
            hidden, attention = _look(layer.crossattention, hidden, image)
            hidden = layer.output(layer.intermediate(hidden), hidden)
            attentions.append(attention)
        logit = head(hidden[:, 0])[:, 1].sum()  # of pairs that know nothing of each other
        gradients = torch.autograd.grad(logit, [*attentions, *image_attentions])
    relevant = [
        (attention.detach() * gradient).clamp(min=0).mean(1)
        for attention, gradient in zip([*attentions, *image_attentions], gradients, strict=True)
    ]
    taken, within = sum(relevant[: len(attentions)]), relevant[len(attentions) :]
    with no_autocast(taken):
        return taken + taken @ shares(_made_of(within))


def _made_of(relevant: Sequence[Tensor]) -> Tensor:
    """(I + Ā_n) ... (I + Ā_1) - I of matrices (B, N, N), the first layer's first."""
    made = torch.zeros_like(relevant[0])
    for layer in relevant:
        made = made + layer + layer @ made
    return made


def _look(block: nn.Module, hidden: Tensor, image: KeyValue) -> tuple[Tensor, Tensor]:
    """The cross-attention block's result (B, L, width), and its attention (B, heads, L, N)."""
    context, attention = attend_plainly(block.split(block.self.query(hidden)), *image)
    return block.output(context, hidden), attention
