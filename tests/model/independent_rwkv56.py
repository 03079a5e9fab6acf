"""RWKV-5 and 6 stated a second time: float64, scalar by scalar, no state (arXiv 2404.05892, sections 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model.independent_parts import (
    Tensors,
    Vector,
    added,
    affine,
    before,
    between,
    embedded,
    gated_channel_mix,
    heads,
    layer_norm,
    logits,
    normed,
    sigmoid,
    through,
    times,
)  # fmt: skip


def run(tensors: Tensors, ids: Sequence[int], *, n_head: int, eps: float = 64e-5) -> tuple[list[Vector], Vector]:
    """Logits after each id, and what an engine remembers after the last: per layer att_x, wkv [key][value], ffn_x."""
    xs, state = embedded(tensors, ids), []
    for layer in range(tensors.layers):
        att = f"blocks.{layer}.att"
        inputs = [layer_norm(tensors, f"blocks.{layer}.ln1", x) for x in xs]
        parts = (_sixth if f"{att}.time_maa_x" in tensors else _fifth)(tensors, att, inputs)
        r, k, v, w = ([heads(number, n_head) for number in parts[name]] for name in "rkvw")
        u = _bonus(tensors, att, n_head, len(inputs[0]))
        for t in range(len(ids)):
            out: Vector = []
            for head in range(n_head):
                out += normed(_read(*([row[head] for row in part] for part in (r, k, v, w)), u[head], t), eps)
            out = affine(tensors, f"{att}.ln_x", out)
            if "g" in parts:
                out = [number * g * sigmoid(g) for number, g in zip(out, parts["g"][t], strict=True)]
            xs[t] = added(xs[t], times(tensors(f"{att}.output.weight"), out))
        ffn_inputs = [layer_norm(tensors, f"blocks.{layer}.ln2", x) for x in xs]
        mix = "time_maa" if f"{att}.time_maa_x" in tensors else "time_mix"
        xs = [added(x, out) for x, out in zip(xs, gated_channel_mix(tensors, layer, ffn_inputs, mix), strict=True)]
        state += inputs[-1]
        for head in range(n_head):
            state += _matrix(*([row[head] for row in part] for part in (k, v, w)))
        state += ffn_inputs[-1]
    return logits(tensors, xs), state


def _fifth(tensors: Tensors, att: str, xs: list[Vector]) -> dict[str, list[Vector]]:
    """r, k, v, w and g of RWKV-5; the decay is the same at every token, and for a head or for a channel."""
    width = len(xs[0])
    decays = tensors(f"{att}.time_decay")
    flat = [number for row in decays for number in row] if isinstance(decays[0], list) else decays
    w = [math.exp(-math.exp(flat[channel * len(flat) // width])) for channel in range(width)]
    parts = {"w": [w] * len(xs)}
    for name in ("receptance", "key", "value", "gate"):
        if f"{att}.{name}.weight" in tensors:
            share = tensors(f"{att}.time_mix_{name[0]}")
            parts[name[0]] = [
                times(tensors(f"{att}.{name}.weight"), between(x, last, share))
                for x, last in zip(xs, before(xs), strict=True)
            ]
    return parts


def _sixth(tensors: Tensors, att: str, xs: list[Vector]) -> dict[str, list[Vector]]:
    """r, k, v, w and g of RWKV-6, whose token shift and decay depend on the input."""
    parts: dict[str, list[Vector]] = {name: [] for name in "wkvrg"}
    w1, w2 = tensors(f"{att}.time_maa_w1"), tensors(f"{att}.time_maa_w2")
    rank = len(w2[0])
    for x, last in zip(xs, before(xs), strict=True):
        first = [1 - share for share in tensors(f"{att}.time_maa_x")]
        hidden = [math.tanh(number) for number in through(between(x, last, first), w1)]
        mixed = {}
        for i, name in enumerate("wkvrg"):
            moved = through(hidden[i * rank : (i + 1) * rank], w2[i])
            share = [1 - a - b for a, b in zip(tensors(f"{att}.time_maa_{name}"), moved, strict=True)]
            mixed[name] = between(x, last, share)
        for name in ("receptance", "key", "value", "gate"):
            parts[name[0]].append(times(tensors(f"{att}.{name}.weight"), mixed[name[0]]))
        hidden = [math.tanh(number) for number in through(mixed["w"], tensors(f"{att}.time_decay_w1"))]
        decay = added(tensors(f"{att}.time_decay"), through(hidden, tensors(f"{att}.time_decay_w2")))
        parts["w"].append([math.exp(-math.exp(number)) for number in decay])
    return parts


def _bonus(tensors: Tensors, att: str, n_head: int, width: int) -> list[Vector]:
    if f"{att}.time_first" in tensors:
        flat = [math.exp(number) for number in tensors(f"{att}.time_first")]
    else:
        given = tensors(f"{att}.time_faaaa")
        flat = [number for row in given for number in row] if isinstance(given[0], list) else given
    return heads([flat[channel * len(flat) // width] for channel in range(width)], n_head)


def _read(r: list[Vector], k: list[Vector], v: list[Vector], w: list[Vector], u: Vector, t: int) -> Vector:
    """What the receptance at t finds: every value so far, as much as its key, faded since, agrees with it."""
    out = [math.fsum(r[t][n] * u[n] * k[t][n] for n in range(len(u))) * number for number in v[t]]
    for i in range(t):
        agreement = math.fsum(r[t][n] * k[i][n] * math.prod(w[j][n] for j in range(i + 1, t)) for n in range(len(u)))
        out = [one + agreement * number for one, number in zip(out, v[i], strict=True)]
    return out


def _matrix(k: list[Vector], v: list[Vector], w: list[Vector]) -> Vector:
    """All keys times their values, each faded since, row by row of the keys."""
    tokens, size = len(k), len(k[0])
    return [
        math.fsum(k[i][n] * v[i][m] * math.prod(w[j][n] for j in range(i + 1, tokens)) for i in range(tokens))
        for n in range(size)
        for m in range(size)
    ]
