"""RWKV-4 in plain PyTorch: the definition by which every faster form is judged.

It follows "RWKV: Reinventing RNNs for the Transformer Era" (arXiv 2305.13048) and the official model files. Every
channel keeps a sum of past values, weighted by e to their keys and fading; the weights are kept relative to the largest
of them, so that nothing overflows. Float32 and float64 are meant. A state belongs to the caller: both functions return
a new one and leave the given one as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from antiphon.model.layers import Weights, gated_channel_mix, layer_norm, shifted
from antiphon.model.spec import ModelSpec

NOTHING_YET = -1e30
"""`pp` before the first token: the log of a weight that is zero in every floating-point format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """What one layer remembers, all [..., D]; leading batch axes are allowed.

    `att_x` and `ffn_x` are the last inputs of the two halves (after their norms). Past values, weighted, sum to
    `aa` e^pp, and their weights to `bb` e^pp.
    """

    att_x: Tensor
    aa: Tensor
    bb: Tensor
    pp: Tensor
    ffn_x: Tensor


State = tuple[ChannelState, ...]


def zero_state(spec: ModelSpec, *, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> State:
    """The state before the first token."""

    def constant(value: float) -> Tensor:
        return torch.full((*batch, spec.n_embd), value, dtype=dtype)

    return tuple(
        ChannelState(
            att_x=constant(0.0), aa=constant(0.0), bb=constant(0.0), pp=constant(NOTHING_YET), ffn_x=constant(0.0)
        )
        for _ in range(spec.n_layer)
    )


def pack(state: State) -> Tensor:
    """The state as one vector [..., state_floats]: per layer att_x, aa, bb, pp, ffn_x."""
    parts: list[Tensor] = []
    for layer in state:
        parts += [layer.att_x, layer.aa, layer.bb, layer.pp, layer.ffn_x]
    return torch.cat(parts, dim=-1)


def unpack(spec: ModelSpec, packed: Tensor) -> State:
    """The state that `pack` made a vector of."""
    parts = packed.split(spec.n_embd, dim=-1)
    return tuple(
        ChannelState(att_x=att_x, aa=aa, bb=bb, pp=pp, ffn_x=ffn_x)
        for att_x, aa, bb, pp, ffn_x in (parts[5 * layer : 5 * layer + 5] for layer in range(spec.n_layer))
    )


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
    after: list[ChannelState] = []
    for layer, before in enumerate(state):
        att = layer_norm(weights, f"blocks.{layer}.ln1", x)
        mixed, (aa, bb, pp) = _time_mix(weights, layer, att, before)
        x = x + mixed
        ffn = layer_norm(weights, f"blocks.{layer}.ln2", x)
        x = x + _channel_mix(weights, layer, ffn, before.ffn_x)
        after.append(ChannelState(att_x=att[..., -1, :], aa=aa, bb=bb, pp=pp, ffn_x=ffn[..., -1, :]))
    x = layer_norm(weights, "ln_out", x)
    return x @ weights["head.weight"].T, tuple(after)


def wkv4(
    k: Tensor, v: Tensor, u: Tensor, log_w: Tensor, state: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The recurrence itself, one token after the other: k, v [..., T, D], u and log_w [D], state aa, bb, pp [..., D].

    y = (aa e^pp + e^(u + k) v) / (bb e^pp + e^(u + k)), then a e^pp ← a e^(pp + log_w) + e^k v, and b likewise with 1
    for v. Returns y [..., T, D] and the state after the last token.
    """
    aa, bb, pp = state
    outputs: list[Tensor] = []
    for t in range(k.shape[-2]):
        k_t, v_t = k[..., t, :], v[..., t, :]
        most = torch.maximum(pp, u + k_t)
        past, now = torch.exp(pp - most), torch.exp(u + k_t - most)
        outputs.append((past * aa + now * v_t) / (past * bb + now))
        most = torch.maximum(pp + log_w, k_t)
        past, now = torch.exp(pp + log_w - most), torch.exp(k_t - most)
        aa, bb, pp = past * aa + now * v_t, past * bb + now, most
    return torch.stack(outputs, dim=-2), (aa, bb, pp)


def _time_mix(
    weights: Weights, layer: int, x: Tensor, before: ChannelState
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The attention half on normed x [..., T, D]: its output, and aa, bb, pp after."""
    att = f"blocks.{layer}.att"
    last = shifted(x, before.att_x)

    def linear(name: str, mix: str) -> Tensor:
        share = weights[f"{att}.time_mix_{mix}"].flatten()
        return (x * share + last * (1 - share)) @ weights[f"{att}.{name}.weight"].T

    r, k, v = linear("receptance", "r"), linear("key", "k"), linear("value", "v")
    u, log_w = weights[f"{att}.time_first"], -torch.exp(weights[f"{att}.time_decay"])
    y, state = wkv4(k, v, u, log_w, (before.aa, before.bb, before.pp))
    return (torch.sigmoid(r) * y) @ weights[f"{att}.output.weight"].T, state


def _channel_mix(weights: Weights, layer: int, x: Tensor, before_x: Tensor) -> Tensor:
    """The feed-forward half on normed x [..., T, D]."""
    last = shifted(x, before_x)
    share_k = weights[f"blocks.{layer}.ffn.time_mix_k"].flatten()
    share_r = weights[f"blocks.{layer}.ffn.time_mix_r"].flatten()
    return gated_channel_mix(weights, layer, x * share_k + last * (1 - share_k), x * share_r + last * (1 - share_r))
