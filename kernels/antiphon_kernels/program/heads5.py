"""RWKV-5's and 6's time mixing between their matrices, one head of one timeline at a time: HEADS_5.

The channels of a head meet no other head's. The rows of a timeline follow one another, its heads do not.
"""

from __future__ import annotations

from typing import Any

from antiphon_kernels.float32 import exp, sigmoid
from antiphon_kernels.jit import piece
from antiphon_kernels.program.elements import layer_norm
from antiphon_kernels.program.ops import FIRST
from antiphon_kernels.window import window
from antiphon_kernels.wkv5_step.numba_cpu import recur

# Columns of the operation: slots, the place of the matrix state within the state, and vectors. RWKV-5 decays by the
# vector DECAY and has NONE for W; RWKV-6 by the slot W, to which DECAY is the bias. RWKV-5.0 has NONE for the gate.
R, W, K, V, G, Y, PLACE, DECAY, U, LN_X_W, LN_X_B, EPS = range(FIRST, FIRST + 12)

NONE = -1


@piece
def head_row(
    floats: Any, op: Any, at: int, wkv: Any, r: Any, w: Any, k: Any, v: Any, g: Any, y: Any, spare: Any
) -> None:  # fmt: skip
    """One row of the head whose channels begin at `at`: `wkv` [N * N] moves on and `y` [N] is written.

    r, w, k, v, g [N] are what the matrices gave, and used up (w and g: where there are such); spare [N] is scratch.
    """
    size = y.size
    decay, u = window(floats, op[DECAY] + at, size), window(floats, op[U] + at, size)
    if op[W] == NONE:
        recur(wkv, r, decay, k, v, u, y, spare)
    else:
        for i in range(size):
            w[i] = exp(-exp(decay[i] + w[i]))
        recur(wkv, r, w, k, v, u, y, spare)
    layer_norm(y, y, window(floats, op[LN_X_W] + at, size), window(floats, op[LN_X_B] + at, size), floats[op[EPS]])
    if op[G] != NONE:
        for i in range(size):
            y[i] *= g[i] * sigmoid(g[i])
