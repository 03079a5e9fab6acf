"""The weights an RWKV-7 starts to learn from.

Scales and ramps follow the official trainer (RWKV-LM, RWKV-v7/train_temp/src/model.py): every layer
begins as the identity (output matrices are zero), channels begin with different memory lengths (the
decay ramp), and the embedding begins near zero because `ln0` rescales it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from antiphon.model.spec import ModelSpec


def initial_weights(spec: ModelSpec, *, seed: int) -> dict[str, Tensor]:
    """All tensors of `spec.shapes()` in float32; the same seed gives the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = spec.shapes()
    weights: dict[str, Tensor] = {}
    weights["emb.weight"] = _uniform(shapes["emb.weight"], 1e-4, generator)
    for layer in range(spec.n_layer):
        if layer == 0:
            _norm(weights, "blocks.0.ln0", spec.n_embd)
        _norm(weights, f"blocks.{layer}.ln1", spec.n_embd)
        _norm(weights, f"blocks.{layer}.ln2", spec.n_embd)
        _time_mix(weights, spec, layer, generator)
        _channel_mix(weights, spec, layer, generator)
    _norm(weights, "ln_out", spec.n_embd)
    head_gain = 0.5 * math.sqrt(max(1.0, spec.vocab_size / spec.n_embd))
    weights["head.weight"] = _orthogonal(shapes["head.weight"], head_gain, generator)
    return {name: weights[name] for name in shapes}


def _time_mix(weights: dict[str, Tensor], spec: ModelSpec, layer: int, generator: torch.Generator) -> None:
    d, n = spec.n_embd, spec.head_size
    depth = layer / max(1, spec.n_layer - 1)
    height = 1.0 - layer / spec.n_layer
    channel = torch.arange(d, dtype=torch.float32)
    linear = channel / max(1, d - 1) - 0.5
    within_head = (channel % n - (n - 1) / 2) / ((n - 1) / 2)
    zigzag = within_head * within_head.abs()
    ramp = -6.0 + 6.0 * (channel / max(1, d - 1)) ** (1.0 + depth**0.3)

    att = f"blocks.{layer}.att"
    for mix, power in {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}.items():
        weights[f"{att}.x_{mix}"] = (1.0 - (channel / d) ** (power * height)).view(1, 1, d)

    biases = {"w": ramp + 0.5 + 2.5 * zigzag, "a": -0.19 + 0.3 * zigzag + 0.4 * linear}
    ranks = {"w": spec.decay_rank, "a": spec.iclr_rank}
    if layer > 0:
        biases["v"] = 0.73 - 0.4 * linear
        ranks["v"] = spec.value_rank
    for kind, rank in ranks.items():
        weights[f"{att}.{kind}0"] = biases[kind].view(1, 1, d)
        weights[f"{att}.{kind}1"] = torch.zeros(d, rank)
        weights[f"{att}.{kind}2"] = _orthogonal((rank, d), 0.1, generator)
    weights[f"{att}.g1"] = torch.zeros(d, spec.gate_rank)
    weights[f"{att}.g2"] = _orthogonal((spec.gate_rank, d), 0.1, generator)

    weights[f"{att}.k_k"] = (0.71 - 0.1 * linear).view(1, 1, d)
    weights[f"{att}.k_a"] = torch.full((1, 1, d), 1.02)
    weights[f"{att}.r_k"] = torch.full((spec.n_head, n), -0.04)
    bound = 0.5 / math.sqrt(d)
    weights[f"{att}.receptance.weight"] = _uniform((d, d), bound, generator)
    weights[f"{att}.key.weight"] = _uniform((d, d), 0.1 * bound, generator)
    weights[f"{att}.value.weight"] = _uniform((d, d), bound, generator)
    weights[f"{att}.output.weight"] = torch.zeros(d, d)
    _norm(weights, f"{att}.ln_x", d)
    weights[f"{att}.ln_x.weight"] *= ((1 + layer) / spec.n_layer) ** 0.7


def _channel_mix(weights: dict[str, Tensor], spec: ModelSpec, layer: int, generator: torch.Generator) -> None:
    d = spec.n_embd
    height = 1.0 - layer / spec.n_layer
    channel = torch.arange(d, dtype=torch.float32)
    weights[f"blocks.{layer}.ffn.x_k"] = (1.0 - (channel / d) ** (height**4)).view(1, 1, d)
    weights[f"blocks.{layer}.ffn.key.weight"] = _uniform((spec.ffn_dim, d), 0.5 / math.sqrt(d), generator)
    weights[f"blocks.{layer}.ffn.value.weight"] = torch.zeros(d, spec.ffn_dim)


def _norm(weights: dict[str, Tensor], name: str, width: int) -> None:
    weights[f"{name}.weight"] = torch.ones(width)
    weights[f"{name}.bias"] = torch.zeros(width)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _orthogonal(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    return torch.nn.init.orthogonal_(torch.empty(shape), gain=gain, generator=generator)
