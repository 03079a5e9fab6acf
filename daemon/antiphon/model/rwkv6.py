"""RWKV-6 in plain PyTorch: the definition by which every faster form is judged.

It follows "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence" (arXiv 2404.05892) and the official
model files. How much of the token before is mixed in, and how fast the state decays, depend on the input through
low-rank matrices; the recurrence is that of RWKV-5. Float32 and float64 are meant. A state belongs to the caller: both
functions return a new one and leave the given one as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.model.layers import GROUP_NORM_EPS, Weights, gated_channel_mix, head_norm, layer_norm, shifted
from antiphon.model.matrix_state import LayerState, State, zero_state
from antiphon.model.rwkv5 import wkv5
from antiphon.model.spec import ModelSpec

MIXES = "wkvrg"
"""What the five parts of `time_maa_w1` and `time_maa_w2` are for, in their order."""


def step(weights: Weights, token: int, state: State | None = None) -> tuple[Tensor, State]:
    """Feed one token: logits [V] for the next one, and the state after it."""
    logits, after = sequence(weights, torch.tensor([token]), state)
    return logits[0], after


def sequence(weights: Weights, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """Feed tokens [T] or [B, T] (T >= 1): logits [..., T, V], and the state after the last one."""
    if state is None:
        spec = ModelSpec.of_tensors({name: tuple(tensor.shape) for name, tensor in weights.items()})
        state = zero_state(spec, batch=tuple(tokens.shape[:-1]), dtype=weights["emb.weight"].dtype)
    x = layer_norm(weights, "blocks.0.ln0", weights["emb.weight"][tokens])
    after: list[LayerState] = []
    for layer, before in enumerate(state):
        att = layer_norm(weights, f"blocks.{layer}.ln1", x)
        mixed, wkv = _time_mix(weights, layer, att, before)
        x = x + mixed
        ffn = layer_norm(weights, f"blocks.{layer}.ln2", x)
        x = x + _channel_mix(weights, layer, ffn, before.ffn_x)
        after.append(LayerState(att_x=att[..., -1, :], wkv=wkv, ffn_x=ffn[..., -1, :]))
    x = layer_norm(weights, "ln_out", x)
    return x @ weights["head.weight"].T, tuple(after)


def _time_mix(weights: Weights, layer: int, x: Tensor, before: LayerState) -> tuple[Tensor, Tensor]:
    """The attention half on normed x [..., T, D]: its output, and the matrix state after."""
    att = f"blocks.{layer}.att"
    heads = tuple(before.wkv.shape[-3:-1])
    dx = shifted(x, before.att_x) - x

    hidden = torch.tanh((x + dx * weights[f"{att}.time_maa_x"].flatten()) @ weights[f"{att}.time_maa_w1"])
    parts = hidden.unflatten(-1, (len(MIXES), -1)).unsqueeze(-2) @ weights[f"{att}.time_maa_w2"]
    mixed = {
        name: x + dx * (weights[f"{att}.time_maa_{name}"].flatten() + parts[..., i, 0, :])
        for i, name in enumerate(MIXES)
    }

    r = mixed["r"] @ weights[f"{att}.receptance.weight"].T
    k = mixed["k"] @ weights[f"{att}.key.weight"].T
    v = mixed["v"] @ weights[f"{att}.value.weight"].T
    g = functional.silu(mixed["g"] @ weights[f"{att}.gate.weight"].T)
    hidden = torch.tanh(mixed["w"] @ weights[f"{att}.time_decay_w1"])
    w = torch.exp(-torch.exp(weights[f"{att}.time_decay"].flatten() + hidden @ weights[f"{att}.time_decay_w2"]))

    r, w, k, v = (tensor.unflatten(-1, heads) for tensor in (r, w, k, v))
    y, wkv = wkv5(r, w, k, v, weights[f"{att}.time_faaaa"], before.wkv)
    out = head_norm(weights, f"{att}.ln_x", y, GROUP_NORM_EPS) * g
    return out @ weights[f"{att}.output.weight"].T, wkv


def _channel_mix(weights: Weights, layer: int, x: Tensor, before_x: Tensor) -> Tensor:
    """The feed-forward half on normed x [..., T, D]."""
    dx = shifted(x, before_x) - x
    x_k = x + dx * weights[f"blocks.{layer}.ffn.time_maa_k"].flatten()
    x_r = x + dx * weights[f"blocks.{layer}.ffn.time_maa_r"].flatten()
    return gated_channel_mix(weights, layer, x_k, x_r)
