"""RWKV-5.0, 5.1 and 5.2 in plain PyTorch: the definition by which every faster form is judged.

They follow "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence" (arXiv 2404.05892) and the official
model files. 5.0 decays a head at one pace and has no gate; 5.1 has a gate; 5.2 decays each key channel at its own pace.
Float32 and float64 are meant. A state belongs to the caller: both functions return a new one and leave the given one
as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.model.layers import GROUP_NORM_EPS, Weights, gated_channel_mix, head_norm, layer_norm, shifted
from antiphon.model.matrix_state import LayerState, State, zero_state
from antiphon.model.spec import ModelSpec


def step(
    weights: Weights, token: int, state: State | None = None, *, ln_x_eps: float = GROUP_NORM_EPS
) -> tuple[Tensor, State]:
    """Feed one token: logits [V] for the next one, and the state after it."""
    logits, after = sequence(weights, torch.tensor([token]), state, ln_x_eps=ln_x_eps)
    return logits[0], after


def sequence(
    weights: Weights, tokens: Tensor, state: State | None = None, *, ln_x_eps: float = GROUP_NORM_EPS
) -> tuple[Tensor, State]:
    """Feed tokens [T] or [B, T] (T >= 1): logits [..., T, V], and the state after the last one.

    ln_x_eps: the constant under the root of the norm over heads. rwkv.cpp runs RWKV-5 with 1e-5, and its files are
    made for that.
    """
    if state is None:
        spec = ModelSpec.of_tensors({name: tuple(tensor.shape) for name, tensor in weights.items()})
        state = zero_state(spec, batch=tuple(tokens.shape[:-1]), dtype=weights["emb.weight"].dtype)
    x = layer_norm(weights, "blocks.0.ln0", weights["emb.weight"][tokens])
    after: list[LayerState] = []
    for layer, before in enumerate(state):
        att = layer_norm(weights, f"blocks.{layer}.ln1", x)
        mixed, wkv = _time_mix(weights, layer, att, before, ln_x_eps)
        x = x + mixed
        ffn = layer_norm(weights, f"blocks.{layer}.ln2", x)
        x = x + _channel_mix(weights, layer, ffn, before.ffn_x)
        after.append(LayerState(att_x=att[..., -1, :], wkv=wkv, ffn_x=ffn[..., -1, :]))
    x = layer_norm(weights, "ln_out", x)
    return x @ weights["head.weight"].T, tuple(after)


def wkv5(r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence itself, one token after the other; r, w, k, v are [..., T, H, N] and u [H, N] or [H, 1].

    y = r (u·kᵀv + S), then S ← w·S + kᵀv, with S [..., H, N(key), N(value)]; u and w multiply along the keys.
    Returns y [..., T, H, N] and the state after the last token.
    """
    outputs: list[Tensor] = []
    for t in range(r.shape[-3]):
        written = k[..., t, :, :].unsqueeze(-1) * v[..., t, :, :].unsqueeze(-2)
        seen = state + u.unsqueeze(-1) * written
        outputs.append((r[..., t, :, :].unsqueeze(-2) @ seen).squeeze(-2))
        state = state * w[..., t, :, :].unsqueeze(-1) + written
    return torch.stack(outputs, dim=-3), state


def bonus(weights: Weights, att: str, heads: int) -> Tensor:
    """u [H, N] or [H, 1], how much more the present token counts; `time_first` holds its logarithm."""
    faaaa = weights.get(f"{att}.time_faaaa")
    return (torch.exp(weights[f"{att}.time_first"]) if faaaa is None else faaaa).view(heads, -1)


def _time_mix(weights: Weights, layer: int, x: Tensor, before: LayerState, ln_x_eps: float) -> tuple[Tensor, Tensor]:
    """The attention half on normed x [..., T, D]: its output, and the matrix state after."""
    att = f"blocks.{layer}.att"
    heads = tuple(before.wkv.shape[-3:-1])
    last = shifted(x, before.att_x)

    def linear(name: str, mix: str) -> Tensor:
        share = weights[f"{att}.time_mix_{mix}"].flatten()
        return (x * share + last * (1 - share)) @ weights[f"{att}.{name}.weight"].T

    r, k, v = (linear(*part).unflatten(-1, heads) for part in (("receptance", "r"), ("key", "k"), ("value", "v")))
    w = torch.exp(-torch.exp(weights[f"{att}.time_decay"])).view(heads[0], -1).expand_as(k)
    y, wkv = wkv5(r, w, k, v, bonus(weights, att, heads[0]), before.wkv)
    out = head_norm(weights, f"{att}.ln_x", y, ln_x_eps)
    if f"{att}.gate.weight" in weights:
        out = out * functional.silu(linear("gate", "g"))
    return out @ weights[f"{att}.output.weight"].T, wkv


def _channel_mix(weights: Weights, layer: int, x: Tensor, before_x: Tensor) -> Tensor:
    """The feed-forward half on normed x [..., T, D]."""
    last = shifted(x, before_x)
    share_k = weights[f"blocks.{layer}.ffn.time_mix_k"].flatten()
    share_r = weights[f"blocks.{layer}.ffn.time_mix_r"].flatten()
    return gated_channel_mix(weights, layer, x * share_k + last * (1 - share_k), x * share_r + last * (1 - share_r))
