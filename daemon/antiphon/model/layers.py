"""The parts that every RWKV is made of: norms, the look at the token before, the channel mix of versions 4 to 6."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor

LAYER_NORM_EPS = 1e-5
GROUP_NORM_EPS = 64e-5
"""1e-5 times head_size 64, for outputs that are not divided by 8 first: as the official runtimes have it."""

Weights = Mapping[str, Tensor]


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    """x [..., D] with mean 0 and variance 1, then times `name`.weight plus `name`.bias."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, LAYER_NORM_EPS)


def head_norm(weights: Weights, name: str, y: Tensor, eps: float) -> Tensor:
    """y [..., H, N] with mean 0 and variance 1 in every head, flat [..., D], times `name`.weight plus `name`.bias."""
    mean = y.mean(dim=-1, keepdim=True)
    variance = y.var(dim=-1, keepdim=True, unbiased=False)
    normed = ((y - mean) / torch.sqrt(variance + eps)).flatten(-2)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def shifted(x: Tensor, before: Tensor) -> Tensor:
    """Each token's predecessor: x [..., T, D] moved by one, `before` [..., D] in front."""
    return torch.cat([before.unsqueeze(-2), x[..., :-1, :]], dim=-2)


def gated_channel_mix(weights: Weights, layer: int, x_k: Tensor, x_r: Tensor) -> Tensor:
    """The feed-forward half of RWKV-4, 5 and 6 on two mixtures [..., T, D] of normed inputs and those before them."""
    ffn = f"blocks.{layer}.ffn"
    hidden = torch.relu(x_k @ weights[f"{ffn}.key.weight"].T) ** 2
    gate = torch.sigmoid(x_r @ weights[f"{ffn}.receptance.weight"].T)
    return gate * (hidden @ weights[f"{ffn}.value.weight"].T)
