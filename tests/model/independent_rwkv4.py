"""RWKV-4 stated a second time: float64, scalar by scalar, without a state (arXiv 2305.13048, equations 11 to 18)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model.independent_parts import (
    Tensors,
    Vector,
    added,
    before,
    between,
    embedded,
    gated_channel_mix,
    layer_norm,
    logits,
    sigmoid,
    times,
)  # fmt: skip


def run(tensors: Tensors, ids: Sequence[int]) -> tuple[list[Vector], Vector]:
    """Logits after each id, and what an engine remembers after the last: per layer att_x, aa, bb, pp, ffn_x."""
    xs, state = embedded(tensors, ids), []
    for layer in range(tensors.layers):
        att = f"blocks.{layer}.att"
        inputs = [layer_norm(tensors, f"blocks.{layer}.ln1", x) for x in xs]
        mixed = {
            name: [
                times(tensors(f"{att}.{name}.weight"), between(x, last, tensors(f"{att}.time_mix_{name[0]}")))
                for x, last in zip(inputs, before(inputs), strict=True)
            ]
            for name in ("receptance", "key", "value")
        }
        keys, values = mixed["key"], mixed["value"]
        paces = [math.exp(decay) for decay in tensors(f"{att}.time_decay")]
        for t in range(len(ids)):
            weighted = [
                _weighted(keys, values, channel, t, paces[channel], bonus)
                for channel, bonus in enumerate(tensors(f"{att}.time_first"))
            ]
            gated = [sigmoid(r) * number for r, number in zip(mixed["receptance"][t], weighted, strict=True)]
            xs[t] = added(xs[t], times(tensors(f"{att}.output.weight"), gated))
        ffn_inputs = [layer_norm(tensors, f"blocks.{layer}.ln2", x) for x in xs]
        xs = [
            added(x, out) for x, out in zip(xs, gated_channel_mix(tensors, layer, ffn_inputs, "time_mix"), strict=True)
        ]
        state += inputs[-1] + _sums(keys, values, paces) + ffn_inputs[-1]
    return logits(tensors, xs), state


def _weighted(keys: list[Vector], values: list[Vector], channel: int, t: int, pace: float, bonus: float) -> float:
    """The mean of all values up to t, weighted by e to their keys: older ones fade, the present one gets a bonus."""
    weights = [math.exp(keys[i][channel] - (t - 1 - i) * pace) for i in range(t)]
    weights.append(math.exp(keys[t][channel] + bonus))
    return math.fsum(w * values[i][channel] for i, w in enumerate(weights)) / math.fsum(weights)


def _sums(keys: list[Vector], values: list[Vector], paces: Vector) -> Vector:
    """aa, bb and pp: both sums relative to the largest weight, and its logarithm."""
    aa, bb, pp = [], [], []
    for channel, pace in enumerate(paces):
        faded = [keys[i][channel] - (len(keys) - 1 - i) * pace for i in range(len(keys))]
        pp.append(max(faded))
        weights = [math.exp(exponent - pp[-1]) for exponent in faded]
        aa.append(math.fsum(w * values[i][channel] for i, w in enumerate(weights)))
        bb.append(math.fsum(weights))
    return aa + bb + pp
