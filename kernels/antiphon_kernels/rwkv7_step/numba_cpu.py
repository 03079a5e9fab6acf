"""The fast step: tokens in, state and logits out, everything in between in one compiled call per feed.

The arithmetic is that of `reference.py`. Every linear layer multiplies int8 (or 16-bit) weights with activations
rounded to 16 bits and adds up integers, so its result does not depend on the order of the sums nor on the processor;
normalisations, the recurrent state and ffn.value are float32. ffn.value is stored by hidden unit, and units that
relu² left at zero are skipped, which is exact.

Caller owns all arrays. The state of one sequence is one float32 array (`Packed.state_len`): per layer att_x [D],
wkv [H, N (value), N (key)], ffn_x [D]. Nothing here may run on one state from two threads at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.float32 import exp, from_bits, nearest, sigmoid, size_bits, tanh, whole
from antiphon_kernels.jit import kernel, piece
from antiphon_kernels.lanes import dot, fma, total
from antiphon_kernels.rwkv7_step import pack as at
from antiphon_kernels.rwkv7_step.pack import Packed
from antiphon_kernels.rwkv7_step.recurrence import recur
from antiphon_kernels.rwkv7_step.simd import BLOCK, block_totals, prefetch, split_planes
from antiphon_kernels.rwkv7_step.window import window
from antiphon_kernels.sample.numba_cpu import cost

Floats = npt.NDArray[np.float32]

LN_EPS = np.float32(1e-5)
GROUP_NORM_EPS = np.float32(64e-5)  # the official runtimes' ln_x, which do not divide y by 8 as the trainers do
KEY_NORM_MIN = np.float32(1e-12)
DECAY = np.float32(-0.6065306597126334)  # -exp(-1/2)
LEVELS = np.float32(at.LEVELS)
FAINT = np.float32(1e-30)  # activations all below this count as zero: 1 / FAINT is still finite
AHEAD = 4  # groups of hidden units fetched before they are used

# Slots of the scratch memory, each `sizes[WIDEST]` long.
X, NORMED, SHIFT, MIXED, R, W, K, V, A, G, KAPPA, REPLACED, Y, LOW, V_FIRST, HIDDEN, OUT = range(17)
SLOTS = 17

_UNSCORED = np.zeros(0, np.float32)


def feed(packed: Packed, ids: npt.NDArray[np.int32], state: Floats, logits: Floats) -> None:
    """Feed `ids` [T >= 1] in order: `state` [state_len] moves on in place, `logits` [V] are those after the last id.

    The caller has checked that every id is within the vocabulary. Releases the interpreter lock.
    """
    feed_scored(packed, ids, state, logits, _UNSCORED)


def feed_scored(packed: Packed, ids: npt.NDArray[np.int32], state: Floats, logits: Floats, nats: Floats) -> None:
    """As `feed`, and nats[t] = -log p(ids[t]) under the logits before it; `logits` are read before they are written."""
    _feed(packed.weights, packed.rows, packed.floats, packed.plan, packed.sizes, ids, state, logits, nats)


def step(packed: Packed, token: int, state: Floats, logits: Floats) -> None:
    """Feed one token, see `feed`."""
    feed(packed, np.array([token], np.int32), state, logits)


@kernel
def _feed(
    weights: Any, rows: Any, floats: Any, plan: Any, sizes: Any, ids: Any, state: Any, logits: Any, nats: Any
) -> None:
    work, q, planes, totals, active = _scratch(sizes)
    for t in range(ids.size):
        if nats.size:
            nats[t] = cost(logits, ids[t])
        _token(weights, rows, floats, plan, sizes, ids[t], state, work, q, planes, totals, active)
        if nats.size or t == ids.size - 1:
            _head(weights, floats, plan, sizes, logits, work, q, planes, totals)


@piece
def _scratch(sizes: Any) -> Any:
    widest = sizes[at.WIDEST]
    return (
        np.empty(SLOTS * widest, np.float32),
        np.empty(widest, np.int16),
        np.empty(2 * widest, np.int8),
        np.empty(2 * BLOCK, np.float64),
        np.empty(widest + 4 * (AHEAD + 1), np.int32),
    )


@piece
def _token(
    weights: Any, rows: Any, floats: Any, plan: Any, sizes: Any, token: int, state: Any,
    work: Any, q: Any, planes: Any, totals: Any, active: Any,
) -> None:  # fmt: skip
    width, widest, square = sizes[at.N_EMBD], sizes[at.WIDEST], sizes[at.N_EMBD] * sizes[at.HEAD_SIZE]
    x, normed = window(work, X * widest, width), window(work, NORMED * widest, width)
    scale = floats[sizes[at.EMB_SCALE] + token]
    row = window(rows, sizes[at.EMB] + np.int64(token) * width, width)
    for i in range(width):
        normed[i] = np.float32(row[i]) * scale
    _layer_norm(normed, x, window(floats, sizes[at.LN0_W], width), window(floats, sizes[at.LN0_B], width), LN_EPS)
    place = np.int64(0)
    for layer in range(sizes[at.N_LAYER]):
        att_x, wkv = window(state, place, width), window(state, place + width, square)
        ffn_x = window(state, place + width + square, width)
        _time_mix(weights, floats, plan[layer], sizes, layer == 0, att_x, wkv, work, q, planes, totals)
        _channel_mix(weights, rows, floats, plan[layer], sizes, ffn_x, work, q, planes, totals, active)
        place += 2 * width + square


@piece
def _head(
    weights: Any, floats: Any, plan: Any, sizes: Any, logits: Any, work: Any, q: Any, planes: Any, totals: Any
) -> None:
    width, widest, row = sizes[at.N_EMBD], sizes[at.WIDEST], plan[sizes[at.N_LAYER]]
    x, normed = window(work, X * widest, width), window(work, NORMED * widest, width)
    weight, bias = window(floats, sizes[at.LN_OUT_W], width), window(floats, sizes[at.LN_OUT_B], width)
    _layer_norm(x, normed, weight, bias, LN_EPS)
    scale, q_total = _round_16(weights, normed, row[at.HEAD + 3], q, planes)
    for block in range(row[at.HEAD + 2]):
        begin = block * BLOCK
        size = min(BLOCK, logits.size - begin)
        _block(weights, row, at.HEAD, block, q, planes, q_total, totals)
        _scaled(window(totals, 0, size), window(floats, row[at.HEAD + 1] + begin, size), scale,
                window(logits, begin, size))  # fmt: skip


@piece
def _time_mix(
    weights: Any, floats: Any, row: Any, sizes: Any, first: bool, att_x: Any, wkv: Any,
    work: Any, q: Any, planes: Any, totals: Any,
) -> None:  # fmt: skip
    width, heads, head_size, widest = sizes[at.N_EMBD], sizes[at.N_HEAD], sizes[at.HEAD_SIZE], sizes[at.WIDEST]
    x, normed = window(work, X * widest, width), window(work, NORMED * widest, width)
    shift, mixed, out = (
        window(work, SHIFT * widest, width),
        window(work, MIXED * widest, width),
        window(work, OUT * widest, widest),
    )
    r, w = window(work, R * widest, widest), window(work, W * widest, widest)
    k, v = window(work, K * widest, widest), window(work, V * widest, widest)
    a, g = window(work, A * widest, widest), window(work, G * widest, widest)
    kappa, replaced = window(work, KAPPA * widest, width), window(work, REPLACED * widest, width)
    y, v_first = window(work, Y * widest, width), window(work, V_FIRST * widest, width)
    low = window(work, LOW * widest, widest)

    _layer_norm(x, normed, window(floats, row[at.LN1_W], width), window(floats, row[at.LN1_B], width), LN_EPS)
    _shift(normed, att_x, shift)

    _mix(normed, shift, window(floats, row[at.X_R], width), mixed)
    _linear(weights, floats, row, at.RECEPTANCE, mixed, r, q, planes, totals)
    _mix(normed, shift, window(floats, row[at.X_K], width), mixed)
    _linear(weights, floats, row, at.KEY, mixed, k, q, planes, totals)
    _mix(normed, shift, window(floats, row[at.X_V], width), mixed)
    _linear(weights, floats, row, at.VALUE, mixed, v, q, planes, totals)
    if first:
        for i in range(width):
            v_first[i] = v[i]
    else:
        rank = window(low, 0, row[at.V2 + 5])
        _linear(weights, floats, row, at.V1, mixed, low, q, planes, totals)
        _linear(weights, floats, row, at.V2, rank, out, q, planes, totals)
        _blend(v, v_first, out, window(floats, row[at.V0], width))

    _mix(normed, shift, window(floats, row[at.X_W], width), mixed)
    rank = window(low, 0, row[at.W2 + 5])
    _linear(weights, floats, row, at.W1, mixed, low, q, planes, totals)
    for i in range(rank.size):
        rank[i] = tanh(rank[i])
    _linear(weights, floats, row, at.W2, rank, w, q, planes, totals)
    _decay(w, window(floats, row[at.W0], width))

    _mix(normed, shift, window(floats, row[at.X_A], width), mixed)
    rank = window(low, 0, row[at.A2 + 5])
    _linear(weights, floats, row, at.A1, mixed, low, q, planes, totals)
    _linear(weights, floats, row, at.A2, rank, a, q, planes, totals)
    _rate(a, window(floats, row[at.A0], width))

    _mix(normed, shift, window(floats, row[at.X_G], width), mixed)
    rank = window(low, 0, row[at.G2 + 5])
    _linear(weights, floats, row, at.G1, mixed, low, q, planes, totals)
    for i in range(rank.size):
        rank[i] = sigmoid(rank[i])
    _linear(weights, floats, row, at.G2, rank, g, q, planes, totals)

    _keys(k, a, window(floats, row[at.K_K], width), window(floats, row[at.K_A], width), kappa)
    for head in range(heads):
        here = head * head_size
        _normalise(window(kappa, here, head_size))
    for i in range(width):
        replaced[i] = kappa[i] * a[i]
    for head in range(heads):
        here, square = head * head_size, head_size * head_size
        one = window(wkv, head * square, square)
        r_h, w_h, k_h = window(r, here, head_size), window(w, here, head_size), window(k, here, head_size)
        v_h, y_h = window(v, here, head_size), window(y, here, head_size)
        kappa_h, replaced_h = window(kappa, here, head_size), window(replaced, here, head_size)
        recur(one, r_h, w_h, k_h, v_h, kappa_h, replaced_h, y_h)
        weight, bias = row[at.LN_X_W] + here, row[at.LN_X_B] + here
        _layer_norm(y_h, y_h, window(floats, weight, head_size), window(floats, bias, head_size), GROUP_NORM_EPS)
        _add_bonus(r_h, k_h, v_h, window(floats, row[at.R_K] + here, head_size), mixed, y_h)
    for i in range(width):
        y[i] *= g[i]
    _linear(weights, floats, row, at.OUTPUT, y, out, q, planes, totals)
    for i in range(width):
        x[i] += out[i]


@piece
def _channel_mix(
    weights: Any, rows: Any, floats: Any, row: Any, sizes: Any, ffn_x: Any,
    work: Any, q: Any, planes: Any, totals: Any, active: Any,
) -> None:  # fmt: skip
    width, widest = sizes[at.N_EMBD], sizes[at.WIDEST]
    x, normed = window(work, X * widest, width), window(work, NORMED * widest, width)
    shift, mixed = window(work, SHIFT * widest, width), window(work, MIXED * widest, width)
    hidden, out = window(work, HIDDEN * widest, widest), window(work, OUT * widest, width)
    _layer_norm(x, normed, window(floats, row[at.LN2_W], width), window(floats, row[at.LN2_B], width), LN_EPS)
    _shift(normed, ffn_x, shift)
    _mix(normed, shift, window(floats, row[at.FFN_X_K], width), mixed)
    _linear(weights, floats, row, at.FFN_KEY, mixed, hidden, q, planes, totals)
    count = 0
    for i in range(sizes[at.FFN_DIM]):  # without a branch, for half of its outcomes would be guessed wrong
        unit = hidden[i]
        hidden[count] = unit * unit
        active[count] = i
        count += not unit <= 0  # a NaN stays in play
    for i in range(count, count + 4 * (AHEAD + 1)):
        active[i] = active[count - 1] if count else 0
    for i in range(count, (count + 3) // 4 * 4):
        hidden[i] = np.float32(0)
    _weigh_units(rows, row[at.FFN_VALUE], hidden, active, count, out)
    scales = window(floats, row[at.FFN_VALUE_SCALE], width)
    for i in range(width):
        x[i] = fma(out[i], scales[i], x[i])


@piece
def _weigh_units(rows: Any, first: int, strength: Any, active: Any, count: int, out: Any) -> None:
    """out = the sum of the active units' rows, each times its strength; four units at a time, in order."""
    width = out.size
    for i in range(width):
        out[i] = np.float32(0)
    for n in range(0, count, 4):
        for ahead in range(n + 4 * AHEAD, n + 4 * AHEAD + 4):
            place = first + np.int64(active[ahead]) * width
            for line in range(0, width, 64):
                prefetch(rows, place + line)
        r0 = window(rows, first + np.int64(active[n]) * width, width)
        r1 = window(rows, first + np.int64(active[n + 1]) * width, width)
        r2 = window(rows, first + np.int64(active[n + 2]) * width, width)
        r3 = window(rows, first + np.int64(active[n + 3]) * width, width)
        s0, s1, s2, s3 = strength[n], strength[n + 1], strength[n + 2], strength[n + 3]
        for i in range(width):
            pair = fma(s1, np.float32(r1[i]), s0 * np.float32(r0[i]))
            out[i] += fma(s3, np.float32(r3[i]), fma(s2, np.float32(r2[i]), pair))


