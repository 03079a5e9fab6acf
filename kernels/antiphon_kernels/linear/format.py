"""What a packed matrix is: its formats, and the row of int64 that says where it lies and how to read it.

Integer formats multiply activations rounded to 16 bits, of which a row has one step: x is nearest to q * step with
|q| <= LEVELS. Their sums are exact, so that neither processor, batch nor split can change a bit:

    INT8_ROWS    out[o] = float32(sum_k w[o, k] q[k]) * (scale[o] * step)
    INT16_ROWS   the same with |w| <= LEVELS
    INT8_GROUPS  sum_g: s = fma(float32(sum_{k in g} w[o, k] q[k]), scale[o, g], s), g ascending; out[o] = s * step
    INT4_GROUPS  the same with -8 <= w <= 7

Scales are float32, those of groups float16. INT8_ROWS and INT16_ROWS may lie BY_INPUT; the other formats lie by output,
whatever order they are given.

Float formats multiply the float32 activations themselves. Four chains c take the inputs k = c, c + 4, c + 8, … in
order, each with one rounding a fused product and sum; out[o] = (chain 0 + chain 1) + (chain 2 + chain 3).
"""

from __future__ import annotations

from antiphon_kernels.jit import piece

INT8_ROWS, INT16_ROWS, INT8_GROUPS, INT4_GROUPS, FLOAT32, BFLOAT16, FLOAT16 = range(7)

BY_OUTPUT, BY_INPUT = range(2)
"""Orders: blocks of 32 outputs one after the other; or, input by input, one run of all outputs."""

# Columns of a row of `matrices` (int64).
FORMAT, AT, SCALES, BLOCKS, PADDED, INPUTS, OUTPUTS, GROUP, ORDER = range(9)
MATRIX_COLUMNS = 9

BLOCK = 32
"""Outputs of a block: two 512-bit or four 256-bit vectors of int32."""

INPUTS_PAD = 64
"""What inputs are padded to: a cache line of int8."""

GROUPS = (32, 64, 128, 256, 512)
"""Inputs of a group that shares a scale; 512 is the most whose products always fit an int32."""

MOST_INPUTS = 1 << 15
"""Inputs of the widest matrix: products of unsigned and signed bytes fit an int32 up to there, in pairs too."""

LEVELS = 127 * 256 + 127
"""The largest 16-bit magnitude whose two byte planes both stay within a signed byte."""

FAINT = 1e-30
"""Activations all below this count as zero: 1 / FAINT is still finite."""

Q_GROUP = 32
"""Activations whose q are totalled together."""


def up(n: int, to: int) -> int:
    """n rounded up to a multiple of `to`."""
    return -(-n // to) * to


@piece
def group_block_bytes(form: int, padded: int, group: int) -> int:
    """Bytes of a block of a format with groups: its weights, and 32 float16 scales a group."""
    width = padded // 2 if form == INT4_GROUPS else padded
    return BLOCK * width + 2 * BLOCK * ((padded + group - 1) // group)


@piece
def float_block_bytes(form: int, inputs: int) -> int:
    """Bytes of a block of a float format."""
    return BLOCK * (4 if form == FLOAT32 else 2) * ((inputs + 3) // 4 * 4)
