"""The state of RWKV-5, 6 and 7: a matrix per head, and the last inputs of the two halves of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from antiphon.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState:
    """What one layer remembers; leading batch axes are allowed.

    `att_x` [..., D] and `ffn_x` [..., D] are the last inputs of the two halves (after their norms),
    `wkv` [..., H, N, N] is the matrix state, indexed [value, key] in RWKV-7 and [key, value] in RWKV-5 and 6.
    """

    att_x: Tensor
    wkv: Tensor
    ffn_x: Tensor


State = tuple[LayerState, ...]


def zero_state(spec: ModelSpec, *, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> State:
    """The state before the first token."""
    d, h, n = spec.n_embd, spec.n_head, spec.head_size
    return tuple(
        LayerState(
            att_x=torch.zeros(*batch, d, dtype=dtype),
            wkv=torch.zeros(*batch, h, n, n, dtype=dtype),
            ffn_x=torch.zeros(*batch, d, dtype=dtype),
        )
        for _ in range(spec.n_layer)
    )


def pack(state: State) -> Tensor:
    """The state as one vector [..., state_floats]: per layer att_x, wkv row by row, ffn_x."""
    parts: list[Tensor] = []
    for layer in state:
        parts += [layer.att_x, layer.wkv.flatten(-3), layer.ffn_x]
    return torch.cat(parts, dim=-1)


def unpack(spec: ModelSpec, packed: Tensor) -> State:
    """The state that `pack` made a vector of."""
    d, h, n = spec.n_embd, spec.n_head, spec.head_size
    layers = packed.split([d, d * n, d] * spec.n_layer, dim=-1)
    return tuple(
        LayerState(
            att_x=layers[3 * i],
            wkv=layers[3 * i + 1].unflatten(-1, (h, n, n)),
            ffn_x=layers[3 * i + 2],
        )
        for i in range(spec.n_layer)
    )
