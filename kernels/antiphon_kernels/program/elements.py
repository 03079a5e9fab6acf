"""The element-wise parts of a step, each a loop that the compiler turns into vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from antiphon_kernels.float32 import sigmoid, tanh
from antiphon_kernels.jit import piece
from antiphon_kernels.lanes import dot, fma, total
from antiphon_kernels.program.ops import RELU_SQUARED, SIGMOID, SILU, TANH

LN_EPS = np.float32(1e-5)


@piece
def layer_norm(source: Any, out: Any, weight: Any, bias: Any, eps: Any) -> None:
    """out = (source - mean) / sqrt(variance + eps) * weight + bias; all [n]."""
    size = np.float32(source.size)
    mean = total(source) / size
    for i in range(source.size):
        out[i] = source[i] - mean
    inverse = np.float32(1) / np.sqrt(dot(out, out) / size + eps)
    for i in range(source.size):
        out[i] = fma(out[i] * inverse, weight[i], bias[i])


@piece
def add(source: Any, onto: Any) -> None:
    """onto += source."""
    for i in range(onto.size):
        onto[i] += source[i]


@piece
def mix(x: Any, before: Any, weight: Any, out: Any) -> None:
    """out = x + (before - x) * weight: the token shift."""
    for i in range(out.size):
        out[i] = fma(before[i] - x[i], weight[i], x[i])


@piece
def mix_by(x: Any, before: Any, weight: Any, more: Any, out: Any) -> None:
    """out = x + (before - x) * (weight + more): the token shift that depends on the input."""
    for i in range(out.size):
        out[i] = fma(before[i] - x[i], weight[i] + more[i], x[i])


@piece
def gate(x: Any, by: Any) -> None:
    """x *= sigmoid(by)."""
    for i in range(x.size):
        x[i] *= sigmoid(by[i])


@piece
def copy(source: Any, out: Any) -> None:
    """out = source."""
    for i in range(out.size):
        out[i] = source[i]


@piece
def apply(function: int, x: Any, out: Any) -> None:
    """out = function(x), one of those in ops.py."""
    if function == TANH:
        for i in range(out.size):
            out[i] = tanh(x[i])
    elif function == SIGMOID:
        for i in range(out.size):
            out[i] = sigmoid(x[i])
    elif function == RELU_SQUARED:
        for i in range(out.size):
            out[i] = np.float32(0) if x[i] < 0 else x[i] * x[i]  # a NaN stays one
    elif function == SILU:
        for i in range(out.size):
            out[i] = x[i] * sigmoid(x[i])
    else:
        copy(x, out)