@piece
def _linear(
    weights: Any, floats: Any, row: Any, column: int, source: Any, out: Any, q: Any, planes: Any, totals: Any
) -> None:
    """out = one matrix times `source`, padded rows included (as zeros)."""
    scale, q_total = _round_16(weights, source, row[column + 3], q, planes)
    for block in range(row[column + 2]):
        _block(weights, row, column, block, q, planes, q_total, totals)
        begin = block * BLOCK
        _scaled(window(totals, 0, BLOCK), window(floats, row[column + 1] + begin, BLOCK), scale,
                window(out, begin, BLOCK))  # fmt: skip


@piece
def _block(weights: Any, row: Any, column: int, block: int, q: Any, planes: Any, q_total: int, totals: Any) -> None:
    """totals[:32] = the exact integer totals of one block of rows, of one byte plane or of two."""
    padded, count = row[column + 3], row[column + 4]
    place = row[column] + block * count * BLOCK * padded
    block_totals(weights, place, q, planes, padded, q_total, totals, 0)
    if count == 2:
        block_totals(weights, place + BLOCK * padded, q, planes, padded, q_total, totals, BLOCK)
        high, low = window(totals, 0, BLOCK), window(totals, BLOCK, BLOCK)
        for i in range(BLOCK):
            high[i] = high[i] * 256.0 + low[i]


