"""RWKV-7 as a program: a layer is six times matrices or heads, which threads share, and what is between them."""

from __future__ import annotations

import numpy as np

from antiphon_kernels.program import ops
from antiphon_kernels.program.build import Builder, Weights
from antiphon_kernels.program.frame import has
from antiphon_kernels.program.ops import PLAIN, RELU_SQUARED, SIGMOID, TANH, Program
from antiphon_kernels.program.rwkv5 import GROUP_NORM_EPS


def build(weights: Weights, *, interleave: bool) -> Program:
    """The program of an RWKV-7 with the official tensor names; KeyError and ValueError when a tensor is amiss.

    The state of a timeline: per layer att_x [D], wkv [H, N (value), N (key)], ffn_x [D].
    """
    vocab, width = weights.shape("emb.weight")
    heads, head_size = weights.shape("blocks.0.att.r_k")
    if heads * head_size != width:
        raise ValueError(f"blocks.0.att.r_k is {heads} x {head_size}, but emb.weight is {width} wide")
    b = Builder(weights, interleave=interleave)
    layers = 0
    while has(weights, f"blocks.{layers}.att.r_k"):
        layers += 1
    layer = _Layers(b, width, ffn_dim=weights.shape("blocks.0.ffn.key.weight")[0])
    b.op(ops.BEGIN, layer.x, b.vector("blocks.0.ln0.weight", width), b.vector("blocks.0.ln0.bias", width))
    b.meet_rows()
    per_layer = 2 * width + width * head_size
    for number in range(layers):
        layer.time_mix(number, place=number * per_layer, square=width * head_size)
        layer.channel_mix(number, place=(number + 1) * per_layer - width)
    b.op(ops.ADD, layer.out, layer.x)
    b.meet_rows()
    b.op(
        ops.HEAD_ROUND, layer.x, layer.normed, layer.last,
        b.vector("ln_out.weight", width), b.vector("ln_out.bias", width),
    )  # fmt: skip
    b.meet_rows()
    b.head(layer.last, layer.normed, b.matrix("head.weight", (vocab, width)))
    b.meet()
    b.op(ops.FINISH)
    b.meet()
    return b.program(n_head=heads, head_size=head_size, start=np.zeros(layers * per_layer, np.float32))


