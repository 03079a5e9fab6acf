"""Every linear layer equals its definition to the bit: in each format, layout and order, and for any number of rows."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear import numba_cpu, reference
from antiphon_kernels.linear.layout import describe, lay_out, sizes_of, to_16_bits
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.linear.space import scratch_bytes

Array = npt.NDArray[Any]

FORMATS = {
    "int8 rows": (fmt.INT8_ROWS, 0),
    "int16 rows": (fmt.INT16_ROWS, 0),
    "int8 in groups of 32": (fmt.INT8_GROUPS, 32),
    "int8 in groups of 128": (fmt.INT8_GROUPS, 128),
    "int4 in groups of 32": (fmt.INT4_GROUPS, 32),
    "int4 in groups of 64": (fmt.INT4_GROUPS, 64),
    "int4 in groups of 512": (fmt.INT4_GROUPS, 512),
    "float32": (fmt.FLOAT32, 0),
    "bfloat16": (fmt.BFLOAT16, 0),
    "float16": (fmt.FLOAT16, 0),
}
SIZES = [(1, 1), (5, 3), (33, 50), (64, 64), (37, 301), (130, 160)]  # outputs, inputs
ROWS = [1, 2, 3, 7, 11, 16, 21, 70]
LAYOUTS = [False, *([True] if vnni_bits() else [])]
GUARD = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Values as their format holds them, and scales where it has some."""

    form: int
    group: int
    values: Array
    scales: npt.NDArray[np.float32] | None

    def expected(self, x: Array) -> Array:
        return reference.linear(self.form, self.values, self.scales, x, group=self.group)