@piece
def _scaled(totals: Any, scales: Any, scale: Any, out: Any) -> None:
    for i in range(totals.size):
        out[i] = np.float32(totals[i]) * (scales[i] * scale)


@piece
def _round_16(weights: Any, source: Any, padded: int, q: Any, planes: Any) -> tuple[Any, Any]:
    """(scale, sum of q): source is nearest to scale * q, |q| <= 32639; q is 0 from the end of source to `padded`."""
    most = np.int32(0)
    for i in range(source.size):
        most = max(most, size_bits(source[i]))
    peak = from_bits(most)
    for i in range(source.size, padded):
        q[i] = 0
    if FAINT <= peak < np.inf:
        scale, q_total = peak / LEVELS, _round_all(source, LEVELS / peak, q)
    else:
        scale, q_total = np.float32(0) if peak < FAINT else np.float32(np.nan), 0
        for i in range(source.size):
            q[i] = 0
    split_planes(weights, q, planes, padded)
    return scale, q_total


@piece
def _round_all(source: Any, inverse: Any, q: Any) -> Any:
    for i in range(source.size):
        q[i] = whole(nearest(source[i] * inverse))
    q_total = 0
    for i in range(source.size):
        q_total += q[i]
    return q_total


@piece
def _shift(normed: Any, held: Any, shift: Any) -> None:
    for i in range(normed.size):
        shift[i] = held[i] - normed[i]
        held[i] = normed[i]


