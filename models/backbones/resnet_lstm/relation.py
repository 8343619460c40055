"""SSAN's multi-view non-local network: every part of a person is told of the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from models.backbones.normalisation import BatchNorm1d
from models.backbones.resnet_lstm.parts import SLOPE, PartLinear
from models.backbones.resnet_lstm.sizes import Size

EPS = 1e-8


class RelationNetwork(nn.Module):
    """Relations between K parts, with weights of their own for every part and the same ones for images and captions.

    For part k, with LReLU of slope 0.25 and i over the parts:

        p_k = norm(LReLU(phi_k v_k)),  q_k = norm(LReLU(theta_k v_k)),  norm(x) = x / (|x| + 1e-8)
        a_ki = softmax over i != k of p_i · q_k,  u_k = Σ_i a_ki p_i
        n_k = omega_k (v_k + LReLU(BN_k(gamma_k u_k)))

    u sums the normalised p as in SSAN's released code; the paper's formula has phi_i(v_i) there.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        parts, width, inner = size.parts, size.features, size.relation_width
        self.phi = PartLinear(parts, width, inner)
        self.theta = PartLinear(parts, width, inner)
        self.gamma = PartLinear(parts, inner, width)
        self.norm = BatchNorm1d(parts * width)  # one per part, side by side
        self.omega = PartLinear(parts, width, inner)
        for linear in (self.phi, self.theta, self.gamma, self.omega):
            outputs = linear.weight.shape[1]
            nn.init.normal_(linear.weight, std=(2 / outputs) ** 0.5)  # Kaiming's, by fan-out

    def forward(self, parts: Tensor) -> Tensor:
        """Parts (B, K, F) of images, or of captions, to their relations (B, K, R).

        In training the statistics are those of this call's batch: images, captions and companions are called one by one.
        """
        described = _unit(leaky_relu(self.phi(parts), SLOPE))
        told = self.gamma(self.attention(parts, described) @ described)
        told = self.norm(told.flatten(1)).view_as(parts)
        return self.omega(parts + leaky_relu(told, SLOPE))

    def attention(self, parts: Tensor, described: Tensor) -> Tensor:
        """How much part k hears of part i, (B, K, K): rows sum to 1, and none of it is its own.

        Args:
            parts: (B, K, F) v.
            described: (B, K, R) p.
        """
        asked = _unit(leaky_relu(self.theta(parts), SLOPE))
        own = torch.eye(parts.shape[1], dtype=torch.bool, device=parts.device)
        return (asked @ described.transpose(1, 2)).masked_fill(own, -torch.inf).softmax(-1)


def _unit(values: Tensor) -> Tensor:
    return values / (values.norm(dim=-1, keepdim=True) + EPS)
