"""Every RWKV by one name: the definition that belongs to a spec's version.

All versions are fed alike; what differs is what a state is made of, and `pack` makes one vector of any of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from antiphon.model import matrix_state, rwkv4, rwkv5, rwkv6, rwkv7
from antiphon.model.layers import GROUP_NORM_EPS, Weights
from antiphon.model.spec import ModelSpec, Version

State = rwkv4.State | matrix_state.State


def zero_state(spec: ModelSpec, *, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> State:
    """The state before the first token."""
    if spec.version is Version.V4:
        return rwkv4.zero_state(spec, batch=batch, dtype=dtype)
    return matrix_state.zero_state(spec, batch=batch, dtype=dtype)


def step(
    spec: ModelSpec, weights: Weights, token: int, state: State | None = None, *, ln_x_eps: float = GROUP_NORM_EPS
) -> tuple[Tensor, State]:
    """Feed one token: logits [V] for the next one, and the state after it."""
    logits, after = sequence(spec, weights, torch.tensor([token]), state, ln_x_eps=ln_x_eps)
    return logits[0], after


def sequence(
    spec: ModelSpec, weights: Weights, tokens: Tensor, state: State | None = None, *, ln_x_eps: float = GROUP_NORM_EPS
) -> tuple[Tensor, State]:
    """Feed tokens [T] or [B, T] (T >= 1): logits [..., T, V], and the state after the last one.

    The given state is left as it was; None stands for the zero state. ln_x_eps: the constant under the root of the norm
    over heads, which files of rwkv.cpp have otherwise for RWKV-5; the other versions know one only and ValueError is
    raised for any other.
    """
    if state is None:
        state = zero_state(spec, batch=tuple(tokens.shape[:-1]), dtype=weights["emb.weight"].dtype)
    if spec.version in (Version.V5_0, Version.V5_1, Version.V5_2):
        return rwkv5.sequence(weights, tokens, _matrices(state), ln_x_eps=ln_x_eps)
    if ln_x_eps != GROUP_NORM_EPS:
        raise ValueError(f"RWKV-{spec.version} norms its heads with {GROUP_NORM_EPS}, not {ln_x_eps}")
    if spec.version is Version.V4:
        return rwkv4.sequence(weights, tokens, _channels(state))
    if spec.version is Version.V6:
        return rwkv6.sequence(weights, tokens, _matrices(state))
    return rwkv7.sequence(weights, tokens, _matrices(state))


def pack(state: State) -> Tensor:
    """The state as one vector [..., spec.state_floats]."""
    if isinstance(state[0], rwkv4.ChannelState):
        return rwkv4.pack(_channels(state))
    return matrix_state.pack(_matrices(state))


def unpack(spec: ModelSpec, packed: Tensor) -> State:
    """The state that `pack` made a vector of."""
    return rwkv4.unpack(spec, packed) if spec.version is Version.V4 else matrix_state.unpack(spec, packed)


def _channels(state: State) -> rwkv4.State:
    """The state of an RWKV-4; TypeError for another's."""
    layers = tuple(layer for layer in state if isinstance(layer, rwkv4.ChannelState))
    if len(layers) != len(state):
        raise TypeError("an RWKV-4 keeps sums, and was given a state of matrices")
    return layers


def _matrices(state: State) -> matrix_state.State:
    """The state of an RWKV-5, 6 or 7; TypeError for another's."""
    layers = tuple(layer for layer in state if isinstance(layer, matrix_state.LayerState))
    if len(layers) != len(state):
        raise TypeError("an RWKV-5, 6 or 7 keeps matrices, and was given a state of sums")
    return layers
