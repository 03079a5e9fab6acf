"""RWKV-7 in plain PyTorch: the definition by which every faster form is judged.

It follows "RWKV-7 Goose with Expressive Dynamic State Evolution" (arXiv 2503.14456) and the official
model files. Nothing is folded, fused or rescaled; float32 and float64 are meant. A state belongs to
the caller: both functions return a new one and leave the given one as it was.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.model.layers import GROUP_NORM_EPS as GROUP_NORM_EPS
from antiphon.model.layers import LAYER_NORM_EPS as LAYER_NORM_EPS
from antiphon.model.layers import Weights as Weights
from antiphon.model.layers import head_norm, layer_norm, shifted
from antiphon.model.matrix_state import LayerState as LayerState
from antiphon.model.matrix_state import State as State
from antiphon.model.matrix_state import pack as pack
from antiphon.model.matrix_state import unpack as unpack
from antiphon.model.matrix_state import zero_state as zero_state
from antiphon.model.spec import ModelSpec

KEY_NORM_GUARD = 1e-12
MAX_LOG_DECAY = -math.exp(-0.5)
"""The log decay of a channel lies between this number and 0, so one step keeps at least 54.5 %."""


def step(weights: Weights, token: int, state: State | None = None) -> tuple[Tensor, State]:
    """Feed one token: logits [V] for the next one, and the state after it."""
    logits, after = sequence(weights, torch.tensor([token]), state)
    return logits[0], after


def sequence(weights: Weights, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """Feed tokens [T] or [B, T] (T >= 1): logits [..., T, V], and the state after the last one."""
    batch = tokens.shape[:-1]
    if state is None:
        spec = ModelSpec.of_tensors({name: tuple(tensor.shape) for name, tensor in weights.items()})
        state = zero_state(spec, batch=tuple(batch), dtype=weights["emb.weight"].dtype)
    x = weights["emb.weight"][tokens]
    x = layer_norm(weights, "blocks.0.ln0", x)
    v_first: Tensor | None = None
    after: list[LayerState] = []
    for layer, before in enumerate(state):
        normed = layer_norm(weights, f"blocks.{layer}.ln1", x)
        mixed, wkv, v_first = _time_mix(weights, layer, normed, before, v_first)
        att_x = normed[..., -1, :]
        x = x + mixed
        normed = layer_norm(weights, f"blocks.{layer}.ln2", x)
        x = x + _channel_mix(weights, layer, normed, before.ffn_x)
        after.append(LayerState(att_x=att_x, wkv=wkv, ffn_x=normed[..., -1, :]))
    x = layer_norm(weights, "ln_out", x)
    return x @ weights["head.weight"].T, tuple(after)


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, a: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The recurrence itself, one token after the other; all of r…a are [..., T, H, N].

    S ← S·diag(w) − (S κ)(κ·a)ᵀ + v kᵀ and y = S r with S [..., H, N(value), N(key)] and w = exp(log_w).
    Returns y [..., T, H, N] and the state after the last token.
    """
    outputs: list[Tensor] = []
    for t in range(r.shape[-3]):
        kappa_t, v_t, k_t = kappa[..., t, :, :], v[..., t, :, :], k[..., t, :, :]
        removed = (state @ kappa_t.unsqueeze(-1)) * (kappa_t * a[..., t, :, :]).unsqueeze(-2)
        decayed = state * log_w[..., t, :, :].exp().unsqueeze(-2)
        state = decayed - removed + v_t.unsqueeze(-1) * k_t.unsqueeze(-2)
        outputs.append((state @ r[..., t, :, :].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, dim=-3), state


def _time_mix(
    weights: Weights, layer: int, x: Tensor, before: LayerState, v_first: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The attention half on normed x [..., T, D]: its output, the matrix state after, and v_first."""
    att = f"blocks.{layer}.att"
    r_k = weights[f"{att}.r_k"]
    heads = tuple(r_k.shape)
    dx = shifted(x, before.att_x) - x

    def mixed(name: str) -> Tensor:
        return x + dx * weights[f"{att}.x_{name}"].flatten()

    def low_rank(name: str, hidden: Tensor) -> Tensor:
        return weights[f"{att}.{name}0"].flatten() + hidden @ weights[f"{att}.{name}2"]

    x_v = mixed("v")
    r = mixed("r") @ weights[f"{att}.receptance.weight"].T
    k = mixed("k") @ weights[f"{att}.key.weight"].T
    v = x_v @ weights[f"{att}.value.weight"].T
    log_w = MAX_LOG_DECAY * torch.sigmoid(low_rank("w", torch.tanh(mixed("w") @ weights[f"{att}.w1"])))
    a = torch.sigmoid(low_rank("a", mixed("a") @ weights[f"{att}.a1"]))
    g = torch.sigmoid(mixed("g") @ weights[f"{att}.g1"]) @ weights[f"{att}.g2"]
    if v_first is None:
        v_first = v
    else:
        v = v + (v_first - v) * torch.sigmoid(low_rank("v", x_v @ weights[f"{att}.v1"]))

    kappa = (k * weights[f"{att}.k_k"].flatten()).unflatten(-1, heads)
    kappa = functional.normalize(kappa, dim=-1, p=2.0, eps=KEY_NORM_GUARD)
    k = k * (1 + (a - 1) * weights[f"{att}.k_a"].flatten())

    r, log_w, k, v_heads, a = (tensor.unflatten(-1, heads) for tensor in (r, log_w, k, v, a))
    y, wkv = wkv7(r, log_w, k, v_heads, kappa, a, before.wkv)
    y = head_norm(weights, f"{att}.ln_x", y, GROUP_NORM_EPS)
    y = y + ((r * k * r_k).sum(dim=-1, keepdim=True) * v_heads).flatten(-2)
    return (y * g) @ weights[f"{att}.output.weight"].T, wkv, v_first


def _channel_mix(weights: Weights, layer: int, x: Tensor, before_x: Tensor) -> Tensor:
    """The feed-forward half on normed x [..., T, D]."""
    ffn = f"blocks.{layer}.ffn"
    x_k = x + (shifted(x, before_x) - x) * weights[f"{ffn}.x_k"].flatten()
    hidden = torch.relu(x_k @ weights[f"{ffn}.key.weight"].T) ** 2
    return hidden @ weights[f"{ffn}.value.weight"].T
