"""RWKV-7 stated a second time: float64, scalar by scalar, without a state (arXiv 2503.14456, section 4)."""

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
    heads,
    layer_norm,
    logits,
    normed,
    sigmoid,
    squared_relu_through,
    through,
    times,
)  # fmt: skip


def run(tensors: Tensors, ids: Sequence[int], *, n_head: int) -> tuple[list[Vector], Vector]:
    """Logits after each id, and what an engine remembers after the last: per layer att_x, wkv [value][key], ffn_x."""
    xs, state = embedded(tensors, ids), []
    first_values: list[Vector] = []
    for layer in range(tensors.layers):
        att = f"blocks.{layer}.att"
        inputs = [layer_norm(tensors, f"blocks.{layer}.ln1", x) for x in xs]
        tokens = [
            _parts(tensors, att, x, last, first_values[t] if layer else [], n_head)
            for t, (x, last) in enumerate(zip(inputs, before(inputs), strict=True))
        ]
        if layer == 0:
            first_values = [token["v"] for token in tokens]
        cut = [{name: heads(part, n_head) for name, part in token.items()} for token in tokens]
        for t in range(len(ids)):
            read: Vector = []
            for head in range(n_head):
                read += normed(_read([{n: p[head] for n, p in token.items()} for token in cut[: t + 1]]), 64e-5)
            out = affine(tensors, f"{att}.ln_x", read)
            passed: Vector = []
            for head, r_k in enumerate(tensors(f"{att}.r_k")):
                token = cut[t]
                bonus = math.fsum(a * b * c for a, b, c in zip(token["r"][head], token["k"][head], r_k, strict=True))
                passed += [bonus * number for number in token["v"][head]]
            gated = [number * g for number, g in zip(added(out, passed), tokens[t]["g"], strict=True)]
            xs[t] = added(xs[t], times(tensors(f"{att}.output.weight"), gated))
        ffn = [layer_norm(tensors, f"blocks.{layer}.ln2", x) for x in xs]
        share = [1 - part for part in tensors(f"blocks.{layer}.ffn.x_k")]
        for t, (x, last) in enumerate(zip(ffn, before(ffn), strict=True)):
            xs[t] = added(xs[t], squared_relu_through(tensors, f"blocks.{layer}.ffn", between(x, last, share)))
        state += inputs[-1]
        for head in range(n_head):
            state += _matrix([{n: p[head] for n, p in token.items()} for token in cut])
        state += ffn[-1]
    return logits(tensors, xs), state


def _parts(tensors: Tensors, att: str, x: Vector, last: Vector, first: Vector, n_head: int) -> dict[str, Vector]:
    """r, w, k, v, kappa, a and g of one token."""

    def mixed(name: str) -> Vector:
        return between(x, last, [1 - share for share in tensors(f"{att}.x_{name}")])

    def low_rank(name: str, hidden: Vector) -> Vector:
        return added(tensors(f"{att}.{name}0"), through(hidden, tensors(f"{att}.{name}2")))

    r, k, v = (times(tensors(f"{att}.{name}.weight"), mixed(name[0])) for name in ("receptance", "key", "value"))
    slowed = low_rank("w", [math.tanh(number) for number in through(mixed("w"), tensors(f"{att}.w1"))])
    # The paper's form of the decay: e^(-e^(-softplus(-x) - 1/2)).
    w = [math.exp(-math.exp(-math.log1p(math.exp(-number)) - 0.5)) for number in slowed]
    a = [sigmoid(number) for number in low_rank("a", through(mixed("a"), tensors(f"{att}.a1")))]
    g = through([sigmoid(number) for number in through(mixed("g"), tensors(f"{att}.g1"))], tensors(f"{att}.g2"))
    if first:
        shares = [sigmoid(number) for number in low_rank("v", through(mixed("v"), tensors(f"{att}.v1")))]
        v = [own + (other - own) * share for own, other, share in zip(v, first, shares, strict=True)]
    kappa: Vector = []
    for part in heads([number * by for number, by in zip(k, tensors(f"{att}.k_k"), strict=True)], n_head):
        length = max(math.sqrt(math.fsum(number * number for number in part)), 1e-12)
        kappa += [number / length for number in part]
    k = [number * (1 + (rate - 1) * by) for number, rate, by in zip(k, a, tensors(f"{att}.k_a"), strict=True)]
    return {"r": r, "w": w, "k": k, "v": v, "kappa": kappa, "a": a, "g": g}


def _read(tokens: list[dict[str, Vector]]) -> Vector:
    """What the last token's receptance finds: it goes back in time, through every change that was made since."""
    asked, out = tokens[-1]["r"], [0.0] * len(tokens[-1]["v"])
    for token in reversed(tokens):
        agreement = math.fsum(k * q for k, q in zip(token["k"], asked, strict=True))
        out = [number + agreement * value for number, value in zip(out, token["v"], strict=True)]
        asked = _back(token, asked)
    return out


def _back(token: dict[str, Vector], asked: Vector) -> Vector:
    """(diag(w) - kappa (kappa a)') times what is asked: how this token changed what was there before it."""
    replaced = math.fsum(k * a * q for k, a, q in zip(token["kappa"], token["a"], asked, strict=True))
    return [w * q - k * replaced for w, q, k in zip(token["w"], asked, token["kappa"], strict=True)]


def _matrix(tokens: list[dict[str, Vector]]) -> Vector:
    """The matrix, row by row of the values: what each single key would find."""
    size = len(tokens[0]["k"])
    columns = []
    for key in range(size):
        asked, column = [float(n == key) for n in range(size)], [0.0] * size
        for token in reversed(tokens):
            agreement = math.fsum(k * q for k, q in zip(token["k"], asked, strict=True))
            column = [number + agreement * value for number, value in zip(column, token["v"], strict=True)]
            asked = _back(token, asked)
        columns.append(column)
    return [columns[key][value] for value in range(size) for key in range(size)]
