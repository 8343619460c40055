"""Blocks of the image towers, computed plainly: beside what leaves them they give their attention, with its gradients.

A tower's own blocks never hold their attention. In single precision, as what is read from it is compared; the rest of a block
computes in the precision that it always does.
"""

from __future__ import annotations

import torch
from open_clip.transformer import ResidualAttentionBlock
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaBlock
from torch import Tensor

from models.backbones.attention import attend_plainly
from models.backbones.linear import linear


def clip_block(block: ResidualAttentionBlock, states: Tensor) -> tuple[Tensor, Tensor]:
    """A block of CLIP's kind: states (B, N, D) to the next ones, and how much each looks at each, (B, heads, N, N)."""
    attention = block.attn
    parts = linear(block.ln_1(states), attention.in_proj_weight, attention.in_proj_bias)
    mixed, weights = attend_plainly(*parts.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4))
    states = states + block.ls_1(linear(mixed, attention.out_proj.weight, attention.out_proj.bias))
    return states + block.ls_2(block.mlp(block.ln_2(states))), weights


def eva_block(block: EvaBlock, states: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """A block of EVA-02's image tower, whose patches' queries and keys are turned by `rotation`; as `clip_block`."""
    attention, inner = block.attn, block.norm1(states)
    query, key, value = (
        project(inner).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = (
        torch.cat([part[:, :, :1], apply_rot_embed_cat(part[:, :, 1:], rotation)], dim=2)
        for part in (query, key)
    )
    mixed, weights = attend_plainly(query, key, value)
    states = states + attention.proj(attention.norm(mixed))
    return states + block.mlp(block.norm2(states)), weights
