"""RWKV-6 as a program: its token shifts and its decay depend on the input, through low-rank matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon_kernels.linear.format import BFLOAT16, FLOAT16, FLOAT32, INT16_ROWS
from antiphon_kernels.linear.layout import to_16_bits
from antiphon_kernels.program import ops
from antiphon_kernels.program.build import Array, Values, Weights
from antiphon_kernels.program.frame import Frame
from antiphon_kernels.program.ops import TANH, Program
from antiphon_kernels.program.rwkv5 import GROUP_NORM_EPS

MIXES = "wkvrg"
"""What the five parts of `time_maa_w1` and `time_maa_w2` are for, in their order."""


def build(weights: Weights, *, interleave: bool) -> Program:
    """The program of an RWKV-6 with the official tensor names; KeyError and ValueError when a tensor is amiss.

    The state of a timeline: per layer att_x [D], wkv [H, N (key), N (value)], ffn_x [D].
    """
    frame = Frame(Parts(weights), interleave=interleave, mixes=MIXES)
    b, width = frame.b, frame.width
    heads, head_size = weights.shape("blocks.0.att.time_faaaa")
    if heads * head_size != width:
        raise ValueError(f"blocks.0.att.time_faaaa is {heads} x {head_size}, but emb.weight is {width} wide")
    shift_rank = weights.shape("blocks.0.att.time_maa_w2")[1]
    decay_rank = weights.shape("blocks.0.att.time_decay_w1")[1]
    first, first_act = b.slot(width, own=True), b.act(width)
    low = {name: (b.slot(shift_rank), b.act(shift_rank), b.slot(shift_rank, own=True)) for name in MIXES}
    slow, slow_act, slow_rounded = b.slot(decay_rank), b.act(decay_rank), b.slot(decay_rank, own=True)
    eps, per_layer = b.number(GROUP_NORM_EPS), 2 * width + width * head_size
    frame.begin()
    for layer in range(frame.layers):
        at, place = f"blocks.{layer}.", per_layer * layer
        frame.norm(at + "ln1", after_another=layer > 0)
        at += "att."
        b.op(ops.MIX, frame.normed, place, b.vector(f"{at}time_maa_x", width), first, first_act)
        b.meet_rows()
        for turn, name in enumerate(MIXES):
            down = b.matrix(f"{at}time_maa_w1.{name}", (shift_rank, width), transpose=True)
            b.linear(first_act, first, down, low[name][0], turn=turn)
        b.meet()
        for slot, act, rounded in low.values():
            b.op(ops.ROUND, slot, act, TANH, shift_rank, rounded)
        b.meet_rows()
        for turn, (name, (_, act, rounded)) in enumerate(low.items()):
            up = b.matrix(f"{at}time_maa_w2.{name}", (width, shift_rank), transpose=True)
            b.linear(act, rounded, up, frame.made[name], turn=turn)
        b.meet()
        for name in MIXES:
            maa = b.vector(f"{at}time_maa_{name}", width)
            b.op(ops.MIX_BY, frame.normed, place, maa, frame.mixed[name], frame.acts[name], frame.made[name])
        b.meet()  # for the matrices now overwrite what the token shifts have read
        frame.linears(at, "rkvg")
        down = b.matrix(f"{at}time_decay_w1", (decay_rank, width), transpose=True)
        b.linear(frame.acts["w"], frame.mixed["w"], down, slow)
        b.meet()
        frame.keep(place)
        b.op(ops.ROUND, slow, slow_act, TANH, decay_rank, slow_rounded)
        b.meet_rows()
        up = b.matrix(f"{at}time_decay_w2", (width, decay_rank), transpose=True)
        b.linear(slow_act, slow_rounded, up, frame.made["w"])
        b.meet()
        r, w, k, v, g = (frame.made[name] for name in "rwkvg")
        vectors = (b.vector(at + name, width) for name in ("time_decay", "time_faaaa", "ln_x.weight", "ln_x.bias"))
        b.op(ops.HEADS_5, r, w, k, v, g, frame.y, place + width, *vectors, eps)
        b.meet()
        frame.output(at)
        frame.channel_mix(layer, mix="time_maa", place=place + per_layer - width)
    start = np.zeros(frame.layers * per_layer, np.float32)
    return frame.program(n_head=heads, head_size=head_size, start=start)


class Parts:
    """`weights`, and the parts of `time_maa_w1` and `time_maa_w2` as matrices of their own: NAME.w, NAME.k, …

    They are held as `weights` holds other low-rank matrices: in 16 bits, or as floats.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def shape(self, name: str) -> tuple[int, ...]:
        """See `build.Weights`; ValueError when a tensor does not divide into its parts."""
        whole, part = _divided(name)
        if part < 0:
            return self._weights.shape(name)
        shape = self._weights.shape(whole)
        if len(shape) == 3 and shape[0] == len(MIXES):
            return shape[1:]
        if len(shape) == 2 and shape[1] % len(MIXES) == 0:
            return shape[0], shape[1] // len(MIXES)
        raise ValueError(f"{whole} is {'x'.join(map(str, shape))}, which are not {len(MIXES)} parts")

    def held(self, name: str) -> tuple[int, int]:
        """See `build.Weights`."""
        return self._weights.held(_divided(name)[0])

    def matrix(self, name: str, *, transpose: bool) -> Values:
        """See `build.Weights`."""
        whole, part = _divided(name)
        if part < 0:
            return self._weights.matrix(name, transpose=transpose)
        shape = self._weights.shape(whole)
        tensor = self._weights.vector(whole).reshape(shape)
        if not np.isfinite(tensor).all():
            raise ValueError(f"{whole} holds a NaN or an infinity")
        size = shape[-1] // len(MIXES)
        own = tensor[part] if len(shape) == 3 else tensor[:, part * size : (part + 1) * size]
        own = own.T if transpose else own
        form, _ = self.held(name)
        if form == INT16_ROWS:
            values, scales = to_16_bits(own)
            return Values(values=values, scales=scales)
        if form not in (FLOAT32, BFLOAT16, FLOAT16):
            raise ValueError(f"{whole} is a low-rank weight, which is held in 16 bits or as floats")
        if form == FLOAT16 and np.abs(own).max() > np.finfo(np.float16).max:
            raise ValueError(f"{whole} holds numbers beyond float16")
        return Values(values=np.ascontiguousarray(own))

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        """See `build.Weights`."""
        return self._weights.vector(name)

    def embedding(self) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """See `build.Weights`."""
        return self._weights.embedding()


def _divided(name: str) -> tuple[str, int]:
    """(the tensor, the number of its part), or (name, -1) for a tensor that is not divided."""
    whole, _, part = name.rpartition(".")
    if whole.endswith((".time_maa_w1", ".time_maa_w2")) and part in MIXES:
        return whole, MIXES.index(part)
    return name, -1
