"""RWKV-7's time mixing between its matrices, one head of one timeline at a time: HEADS_7.

The channels of a head meet no other head's, so from the matrices' results to the gated output a head needs no other
thread. The rows of a timeline follow one another, its heads do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from antiphon_kernels.float32 import exp, sigmoid
from antiphon_kernels.jit import piece
from antiphon_kernels.lanes import dot, fma
from antiphon_kernels.program.elements import layer_norm
from antiphon_kernels.program.ops import FIRST
from antiphon_kernels.window import window
from antiphon_kernels.wkv7_step.recurrence import recur

# Columns of the operation: slots, the place of the matrix state within the state, vectors, and whether this is layer 0.
(
    R, W, K, V, A, G, V_FIRST, Y, PLACE, W0, A0, V0, K_K, K_A, R_K, LN_X_W, LN_X_B, EPS, IS_FIRST,
) = range(FIRST, FIRST + 19)  # fmt: skip

KEY_NORM_MIN = np.float32(1e-12)
DECAY = np.float32(-0.6065306597126334)  # -exp(-1/2)


@piece
def head_row(
    floats: Any, op: Any, at: int, wkv: Any, r: Any, w: Any, k: Any, v: Any, a: Any, g: Any, v_first: Any, y: Any,
    kappa: Any, passing: Any,
) -> None:  # fmt: skip
    """One row of the head whose channels begin at `at`: `wkv` [N * N] moves on and `y` [N] is written.

    r, w, k, v, a, g [N] are what the matrices gave, and used up; kappa and passing [N] are scratch.
    """
    size = r.size
    if op[IS_FIRST]:
        for i in range(size):
            v_first[i] = v[i]
    else:
        bias = window(floats, op[V0] + at, size)
        for i in range(size):
            v[i] = fma(v_first[i] - v[i], sigmoid(bias[i] + y[i]), v[i])  # y holds the low-rank part until now
    w0, a0 = window(floats, op[W0] + at, size), window(floats, op[A0] + at, size)
    for i in range(size):
        w[i] = exp(DECAY * sigmoid(w0[i] + w[i]))
    for i in range(size):
        a[i] = sigmoid(a0[i] + a[i])
    k_k, k_a = window(floats, op[K_K] + at, size), window(floats, op[K_A] + at, size)
    for i in range(size):
        kappa[i] = k[i] * k_k[i]
        k[i] *= fma(a[i] - np.float32(1), k_a[i], np.float32(1))
    length = np.sqrt(dot(kappa, kappa))
    if length < KEY_NORM_MIN:
        length = KEY_NORM_MIN
    inverse = np.float32(1) / length
    for i in range(size):
        kappa[i] *= inverse
    for i in range(size):
        a[i] *= kappa[i]
    recur(wkv, r, w, k, v, kappa, a, y)
    layer_norm(y, y, window(floats, op[LN_X_W] + at, size), window(floats, op[LN_X_B] + at, size), floats[op[EPS]])
    r_k = window(floats, op[R_K] + at, size)
    for i in range(size):
        passing[i] = r[i] * r_k[i]
    bonus = dot(k, passing)
    for i in range(size):
        y[i] = fma(bonus, v[i], y[i]) * g[i]