@piece
def _mix(normed: Any, shift: Any, weight: Any, mixed: Any) -> None:
    for i in range(normed.size):
        mixed[i] = fma(shift[i], weight[i], normed[i])


@piece
def _blend(v: Any, v_first: Any, part: Any, bias: Any) -> None:
    for i in range(bias.size):
        v[i] = fma(v_first[i] - v[i], sigmoid(bias[i] + part[i]), v[i])


@piece
def _decay(w: Any, bias: Any) -> None:
    for i in range(bias.size):
        w[i] = exp(DECAY * sigmoid(bias[i] + w[i]))


@piece
def _rate(a: Any, bias: Any) -> None:
    for i in range(bias.size):
        a[i] = sigmoid(bias[i] + a[i])


@piece
def _keys(k: Any, a: Any, k_k: Any, k_a: Any, kappa: Any) -> None:
    for i in range(kappa.size):
        kappa[i] = k[i] * k_k[i]
        k[i] *= fma(a[i] - np.float32(1), k_a[i], np.float32(1))


@piece
def _layer_norm(source: Any, out: Any, weight: Any, bias: Any, eps: Any) -> None:
    size = np.float32(source.size)
    mean = total(source) / size
    for i in range(source.size):
        out[i] = source[i] - mean
    inverse = np.float32(1) / np.sqrt(dot(out, out) / size + eps)
    for i in range(source.size):
        out[i] = fma(out[i] * inverse, weight[i], bias[i])


@piece
def _normalise(kappa: Any) -> None:
    size = np.sqrt(dot(kappa, kappa))
    if size < KEY_NORM_MIN:
        size = KEY_NORM_MIN
    inverse = np.float32(1) / size
    for i in range(kappa.size):
        kappa[i] *= inverse


@piece
def _add_bonus(r: Any, k: Any, v: Any, weight: Any, passing: Any, y: Any) -> None:
    for i in range(y.size):
        passing[i] = r[i] * weight[i]
    bonus = dot(k, passing)
    for i in range(y.size):
        y[i] = fma(bonus, v[i], y[i])
