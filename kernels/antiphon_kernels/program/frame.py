"""What the programs of RWKV-4, 5 and 6 have in common: everything but their time mixing between its matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon_kernels.program import ops
from antiphon_kernels.program.build import Array, Builder, Weights
from antiphon_kernels.program.ops import PLAIN, RELU_SQUARED, Program

LINEARS = {"r": "receptance", "k": "key", "v": "value", "g": "gate"}
"""The square matrices of the time mixing, by the names of their token shifts."""


class Frame:
    """A program on its way: the slots and acts that all layers share, and the phases that all versions have.

    `x` is what runs through the layers, `normed` what a half of a layer reads, `out` what it gives. `mixed` and `made`
    are a slot each for what goes into and comes out of the matrices of `mixes`, `acts` what is rounded of the former.
    """

    def __init__(self, weights: Weights, *, interleave: bool, mixes: str) -> None:
        self.vocab, self.width = weights.shape("emb.weight")
        self.ffn_dim = weights.shape("blocks.0.ffn.key.weight")[0]
        self.layers = 0
        while has(weights, f"blocks.{self.layers}.ln1.weight"):
            self.layers += 1
        self.b = b = Builder(weights, interleave=interleave)
        self.x, self.normed = b.slot(self.width, own=True), b.slot(self.width, own=True)
        self.out, self.y = b.slot(self.width), b.slot(self.width)
        self._rounded = b.slot(max(self.width, self.ffn_dim), own=True)
        self.mixed = {name: b.slot(self.width, own=True) for name in mixes}
        self.made = {name: b.slot(self.width) for name in mixes}
        self.acts = {name: b.act(self.width) for name in mixes}
        self.last = b.act(self.width)
        self._hidden, self._hidden_act = b.slot(self.ffn_dim), b.act(self.ffn_dim)

    def begin(self) -> None:
        """The embedding's rows, normed, into x."""
        b = self.b
        weight, bias = b.vector("blocks.0.ln0.weight", self.width), b.vector("blocks.0.ln0.bias", self.width)
        b.op(ops.BEGIN, self.x, weight, bias)
        b.meet_rows()

    def norm(self, name: str, *, after_another: bool) -> None:
        """What the half before gave onto x, if there was one, and x normed."""
        b, width = self.b, self.width
        weight, bias = b.vector(f"{name}.weight", width), b.vector(f"{name}.bias", width)
        if after_another:
            b.op(ops.ADD_NORM, self.out, self.x, self.normed, weight, bias)
        else:
            b.op(ops.NORM, self.x, self.normed, weight, bias)
        b.meet_rows()

    def mix(self, name: str, tensor: str, place: int) -> None:
        """The token shift `name`; `time_mix` tensors hold the share of the present token, others that before it."""
        b = self.b
        made = _rest if "time_mix" in tensor else None
        weight = b.vector(tensor, self.width, made=made)
        b.op(ops.MIX, self.normed, place, weight, self.mixed[name], self.acts[name])

    def linears(self, at: str, names: str) -> None:
        """The square matrices of the time mixing."""
        b = self.b
        for turn, name in enumerate(names):
            square = b.matrix(f"{at}{LINEARS[name]}.weight", (self.width, self.width))
            b.linear(self.acts[name], self.mixed[name], square, self.made[name], turn=turn)

    def keep(self, place: int) -> None:
        """The state takes `normed`; to be said where no thread can still be at the token shifts, which read it."""
        self.b.op(ops.KEEP, self.normed, place)

    def output(self, at: str) -> None:
        """y through the output matrix, into out."""
        b = self.b
        b.op(ops.ROUND, self.y, self.last, PLAIN, self.width, self._rounded)
        b.meet_rows()
        b.linear(self.last, self._rounded, b.matrix(f"{at}output.weight", (self.width, self.width)), self.out)
        b.meet()

    def channel_mix(self, number: int, *, mix: str, place: int) -> None:
        """The whole second half of a layer, into out; `mix` is what its token shifts are called."""
        b, width, at = self.b, self.width, f"blocks.{number}."
        self.norm(at + "ln2", after_another=True)
        at += "ffn."
        for name in "kr":
            self.mix(name, f"{at}{mix}_{name}", place)
        b.meet_rows()
        key = b.matrix(f"{at}key.weight", (self.ffn_dim, width))
        b.linear(self.acts["k"], self.mixed["k"], key, self._hidden)
        receptance = b.matrix(f"{at}receptance.weight", (width, width))
        b.linear(self.acts["r"], self.mixed["r"], receptance, self.made["r"], turn=1)
        b.meet()
        self.keep(place)
        b.op(ops.ROUND, self._hidden, self._hidden_act, RELU_SQUARED, self.ffn_dim, self._rounded)
        b.meet_rows()
        value = b.matrix(f"{at}value.weight", (width, self.ffn_dim), often_zero=True)
        b.linear(self._hidden_act, self._rounded, value, self.out)
        b.meet()
        b.op(ops.GATE, self.out, self.made["r"])
        b.meet()

    def program(self, *, n_head: int, head_size: int, start: npt.NDArray[np.float32]) -> Program:
        """Onto x what is left, and the logits."""
        b, width = self.b, self.width
        b.op(ops.ADD, self.out, self.x)
        b.meet_rows()
        weight, bias = b.vector("ln_out.weight", width), b.vector("ln_out.bias", width)
        b.op(ops.HEAD_ROUND, self.x, self.normed, self.last, weight, bias)
        b.meet_rows()
        b.head(self.last, self.normed, b.matrix("head.weight", (self.vocab, width)))
        b.meet()
        b.op(ops.FINISH)
        b.meet()
        return b.program(n_head=n_head, head_size=head_size, start=start)


def has(weights: Weights, name: str) -> bool:
    """Whether there is a tensor of that name."""
    try:
        weights.shape(name)
    except KeyError:
        return False
    return True


def _rest(share: Array) -> Array:
    """What is left of 1."""
    return 1 - share
