"""RWKV-4 as a program."""

from __future__ import annotations

import numpy as np

from antiphon_kernels.program import ops
from antiphon_kernels.program.build import Array, Weights
from antiphon_kernels.program.exponential import exp
from antiphon_kernels.program.frame import Frame
from antiphon_kernels.program.ops import Program

NOTHING_YET = -1e30  # pp before the first token: the log of a weight that is zero in every floating-point format


def build(weights: Weights, *, interleave: bool) -> Program:
    """The program of an RWKV-4 with the official tensor names; KeyError and ValueError when a tensor is amiss.

    The state of a timeline: per layer att_x, aa, bb, pp, ffn_x, all [D].
    """
    frame = Frame(weights, interleave=interleave, mixes="rkv")
    b, width = frame.b, frame.width
    frame.begin()
    for layer in range(frame.layers):
        at, place = f"blocks.{layer}.", 5 * width * layer
        frame.norm(at + "ln1", after_another=layer > 0)
        at += "att."
        for name in "rkv":
            frame.mix(name, f"{at}time_mix_{name}", place)
        b.meet_rows()
        frame.linears(at, "rkv")
        b.meet()
        frame.keep(place)
        u, log_w = b.vector(f"{at}time_first", width), b.vector(f"{at}time_decay", width, made=_log_decay)
        b.op(ops.SUMS_4, *(frame.made[name] for name in "rkv"), frame.y, place + width, u, log_w)
        b.meet()
        frame.output(at)
        frame.channel_mix(layer, mix="time_mix", place=place + 4 * width)
    start = np.zeros((frame.layers, 5, width), np.float32)
    start[:, 3] = NOTHING_YET
    return frame.program(n_head=1, head_size=1, start=start.reshape(-1))


def _log_decay(time_decay: Array) -> Array:
    return -exp(time_decay)
