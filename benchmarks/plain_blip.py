"""BLIP as one writes it down from the papers: attention written out, every pair's image projected anew, no packing.

Works straight on the parameters of a `BlipRetrieval`, so both versions have the same weights and gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, dropout, gelu, layer_norm, linear, pad

from models.backbones.blip.retrieval import BlipRetrieval
from models.texts import TextBatch

TEXT_LENGTH = 73


class PlainBlip:
    """The image encoder and the text stack of a `BlipRetrieval`, from its parameters by name."""

    def __init__(self, model: BlipRetrieval, drop: float = 0.0) -> None:
        self.model, self.size, self.drop = model, model.size, drop
        self.weights = dict(model.named_parameters())

    def linear(self, name: str, values: Tensor) -> Tensor:
        """The linear layer of that name."""
        return linear(values, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, values: Tensor, eps: float) -> Tensor:
        shape = values.shape[-1:]
        return layer_norm(values, shape, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def images(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to tokens (B, N, D)."""
        name, patch = "visual_encoder", self.size.patch
        weight, bias = (self.weights[f"{name}.patch_embed.proj.{part}"] for part in ("weight", "bias"))
        values = conv2d(images, weight, bias, stride=patch).flatten(2).transpose(1, 2)
        first = self.weights[f"{name}.cls_token"].expand(len(values), -1, -1)
        values = torch.cat([first, values], dim=1) + self.weights[f"{name}.pos_embed"]
        for number in range(self.size.vision_depth):
            block = f"{name}.blocks.{number}"
            normed = self._norm(f"{block}.norm1", values, 1e-6)
            query, key, value = self.linear(f"{block}.attn.qkv", normed).chunk(3, dim=-1)
            context = self._attend(query, key, value, self.size.vision_heads, None, 0.0)
            values = values + self.linear(f"{block}.attn.proj", context)
            normed = self._norm(f"{block}.norm2", values, 1e-6)
            values = values + self.linear(f"{block}.mlp.fc2", gelu(self.linear(f"{block}.mlp.fc1", normed)))
        return self._norm(f"{name}.norm", values, 1e-6)

    def texts(self, ids: Tensor, mask: Tensor, image_tokens: Tensor | None = None) -> Tensor:
        """ids, mask (B, L) and, for grounded texts, image tokens (B, N, D), to hidden states (B, L, width)."""
        embeddings = "text_encoder.embeddings"
        values = self.weights[f"{embeddings}.word_embeddings.weight"][ids]
        values = values + self.weights[f"{embeddings}.position_embeddings.weight"][: ids.shape[1]]
        values = dropout(self._norm(f"{embeddings}.LayerNorm", values, 1e-12), self.drop)
        padding = torch.where(mask, 0.0, -10000.0)[:, None, None, :]
        for number in range(self.size.text_layers):
            layer = f"text_encoder.encoder.layer.{number}"
            values = self._text_attention(f"{layer}.attention", values, values, padding)
            if image_tokens is not None:
                values = self._text_attention(f"{layer}.crossattention", values, image_tokens, None)
            inner = gelu(self.linear(f"{layer}.intermediate.dense", values))
            values = self._add_norm(f"{layer}.output", inner, values)
        return values

    def match(self, ids: Tensor, mask: Tensor, image_tokens: Tensor) -> Tensor:
        """Logits (B, 2) of padded texts that begin with [ENC] and their images' tokens (B, N, D)."""
        return self.linear("itm_head", self.texts(ids, mask, image_tokens)[:, 0])

    def _text_attention(self, name: str, values: Tensor, source: Tensor, hidden: Tensor | None) -> Tensor:
        query = self.linear(f"{name}.self.query", values)
        key, value = self.linear(f"{name}.self.key", source), self.linear(f"{name}.self.value", source)
        context = self._attend(query, key, value, self.size.text_heads, hidden, self.drop)
        return self._add_norm(f"{name}.output", context, values)

    def _add_norm(self, name: str, change: Tensor, residual: Tensor) -> Tensor:
        change = dropout(self.linear(f"{name}.dense", change), self.drop)
        return self._norm(f"{name}.LayerNorm", change + residual, 1e-12)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, heads: int, hidden: Tensor | None, drop: float
    ) -> Tensor:
        """softmax(QK^T / sqrt(d)) V by heads; `hidden` is added to the scores."""
        query, key, value = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (query, key, value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if hidden is not None:
            scores = scores + hidden
        return (dropout(scores.softmax(-1), drop) @ value).transpose(1, 2).flatten(2)


def padded(texts: TextBatch, pad_id: int = 0, first: int | None = None) -> tuple[Tensor, Tensor]:
    """ids and mask of texts, padded to 73 columns, with their first id replaced where one is given."""
    room = (0, TEXT_LENGTH - texts.ids.shape[1])
    ids, mask = pad(texts.ids, room, value=pad_id), pad(texts.mask, room)
    if first is not None:
        ids[:, 0] = first
    return ids, mask