class _Layers:
    """The slots and acts that all layers share, and the operations of one."""

    def __init__(self, b: Builder, width: int, ffn_dim: int) -> None:
        self._b, self._width, self._ffn_dim = b, width, ffn_dim
        shape = b.weights.shape
        self.x, self.normed, self.out = b.slot(width, own=True), b.slot(width, own=True), b.slot(width)
        self._y, self._v_first, self._hidden = b.slot(width), b.slot(width), b.slot(ffn_dim)
        self._rounded = b.slot(max(width, ffn_dim), own=True)
        self._mixed = {name: b.slot(width, own=True) for name in "rwkvag"}
        self._made = {name: b.slot(width) for name in "rwkvag"}
        self._mixed_acts = {name: b.act(width) for name in "rwkvag"}
        self.last = b.act(width)
        self._hidden_act = b.act(ffn_dim)
        layers_of = {"w": 0, "a": 0, "g": 0, "v": 1}
        self._ranks = {
            name: shape(f"blocks.{layer}.att.{name}1")[-1]
            for name, layer in layers_of.items()
            if has(b.weights, f"blocks.{layer}.att.{name}1")
        }
        self._low = {name: b.slot(rank) for name, rank in self._ranks.items()}
        self._low_rounded = {name: b.slot(rank, own=True) for name, rank in self._ranks.items()}
        self._low_acts = {name: b.act(rank) for name, rank in self._ranks.items()}
        self._eps = b.number(GROUP_NORM_EPS)

    def time_mix(self, number: int, *, place: int, square: int) -> None:
        """Everything up to the output matrix, whose result is left in `out`."""
        b, width, at = self._b, self._width, f"blocks.{number}."
        self._norm(at + "ln1", after_another=number > 0)
        at += "att."
        for name in "rwkvag":
            mix = b.vector(f"{at}x_{name}", width)
            b.op(ops.MIX, self.normed, place, mix, self._mixed[name], self._mixed_acts[name])
        b.meet_rows()
        self._wide(at)
        lows = [(name, function) for name, function in (("w", TANH), ("a", PLAIN), ("g", SIGMOID), ("v", PLAIN))]
        lows = lows if number else lows[:3]
        for turn, (name, _) in enumerate(lows):
            down = b.matrix(f"{at}{name}1", (self._ranks[name], width), transpose=True)
            b.linear(self._mixed_acts[name], self._mixed[name], down, self._low[name], turn=turn)
        b.meet()
        b.op(ops.KEEP, self.normed, place)
        for name, function in lows:
            act, rounded = self._low_acts[name], self._low_rounded[name]
            b.op(ops.ROUND, self._low[name], act, function, self._ranks[name], rounded)
        b.meet_rows()
        for turn, (name, _) in enumerate(lows):
            up = b.matrix(f"{at}{name}2", (width, self._ranks[name]), transpose=True)
            to = self._y if name == "v" else self._made[name]
            b.linear(self._low_acts[name], self._low_rounded[name], up, to, turn=turn)
        b.meet()
        self._heads(number, at, place=place + width)
        b.meet()
        b.op(ops.ROUND, self._y, self.last, PLAIN, width, self._rounded)
        b.meet_rows()
        b.linear(self.last, self._rounded, b.matrix(f"{at}output.weight", (width, width)), self.out)
        b.meet()

    def channel_mix(self, number: int, *, place: int) -> None:
        """Takes `out` to x, and leaves its own result there."""
        b, width, at = self._b, self._width, f"blocks.{number}."
        self._norm(at + "ln2", after_another=True)
        at += "ffn."
        b.op(ops.MIX, self.normed, place, b.vector(f"{at}x_k", width), self._mixed["k"], self._mixed_acts["k"])
        b.meet_rows()
        key = b.matrix(f"{at}key.weight", (self._ffn_dim, width))
        b.linear(self._mixed_acts["k"], self._mixed["k"], key, self._hidden)
        b.meet()
        b.op(ops.KEEP, self.normed, place)
        b.op(ops.ROUND, self._hidden, self._hidden_act, RELU_SQUARED, self._ffn_dim, self._rounded)
        b.meet_rows()
        value = b.matrix(f"{at}value.weight", (width, self._ffn_dim), often_zero=True)
        b.linear(self._hidden_act, self._rounded, value, self.out)
        b.meet()

    def _norm(self, name: str, *, after_another: bool) -> None:
        b, width = self._b, self._width
        weight, bias = b.vector(f"{name}.weight", width), b.vector(f"{name}.bias", width)
        if after_another:
            b.op(ops.ADD_NORM, self.out, self.x, self.normed, weight, bias)
        else:
            b.op(ops.NORM, self.x, self.normed, weight, bias)
        b.meet_rows()

    def _wide(self, at: str) -> None:
        b, width = self._b, self._width
        for name, matrix in (("r", "receptance"), ("k", "key"), ("v", "value")):
            square = b.matrix(f"{at}{matrix}.weight", (width, width))
            b.linear(self._mixed_acts[name], self._mixed[name], square, self._made[name])

    def _heads(self, number: int, at: str, *, place: int) -> None:
        b, width = self._b, self._width
        w0, a0 = b.vector(f"{at}w0", width), b.vector(f"{at}a0", width)
        v0 = b.vector(f"{at}v0", width) if number else 0
        others = (b.vector(at + name, width) for name in ("k_k", "k_a", "r_k", "ln_x.weight", "ln_x.bias"))
        b.op(
            ops.HEADS_7, *(self._made[name] for name in "rwkvag"), self._v_first, self._y, place,
            w0, a0, v0, *others, self._eps, int(number == 0),
        )  # fmt: skip
