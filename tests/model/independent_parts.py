"""What the float64 statements of RWKV share, one number after the other: written from the papers, for reading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Vector = list[float]


class Tensors:
    """A model's tensors as nested lists of Python's floats; [1, 1, D] is a vector."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors: dict[str, Any] = {
            name: (tensor[0, 0] if tensor.shape[:2] == (1, 1) else tensor).double().tolist()
            for name, tensor in tensors.items()
        }
        self.layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))

    def __call__(self, name: str) -> Any:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors


def times(matrix: Sequence[Vector], x: Vector) -> Vector:
    """matrix [out, in] times x [in]."""
    return [math.fsum(weight * number for weight, number in zip(row, x, strict=True)) for row in matrix]


def through(x: Vector, matrix: Sequence[Vector]) -> Vector:
    """x [in] times matrix [in, out]."""
    return [math.fsum(number * row[o] for number, row in zip(x, matrix, strict=True)) for o in range(len(matrix[0]))]


def normed(x: Vector, eps: float) -> Vector:
    mean = math.fsum(x) / len(x)
    variance = math.fsum((number - mean) ** 2 for number in x) / len(x)
    return [(number - mean) / math.sqrt(variance + eps) for number in x]


def layer_norm(tensors: Tensors, name: str, x: Vector) -> Vector:
    return affine(tensors, name, normed(x, 1e-5))


def affine(tensors: Tensors, name: str, x: Vector) -> Vector:
    weights, biases = tensors(f"{name}.weight"), tensors(f"{name}.bias")
    return [weight * number + bias for weight, number, bias in zip(weights, x, biases, strict=True)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def between(x: Vector, last: Vector, share: Vector) -> Vector:
    """`share` of x and the rest of the token before."""
    return [now * part + before * (1 - part) for now, before, part in zip(x, last, share, strict=True)]


def added(a: Vector, b: Vector) -> Vector:
    return [one + other for one, other in zip(a, b, strict=True)]


def embedded(tensors: Tensors, ids: Sequence[int]) -> list[Vector]:
    return [layer_norm(tensors, "blocks.0.ln0", tensors("emb.weight")[token]) for token in ids]


def logits(tensors: Tensors, xs: Sequence[Vector]) -> list[Vector]:
    return [times(tensors("head.weight"), layer_norm(tensors, "ln_out", x)) for x in xs]


def before(xs: Sequence[Vector]) -> list[Vector]:
    """The predecessors of a sequence that begins it all."""
    return [[0.0] * len(xs[0]), *xs[:-1]]


def heads(x: Vector, count: int) -> list[Vector]:
    size = len(x) // count
    return [x[at : at + size] for at in range(0, len(x), size)]


def squared_relu_through(tensors: Tensors, ffn: str, x: Vector) -> Vector:
    hidden = [max(unit, 0.0) ** 2 for unit in times(tensors(f"{ffn}.key.weight"), x)]
    return times(tensors(f"{ffn}.value.weight"), hidden)


def gated_channel_mix(tensors: Tensors, layer: int, xs: list[Vector], mix: str) -> list[Vector]:
    """The feed-forward half of RWKV-4 to 6, whose token shift goes by two names but is one thing."""
    ffn = f"blocks.{layer}.ffn"
    outs = []
    for x, last in zip(xs, before(xs), strict=True):
        # time_mix is the share of the present token, time_maa that of the one before.
        share_k, share_r = tensors(f"{ffn}.{mix}_k"), tensors(f"{ffn}.{mix}_r")
        if mix == "time_maa":
            share_k, share_r = [1 - part for part in share_k], [1 - part for part in share_r]
        value = squared_relu_through(tensors, ffn, between(x, last, share_k))
        gate = times(tensors(f"{ffn}.receptance.weight"), between(x, last, share_r))
        outs.append([sigmoid(g) * number for g, number in zip(gate, value, strict=True)])
    return outs
