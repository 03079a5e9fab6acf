"""RWKV-5.0, 5.1 and 5.2 as programs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from antiphon_kernels.program import ops
from antiphon_kernels.program.build import Array, Weights
from antiphon_kernels.program.exponential import exp
from antiphon_kernels.program.frame import Frame, has
from antiphon_kernels.program.heads5 import NONE
from antiphon_kernels.program.ops import Program

GROUP_NORM_EPS = 64e-5  # the official runtimes' ln_x, which do not divide y by 8 as the trainers do


def build(weights: Weights, *, interleave: bool, ln_x_eps: float = GROUP_NORM_EPS) -> Program:
    """The program of an RWKV-5 with the official tensor names; KeyError and ValueError when a tensor is amiss.

    ln_x_eps: the constant in the norm over heads, which rwkv.cpp's files of RWKV-5 have otherwise. The state of a
    timeline: per layer att_x [D], wkv [H, N (key), N (value)], ffn_x [D].
    """
    mixes = "rkvg" if has(weights, "blocks.0.att.gate.weight") else "rkv"
    frame = Frame(weights, interleave=interleave, mixes=mixes)
    b, width = frame.b, frame.width
    shape = weights.shape("blocks.0.att.time_decay")
    heads, head_size = shape[0], width // shape[0]
    if heads * head_size != width:
        raise ValueError(f"blocks.0.att.time_decay is of {heads} heads, but emb.weight is {width} wide")
    eps, per_layer = b.number(ln_x_eps), 2 * width + width * head_size
    frame.begin()
    for layer in range(frame.layers):
        at, place = f"blocks.{layer}.", per_layer * layer
        frame.norm(at + "ln1", after_another=layer > 0)
        at += "att."
        for name in mixes:
            frame.mix(name, f"{at}time_mix_{name}", place)
        b.meet_rows()
        frame.linears(at, mixes)
        b.meet()
        frame.keep(place)
        bonus_name = f"{at}time_first" if has(weights, f"{at}time_first") else f"{at}time_faaaa"
        for name in (f"{at}time_decay", bonus_name):
            if weights.shape(name) != shape:
                raise ValueError(f"{name} has shape {list(weights.shape(name))}, not {list(shape)}")
        made = (_decay, _raised if bonus_name.endswith("time_first") else _as_is)
        decay, bonus = (
            b.vector(name, width, made=_for_channels(width, one))
            for name, one in zip((f"{at}time_decay", bonus_name), made, strict=True)
        )
        ln_x = (b.vector(f"{at}ln_x.{name}", width) for name in ("weight", "bias"))
        gate = frame.made["g"] if "g" in mixes else NONE
        r, k, v = (frame.made[name] for name in "rkv")
        b.op(ops.HEADS_5, r, NONE, k, v, gate, frame.y, place + width, decay, bonus, *ln_x, eps)
        b.meet()
        frame.output(at)
        frame.channel_mix(layer, mix="time_mix", place=place + per_layer - width)
    start = np.zeros(frame.layers * per_layer, np.float32)
    return frame.program(n_head=heads, head_size=head_size, start=start)


def _for_channels(width: int, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Makes of numbers for heads, or for channels, `function` of them for channels."""
    return lambda numbers: np.repeat(function(numbers), width // numbers.size)


def _decay(time_decay: Array) -> Array:
    return exp(-exp(time_decay))


def _raised(time_first: Array) -> Array:
    return exp(time_first)


def _as_is(time_faaaa: Array) -> Array:
    return time_faaaa
