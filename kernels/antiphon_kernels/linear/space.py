"""What lies where in the scratch memory of `multiply`, and how much of it a model's matrices need."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from antiphon_kernels.linear.format import BLOCK, OUTPUTS, PADDED, up

ROWS_AT_ONCE = 64
"""Rows whose totals are worked out together."""

TOGETHER_BYTES = 1 << 18
"""Bytes of blocks that lie by input, put together; they should stay in the second cache."""

EXCESS = 0  # float64 [ROWS_AT_ONCE]: what comes off each row's totals
EDGE = EXCESS + 8 * ROWS_AT_ONCE  # float32 [ROWS_AT_ONCE, BLOCK]: outputs of a last block that is not whole
TILES = EDGE + 4 * ROWS_AT_ONCE * BLOCK  # int32 [4, 16, 16]: totals as the tile unit leaves them
VARIABLE = TILES + 4 * 16 * 16 * 4 + 64  # blocks put together, or lists of inputs and sums of all outputs


def scratch_bytes(matrices: npt.NDArray[Any]) -> int:
    """Bytes of scratch memory that `multiply` needs for any of these rows of int64; one scratch per thread."""
    padded, outputs = (int(matrices[..., column].max()) for column in (PADDED, OUTPUTS))
    return VARIABLE + max(2 * BLOCK * padded, TOGETHER_BYTES, 8 * padded + 32 * up(outputs, 2 * BLOCK)) + 256
