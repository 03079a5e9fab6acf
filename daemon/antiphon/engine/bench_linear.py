"""The linear layers among the kernels to be timed: the widest matrix of a model's layers, in every format."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.engine.bench_case import SEED, Case, Kernel, Load, furthest
from antiphon.engine.bench_memory import memory_of
from antiphon.model.precision import GROUP
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear import numba_cpu, reference
from antiphon_kernels.linear.layout import describe, lay_out, sizes_of
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.linear.space import scratch_bytes

_FORMATS = {
    "linear-int8": (fmt.INT8_ROWS, "weights in int8, a scale for each output"),
    "linear-int16": (fmt.INT16_ROWS, "weights in 16 bits, a scale for each output"),
    "linear-int8-groups": (fmt.INT8_GROUPS, f"weights in int8, a scale for every {GROUP} inputs"),
    "linear-int4": (fmt.INT4_GROUPS, f"weights in 4 bits, a scale for every {GROUP} inputs"),
    "linear-fp32": (fmt.FLOAT32, "weights in float32"),
    "linear-bf16": (fmt.BFLOAT16, "weights in bfloat16"),
    "linear-fp16": (fmt.FLOAT16, "weights in float16"),
}


def linear_kernels() -> tuple[Kernel, ...]:
    """One for each format."""
    return tuple(
        Kernel(name=name, what=f"rows times a matrix: {what}", case=partial(_linear, form))
        for name, (form, what) in _FORMATS.items()
    )


def _linear(form: int, load: Load) -> Case:
    """`rows` rows times ffn.key: rounded, multiplied, scaled."""
    rng = np.random.default_rng(SEED)
    outputs, inputs, rows = load.spec.ffn_dim, load.spec.n_embd, load.rows
    values, given = _random(form, outputs, inputs, rng)
    group = GROUP if form in (fmt.INT8_GROUPS, fmt.INT4_GROUPS) else 0
    matrix = describe(form, outputs, inputs, group=group)
    nbytes, floats = sizes_of(form, outputs, inputs, group=group)
    interleave = vnni_bits() > 0
    weights = memory_of(nbytes).view(np.uint8 if interleave else np.int8)[:nbytes]
    scales = np.zeros(floats, np.float32)
    lay_out(values, given, matrix, weights, scales, interleave=interleave)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    out = np.empty((rows, outputs), np.float32)
    padded = int(matrix[fmt.PADDED])
    act = (
        np.zeros(rows * padded, np.int8),
        np.zeros(rows * padded, np.int8),
        np.zeros(rows * padded, np.int16),
        np.zeros(rows * padded // fmt.Q_GROUP, np.int32),
        np.zeros(rows, np.float32),
        padded,
    )
    scratch = np.zeros(scratch_bytes(matrix[None]), np.uint8)
    blocks = int(matrix[fmt.BLOCKS])

    def call() -> None:
        numba_cpu.linear(
            weights, scales, matrix, x.reshape(-1), inputs, act, rows, 0, blocks, out.reshape(-1), outputs, scratch
        )

    def difference() -> float:
        call()
        return furthest(out, reference.linear(form, values, given, x, group=group))

    return Case(
        size=f"{outputs} x {inputs}, {rows} rows",
        call=call,
        plain=lambda: reference.linear(form, values, given, x, group=group),
        nbytes=nbytes + scales.nbytes + x.nbytes + out.nbytes,
        operations=2 * rows * outputs * inputs,
        difference=difference,
    )


def _random(
    form: int, outputs: int, inputs: int, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Weights and scales of a matrix in `form`."""
    if form >= fmt.FLOAT32:
        return rng.standard_normal((outputs, inputs)).astype(np.float32), None
    low, high = {fmt.INT16_ROWS: (-fmt.LEVELS, fmt.LEVELS), fmt.INT4_GROUPS: (-8, 7)}.get(form, (-127, 127))
    values = rng.integers(low, high + 1, (outputs, inputs))
    groups = -(-inputs // GROUP)
    size = (outputs, groups) if form in (fmt.INT8_GROUPS, fmt.INT4_GROUPS) else (outputs,)
    return values.astype(np.int16 if form == fmt.INT16_ROWS else np.int8), rng.uniform(0.5, 1.5, size).astype(
        np.float32
    )
