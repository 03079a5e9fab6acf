"""Whether a model fits before it is loaded: weights, states and workspace in a precision, against what is free.

What a device has left is asked for, not what it was sold with; what does not fit is refused with what would (S0-162).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from antiphon.engine.free_memory import Free
from antiphon.errors import AntiphonError
from antiphon.model.own_form import FLOATS, is_linear
from antiphon.model.precision import GROUP, Precision
from antiphon.model.spec import ModelSpec
from antiphon_kernels.linear.format import BLOCK, INPUTS_PAD, up

BY_WORTH = (Precision.FP32, Precision.BF16, Precision.FP16, Precision.INT8_GROUPS, Precision.INT8, Precision.INT4)
"""The precisions from the truest to the smallest."""

TIMELINES = 8
"""Sequences that a model is expected to remember at once."""

_SCALE_BYTES = 2  # of a group
_ROWS = 64  # of a slab
_SLABS = 2  # text on its way, and music in between
_LOW_RANK = {precision: 4 if precision is Precision.FP32 else 2 for precision in Precision}
_CONTEXT_BYTES = 600 << 20  # what CUDA and its libraries take on a GPU for themselves
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that a model takes on its device. workspace: what running it, and at first reading it, takes besides."""

    weights: int
    states: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.states + self.workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a model stands to a device: what it needs in a precision, and which others would do, the truest first."""

    precision: Precision
    need: Need
    free: Free
    instead: tuple[Precision, ...]

    @property
    def fits(self) -> bool:
        return self.need.total <= self.free.nbytes


def need_of(
    spec: ModelSpec, precision: Precision, *, device: str, timelines: int = TIMELINES, embedding_bytes: int = 2
) -> Need:
    """What a model takes on `cpu` or `cuda:N` to run `timelines`. embedding_bytes: of a number as the file has it."""
    weights = 4.0 * spec.state_floats  # the state that every timeline starts from
    largest = 0
    for name, shape in spec.shapes().items():
        count = math.prod(shape)
        largest = max(largest, count)
        if name == "emb.weight":
            weights += count * embedding_bytes + (4 * shape[0] if embedding_bytes == 1 else 0)
        elif is_linear(name):
            weights += _linear_bytes(shape, precision)
        elif sum(size > 1 for size in shape) > 1:
            # A low-rank pair: its narrow side is padded, which for small models is half of it.
            weights += _padded(shape[-2], shape[-1]) * (count // (shape[-2] * shape[-1])) * _LOW_RANK[precision]
        else:
            weights += 4 * count
    a_row = 4 * (24 * spec.n_embd + 3 * spec.ffn_dim)
    workspace = _SLABS * (_ROWS * a_row + 4 * spec.vocab_size)
    # One tensor in float32 on its way to what it will be, with as much again to round it in.
    workspace = max(workspace, 8 * largest) if device == "cpu" else workspace + _CONTEXT_BYTES
    states = timelines * 4 * (spec.state_floats + spec.vocab_size)
    return Need(weights=round(weights), states=states, workspace=workspace)


def fit_of(
    spec: ModelSpec,
    precision: Precision,
    *,
    device: str,
    free: Free,
    timelines: int = TIMELINES,
    embedding_bytes: int = 2,
) -> Fit:
    """How a model stands to a device with `free` memory."""

    def need(one: Precision) -> Need:
        return need_of(spec, one, device=device, timelines=timelines, embedding_bytes=embedding_bytes)

    instead = tuple(one for one in BY_WORTH if one is not precision and need(one).total <= free.nbytes)
    return Fit(precision=precision, need=need(precision), free=free, instead=instead)


def recommended(spec: ModelSpec, *, device: str, free: Free, timelines: int = TIMELINES) -> Precision | None:
    """The truest of bf16, int8 and int4 that fits; None when none does. Float32 is worth nothing to the ear."""
    for precision in (Precision.BF16, Precision.INT8, Precision.INT4):
        if need_of(spec, precision, device=device, timelines=timelines).total <= free.nbytes:
            return precision
    return None


def require_fit(fit: Fit, *, where: str) -> None:
    """Raise AntiphonError when it does not fit: what is needed, what is free, and what would fit."""
    if fit.fits:
        return
    need = fit.need
    what = (
        f"in {fit.precision} it needs {_gib(need.total)} (weights {_gib(need.weights)}, states {_gib(need.states)}, "
        f"workspace {_gib(need.workspace)}), and {_gib(fit.free.nbytes)} are free in {fit.free.limit}"
    )
    fix = "choose a smaller model, or free memory"
    if fit.instead:
        fix = f"{' or '.join(fit.instead)} would fit"
    raise AntiphonError(what, where=where, fix=fix)


def _linear_bytes(shape: tuple[int, ...], precision: Precision) -> float:
    outputs, inputs = shape
    count = _padded(inputs, outputs)
    if precision in FLOATS:
        return count * FLOATS[precision].itemsize
    if precision is Precision.INT8 or inputs % GROUP:
        return count + 4 * outputs
    return count * (0.5 if precision is Precision.INT4 else 1) + count / GROUP * _SCALE_BYTES


def _padded(inputs: int, outputs: int) -> int:
    """Weights of a matrix as it is laid out: whole blocks of outputs, whole cache lines of inputs."""
    return up(inputs, INPUTS_PAD) * up(outputs, BLOCK)


def _gib(nbytes: int) -> str:
    return f"{nbytes / _GIB:.2f} GiB" if nbytes >= _GIB / 10 else f"{nbytes / (1 << 20):.1f} MiB"
