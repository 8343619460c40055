"""How much one token looks at each of the others in a tower's last layer: one row of attention, of one layer.

The layer's own attention never holds its weights. So the row is computed a second time from what went into the layer, in
single precision, as tokens are ranked by it, and without gradients.
"""

from __future__ import annotations

import torch
from open_clip.transformer import ResidualAttentionBlock
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaBlock
from torch import Tensor

from losses.precision import no_autocast, widen
from models.backbones.linear import linear


@torch.no_grad()
def clip_row(
    block: ResidualAttentionBlock, states: Tensor, rows: Tensor | int, hidden: Tensor | None = None
) -> Tensor:
    """Of a block of CLIP's kind.

    q · (W x + b) is (Wᵀ q) · x and a number that softmax does not see: one vector per head meets all tokens, in the place of
    a key for every token, 64 times the work.

    Args:
        block: the layer.
        states: (B, N, D), what goes into it.
        rows: (B,) int64, which token of each sample looks; a number for the same one everywhere.
        hidden: (B, N) bool, the tokens that it does not see; None: it sees all.

    Returns:
        (B, N) mean over the heads, each row of sum 1, in float32 (float64 for float64 states).
    """
    with no_autocast(states):
        inner, attention = block.ln_1(widen(states)), block.attn
        looking = inner[torch.arange(len(inner), device=inner.device), rows]
        of_query, of_keys, _ = attention.in_proj_weight.unflatten(0, (3, attention.num_heads, -1))
        query = linear(looking, of_query.flatten(0, 1), attention.in_proj_bias.chunk(3)[0])
        wanted = torch.einsum("bhd,hdw->bhw", query.unflatten(1, of_keys.shape[:2]), of_keys)
        scores = wanted @ inner.transpose(1, 2) / of_keys.shape[1] ** 0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None], -torch.inf)
        return scores.softmax(2).mean(1)


@torch.no_grad()
def eva_row(block: EvaBlock, states: Tensor, rotation: Tensor) -> Tensor:
    """Of a block of EVA-02's image tower, whose class token looks and whose patches' keys are turned by `rotation`.

    Args and result as in `clip_row`.
    """
    with no_autocast(states):
        inner, attention = block.norm1(widen(states)), block.attn
        query, keys = (
            project(tokens).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
            for project, tokens in ((attention.q_proj, inner[:, :1]), (attention.k_proj, inner))
        )
        keys = torch.cat([keys[:, :, :1], apply_rot_embed_cat(keys[:, :, 1:], rotation)], dim=2)
        scores = query @ keys.transpose(2, 3) / query.shape[3] ** 0.5
        return scores.softmax(3).mean(1)[:, 0]