def random_matrix(form: int, group: int, outputs: int, inputs: int, *, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    most = {fmt.INT8_ROWS: 128, fmt.INT16_ROWS: fmt.LEVELS, fmt.INT8_GROUPS: 128, fmt.INT4_GROUPS: 8}
    if form not in most:
        return Matrix(form=form, group=0, values=rng.standard_normal((outputs, inputs)).astype(np.float32), scales=None)
    kind = np.int16 if form == fmt.INT16_ROWS else np.int8
    shape = (outputs, -(-inputs // group)) if group else (outputs,)
    return Matrix(
        form=form,
        group=group,
        values=rng.integers(-most[form], most[form], (outputs, inputs)).astype(kind),
        # Some are denormal in float16.
        scales=(rng.standard_normal(shape) * 10.0 ** rng.integers(-7, 1, shape)).astype(np.float32),
    )


def activations(rows: int, inputs: int, *, zeros: float = 0.4, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    x[rng.random(x.shape) < zeros] = 0
    return x


def run(
    matrix: Matrix,
    x: Array,
    *,
    interleave: bool,
    order: int = fmt.BY_OUTPUT,
    blocks: tuple[int, int] | None = None,
    behind: int = 4096,
) -> Array:
    """Outputs of the kernel, in memory that holds NaN before and marks all around; `behind` bytes after the weights."""
    (outputs, inputs), rows = matrix.values.shape, x.shape[0]
    size, floats = sizes_of(matrix.form, outputs, inputs, group=matrix.group, order=order)
    # Not at the beginning of its memory, and with other weights behind it.
    row = describe(matrix.form, outputs, inputs, group=matrix.group, order=order, at=128, scales=16)
    weights = np.full(128 + size + behind, 77, np.uint8 if interleave else np.int8)
    scales = np.full(16 + floats + behind // 64, np.nan, np.float32)
    lay_out(
        matrix.values, matrix.scales, row, weights[128 : 128 + size], scales[16 : 16 + floats], interleave=interleave
    )
    assert (weights[:128] == 77).all()
    assert (weights[128 + size :] == 77).all()
    padded = int(row[fmt.PADDED])
    act = (
        np.full(rows * padded, 99, np.int8),
        np.full(rows * padded, 99, np.int8),
        np.full(rows * padded, 99, np.int16),
        np.full(rows * padded // 32, 99, np.int32),
        np.full(rows, np.nan, np.float32),
        padded,
    )
    stride = outputs + GUARD
    source = np.full((rows, inputs + 3), np.nan, np.float32)
    source[:, :inputs] = x
    out = np.full((rows, stride), -12345.5, np.float32)
    first, last = blocks or (0, int(row[fmt.BLOCKS]))
    begin, end = 32 * first, min(32 * last, outputs)
    out[:, begin:end] = np.nan
    scratch = np.full(scratch_bytes(row[None]), 55, np.int8)
    numba_cpu.linear(
        weights, scales, row, source.reshape(-1), inputs + 3, act, rows, first, last, out.reshape(-1), stride, scratch
    )
    assert (out[:, :begin] == -12345.5).all()
    assert (out[:, end:] == -12345.5).all()
    return out[:, begin:end]


@pytest.mark.parametrize("interleave", LAYOUTS, ids=lambda on: "interleaved" if on else "plain")
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_equals_the_definition_to_the_bit_for_any_number_of_rows(
    size: tuple[int, int], form: tuple[int, int], interleave: bool
) -> None:
    matrix = random_matrix(*form, *size)
    x = activations(max(ROWS), size[1])
    expected = matrix.expected(x)
    for order in (fmt.BY_OUTPUT, fmt.BY_INPUT):
        for rows in ROWS:
            out = run(matrix, x[:rows], interleave=interleave, order=order)
            np.testing.assert_array_equal(out, expected[:rows])


@pytest.mark.parametrize("interleave", LAYOUTS, ids=lambda on: "interleaved" if on else "plain")
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_some_of_the_blocks_are_as_in_the_whole(form: tuple[int, int], interleave: bool) -> None:
    matrix = random_matrix(*form, 230, 96)
    x = activations(5, 96)
    expected = matrix.expected(x)
    for order in (fmt.BY_OUTPUT, fmt.BY_INPUT):
        for first, last in ((0, 3), (3, 4), (4, 8), (7, 8)):
            for rows in (1, 5):
                out = run(matrix, x[:rows], interleave=interleave, order=order, blocks=(first, last))
                np.testing.assert_array_equal(out, expected[:rows, 32 * first : 32 * last])


@pytest.mark.parametrize("interleave", LAYOUTS, ids=lambda on: "interleaved" if on else "plain")
def test_the_largest_weights_and_activations_do_not_overflow(interleave: bool) -> None:
    """One sign throughout, as wide as the widest matrix: the largest totals there can be."""
    for form, group, most, inputs in (
        (fmt.INT8_ROWS, 0, -128, 4096),
        (fmt.INT8_ROWS, 0, 127, fmt.MOST_INPUTS),
        (fmt.INT16_ROWS, 0, -fmt.LEVELS, 4096),
        (fmt.INT16_ROWS, 0, fmt.LEVELS, fmt.MOST_INPUTS),
        (fmt.INT8_GROUPS, 512, -128, 1024),
        (fmt.INT4_GROUPS, 512, -8, 1024),
    ):
        kind = np.int16 if form == fmt.INT16_ROWS else np.int8
        values = np.full((33, inputs), most, kind)
        scales = np.ones((33, inputs // group) if group else 33, np.float32)
        matrix = Matrix(form=form, group=group, values=values, scales=scales)
        for sign in (1.0, -1.0):
            x = np.full((17, inputs), sign, np.float32)
            expected = matrix.expected(x[:1])
            assert np.abs(expected).min() > 0.9 * abs(most) * inputs
            for order in (fmt.BY_OUTPUT, fmt.BY_INPUT):
                for rows in (1, 2, 17):
                    out = run(matrix, x[:rows], interleave=interleave, order=order)
                    np.testing.assert_array_equal(out, np.broadcast_to(expected, out.shape))


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_a_row_that_is_not_finite_shows_in_its_outputs_and_in_no_others(form: tuple[int, int]) -> None:
    matrix = random_matrix(*form, 40, 70)
    for order in (fmt.BY_OUTPUT, fmt.BY_INPUT):
        for rows in (1, 3, 18):
            x = activations(rows, 70)
            x[-1, 5] = np.nan
            out = run(matrix, x, interleave=LAYOUTS[-1], order=order)
            assert np.isnan(out[-1]).all()
            np.testing.assert_array_equal(out[:-1], matrix.expected(x[:-1]) if rows > 1 else out[:-1])


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_rows_of_zeros_and_of_next_to_nothing(form: tuple[int, int]) -> None:
    matrix = random_matrix(*form, 40, 70)
    x = activations(4, 70)
    x[1] = 0
    x[2] *= 1e-36
    for order in (fmt.BY_OUTPUT, fmt.BY_INPUT):
        for number, row in enumerate(x):
            out = run(matrix, row[None], interleave=LAYOUTS[-1], order=order)
            np.testing.assert_array_equal(out, matrix.expected(x)[number][None])
        np.testing.assert_array_equal(run(matrix, x, interleave=LAYOUTS[-1], order=order), matrix.expected(x))


# Against float64: integer formats round an activation by at most half a level of 32,639 of its row's peak; float
# formats round once a fused product and sum, a quarter of the inputs one after the other.
FLOAT_WITHIN = 2e-6


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_is_near_the_product_in_float64(form: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    matrix = random_matrix(*form, 64, 1000)
    weights = matrix.values.astype(np.float64)
    if matrix.form == fmt.BFLOAT16:
        weights = (matrix.values.view(np.uint32) + 0x7FFF & 0xFFFF0000).view(np.float32).astype(np.float64)
    elif matrix.form == fmt.FLOAT16:
        weights = matrix.values.astype(np.float16).astype(np.float64)
    elif matrix.scales is not None and matrix.group:
        scales = matrix.scales.astype(np.float16).astype(np.float64)
        weights = weights * np.repeat(scales, matrix.group, axis=1)[:, :1000]
    elif matrix.scales is not None:
        weights = weights * matrix.scales[:, None].astype(np.float64)
    x = rng.standard_normal((2, 1000)).astype(np.float32)
    exact = x.astype(np.float64) @ weights.T
    size = np.sqrt((x.astype(np.float64) ** 2) @ (weights.T**2))  # of the products, added as by chance
    out = run(matrix, x, interleave=LAYOUTS[-1])
    within = FLOAT_WITHIN if matrix.form >= fmt.FLOAT32 else 4 / fmt.LEVELS
    assert (np.abs(out - exact) <= within * size + 1e-30).all()


def test_rounding_weights_to_sixteen_bits_moves_them_by_at_most_half_a_level() -> None:
    weight = np.random.default_rng(0).standard_normal((9, 100))
    weight[3] = 0
    values, scales = to_16_bits(weight)
    assert np.abs(values).max() == fmt.LEVELS
    assert (np.abs(values * scales[:, None] - weight) <= np.abs(weight).max(axis=1)[:, None] / 65278 * 1.001).all()


def test_a_float_matrix_may_come_as_its_own_type() -> None:
    matrix = random_matrix(fmt.BFLOAT16, 0, 40, 70)
    bits = (matrix.values.view(np.uint32) >> 16).astype(np.uint16)
    cut = Matrix(form=fmt.BFLOAT16, group=0, values=(bits.astype(np.uint32) << 16).view(np.float32), scales=None)
    given = Matrix(form=fmt.BFLOAT16, group=0, values=bits, scales=None)
    x = activations(3, 70)
    np.testing.assert_array_equal(run(given, x, interleave=False), run(cut, x, interleave=False))


@pytest.mark.parametrize(
    ("form", "group", "values", "scales", "message"),
    [
        (fmt.INT8_ROWS, 0, np.zeros((4, 7), np.int8), np.ones(4), "4x7"),
        (fmt.INT8_ROWS, 0, np.zeros((4, 8), np.int8), np.ones(5), "scales"),
        (fmt.INT8_ROWS, 0, np.zeros((4, 8), np.int8), None, "scales"),
        (fmt.INT4_GROUPS, 32, np.full((4, 8), 8, np.int8), np.ones((4, 1)), "4-bit"),
        (fmt.INT4_GROUPS, 32, np.zeros((4, 8), np.int8), np.ones((4, 2)), "scales"),
        (fmt.INT8_GROUPS, 32, np.zeros((4, 8), np.int8), np.full((4, 1), 1e5), "float16"),
        (fmt.INT8_GROUPS, 48, np.zeros((4, 8), np.int8), np.ones((4, 1)), "group of 48"),
        (fmt.FLOAT32, 0, np.full((4, 8), np.nan, np.float32), None, "finite"),
        (fmt.FLOAT16, 0, np.full((4, 8), 1e6, np.float32), None, "beyond"),
        (fmt.BFLOAT16, 0, np.full((4, 8), 0x7F80, np.uint16), None, "finite"),
    ],
)
def test_refuses_what_does_not_fit(form: int, group: int, values: Array, scales: Array | None, message: str) -> None:
    def laid() -> None:
        size, floats = sizes_of(form, 4, 8, group=group)
        row = describe(form, 4, 8, group=group)
        lay_out(values, scales, row, np.zeros(size, np.uint8), np.zeros(floats, np.float32), interleave=False)

    with pytest.raises(ValueError, match=message):
        laid()


def test_refuses_more_inputs_than_totals_can_hold() -> None:
    with pytest.raises(ValueError, match="cannot be held"):
        sizes_of(fmt.INT8_ROWS, 4, fmt.MOST_INPUTS + 1)


RUN = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from kernels.test_linear import FORMATS, LAYOUTS, activations, random_matrix, run
from antiphon_kernels.linear.processor import has_amx, vnni_bits
digest = hashlib.sha256()
for form, group in FORMATS.values():
    for order in (0, 1):
        matrix = random_matrix(form, group, 70, 130)
        for rows in (1, 2, 19):
            digest.update(run(matrix, activations(rows, 130), interleave=LAYOUTS[-1], order=order).tobytes())
print(vnni_bits(), int(has_amx()), digest.hexdigest())
"""
AVX2 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"


def outcome(**environment: str) -> tuple[int, int, str]:
    """(VNNI bits, tiles, hash of all outputs) of one process."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(Path(__file__).parent.parent)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bits, tiles, digest = done.stdout.split()
    return int(bits), int(tiles), digest


def test_the_same_bits_on_every_processor() -> None:
    here = outcome()
    # No vector unit beyond SSE2, no fused product and sum, no VNNI: other code throughout.
    assert outcome(NUMBA_CPU_NAME="generic") == (0, 0, here[2])
    if here[0]:
        assert outcome(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=AVX2) == (0, 0, here[2])
    if here[0] == 512:
        narrow = outcome(
            NUMBA_CPU_NAME="cascadelake",
            NUMBA_CPU_FEATURES=f"{AVX2},+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni",
        )
        assert narrow == (512, 0, here[2])


@pytest.mark.skipif("avx_vnni" not in Path("/proc/cpuinfo").read_text(), reason="needs AVX-VNNI")
def test_the_same_bits_with_the_narrower_byte_products() -> None:
    assert outcome(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=f"{AVX2},+avxvnni") == (256, 0, outcome()[2])


GUARDED = """
import ctypes, mmap, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from kernels import test_linear
full = np.full

def guarded(shape, value, dtype=None):
    # Memory that ends at a page which nobody may touch.
    plain = full(shape, value, dtype)
    size = -(-plain.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.uint8)
    c = ctypes.CDLL(None, use_errno=True)
    assert c.mprotect(ctypes.c_void_p(whole.ctypes.data + size), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    flush = whole[size - plain.nbytes : size].view(plain.dtype).reshape(plain.shape)
    flush[:] = plain
    return flush

for form, group in test_linear.FORMATS.values():
    for outputs, inputs in ((5, 3), (33, 64), (37, 301), (64, 576)):
        matrix, x = test_linear.random_matrix(form, group, outputs, inputs), test_linear.activations(19, inputs)
        for interleave in test_linear.LAYOUTS:
            for order in (0, 1):
                for rows in (1, 2, 4, 19):
                    expected = test_linear.run(matrix, x[:rows], interleave=interleave, order=order)
                    np.full = guarded
                    out = test_linear.run(matrix, x[:rows], interleave=interleave, order=order, behind=0)
                    np.full = full
                    np.testing.assert_array_equal(out, expected)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs pages that can be forbidden")
@pytest.mark.parametrize("environment", [{}, {"NUMBA_CPU_NAME": "generic"}], ids=["this processor", "any"])
def test_no_format_touches_memory_beyond_what_it_was_given(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(Path(__file__).parent.parent)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
