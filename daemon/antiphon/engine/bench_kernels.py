"""The kernels one by one: what each is timed on, what it must read and compute, and how far it is from its definition.

Each runs on one thread of the processor on random numbers. The definition, in plain NumPy or PyTorch, is timed beside
it and says how far off the kernel is: a kernel that is fast and wrong would be no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from antiphon.engine.bench_case import SEED, Case, Kernel, Load, furthest
from antiphon.engine.bench_linear import linear_kernels
from antiphon_kernels.sample import numba_cpu as sample_cpu
from antiphon_kernels.sample import reference as sample_reference
from antiphon_kernels.wkv7_sequence import numba_cpu as sequence_cpu
from antiphon_kernels.wkv7_sequence import reference as sequence_reference
from antiphon_kernels.wkv7_sequence.heads64 import N
from antiphon_kernels.wkv7_step import numba_cpu as step_cpu

Floats = npt.NDArray[np.float32]
Six = tuple[Floats, Floats, Floats, Floats, Floats, Floats]


def _wkv7_step(load: Load) -> Case:
    """One sequence of `rows` tokens, its state read and written for every one of them."""
    heads, size = load.spec.n_head, load.spec.head_size
    vectors = np.stack([array[0] for array in _wkv7(load.rows, heads, size)])
    wkv, out = np.zeros((heads, size, size), np.float32), np.empty((load.rows, heads, size), np.float32)
    step_cpu.advance(vectors, wkv, out)

    def exact(state: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        r, w, k, v, kappa, b = (torch.from_numpy(plane[None]).double() for plane in vectors)
        keep = torch.ones(1, -(-load.rows // sequence_reference.CHUNK), dtype=torch.bool)
        y, _ = sequence_reference.forward(r, w, k, v, kappa, b, keep, torch.from_numpy(state[None]))
        return np.asarray(y[0].numpy())

    def difference() -> float:
        before = wkv.astype(np.float64)
        step_cpu.advance(vectors, wkv, out)
        return furthest(out, exact(before))

    return Case(
        size=f"{heads} heads of {size}, {load.rows} tokens",
        call=lambda: step_cpu.advance(vectors, wkv, out),
        plain=lambda: exact(wkv.astype(np.float64)),
        nbytes=vectors.nbytes + out.nbytes + 2 * load.rows * wkv.nbytes,
        operations=load.rows * heads * size * size * 8,
        difference=difference,
    )


def _wkv7(rows: int, heads: int, size: int) -> Six:
    """r, w, k, v, κ and κ·a [1, rows, heads, size], as a model would give them."""
    rng = np.random.default_rng(SEED)
    shape = (1, rows, heads, size)
    r, k, v, kappa = (rng.standard_normal(shape).astype(np.float32) for _ in range(4))
    kappa /= np.linalg.norm(kappa, axis=-1, keepdims=True)
    w, a = rng.uniform(0.6, 1.0, shape).astype(np.float32), rng.random(shape).astype(np.float32)
    return r, w, k, v, kappa, kappa * a


def _sequence_load(load: Load) -> tuple[Six, npt.NDArray[np.bool_], Floats, str]:
    """Arguments of the sequence form; a sequence is whole chunks."""
    chunk = sequence_reference.CHUNK
    rows, heads, size = -(-load.rows // chunk) * chunk, load.spec.n_head, N
    start = np.random.default_rng(SEED).standard_normal((1, heads, size, size)).astype(np.float32)
    return (
        _wkv7(rows, heads, size),
        np.ones((1, rows // chunk), np.bool_),
        start,
        f"{heads} heads of {size}, {rows} tokens",
    )


def _wkv7_sequence_forward(load: Load, *, started: bool) -> Case:
    arrays, keep, start, size = _sequence_load(load)
    if not started:
        start = np.zeros_like(start)
    given = [torch.from_numpy(array) for array in (*arrays, keep, start)]
    y, held, kept, final = sequence_cpu.forward(*arrays, keep, start)

    def difference() -> float:
        exact, end = sequence_reference.forward(*(t.double() if t.is_floating_point() else t for t in given))
        return max(furthest(y, exact.numpy()), furthest(final, end.numpy()))

    return Case(
        size=size,
        call=lambda: sequence_cpu.forward(*arrays, keep, start),
        plain=lambda: sequence_reference.forward(*given),
        nbytes=sum(a.nbytes for a in (*arrays, keep, start, y, held, kept, final)),
        operations=y.size * N * 8,
        difference=difference,
    )


def _wkv7_sequence_backward(load: Load, *, started: bool, ended: bool) -> Case:
    """ended: a gradient comes in by the final state too, as when what follows was computed elsewhere."""
    arrays, keep, start, size = _sequence_load(load)
    if not started:
        start = np.zeros_like(start)
    y, held, kept, final = sequence_cpu.forward(*arrays, keep, start)
    rng = np.random.default_rng(SEED + 1)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dfinal = (rng.standard_normal(final.shape) * ended).astype(np.float32)

    def call() -> Sequence[Floats]:
        return sequence_cpu.backward(*arrays, keep, held, kept, dy, dfinal)

    def plain(dtype: torch.dtype = torch.float32) -> Sequence[torch.Tensor]:
        given = [torch.from_numpy(array).to(dtype).requires_grad_() for array in (*arrays, start)]
        r, w, k, v, kappa, b, before = given
        outputs = sequence_reference.forward(r, w, k, v, kappa, b, torch.from_numpy(keep), before)
        heads = [torch.from_numpy(array).to(dtype) for array in (dy, dfinal)]
        return torch.autograd.grad(outputs, given, heads)

    return Case(
        size=size,
        call=call,
        plain=plain,
        nbytes=2 * sum(a.nbytes for a in arrays) + sum(a.nbytes for a in (held, kept, dy, dfinal, start)),
        operations=y.size * N * 24,
        difference=lambda: max(
            furthest(ours, exact.numpy()) for ours, exact in zip(call(), plain(torch.float64), strict=True)
        ),
    )


def _sample(load: Load) -> Case:
    """`rows` draws from logits as a text model gives them: most of the likelihood on some ten ids."""
    rng = np.random.default_rng(SEED)
    logits = (3 * rng.standard_normal((load.rows, load.spec.vocab_size))).astype(np.float32)
    uniforms = rng.random(load.rows).tolist()
    cuts = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0}

    def drawn(sample: Callable[..., int]) -> list[int]:
        return [sample(row, None, uniform=uniform, **cuts) for row, uniform in zip(logits, uniforms, strict=True)]

    def difference() -> float:
        ours, theirs = drawn(sample_cpu.sample), drawn(sample_reference.sample)
        return sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(ours)

    return Case(
        size=f"vocabulary {load.spec.vocab_size:,}, {load.rows} draws",
        call=lambda: drawn(sample_cpu.sample),
        plain=lambda: drawn(sample_reference.sample),
        nbytes=logits.nbytes,
        operations=logits.size,
        difference=difference,
    )


def kernels() -> tuple[Kernel, ...]:
    """All kernels that can be timed. The aliases are the names of rwkv-rs's benchmarks."""
    forward, backward = _wkv7_sequence_forward, _wkv7_sequence_backward
    return (
        *linear_kernels(),
        Kernel(
            name="wkv7-step",
            aliases=("wkv7_infer_forward",),
            what="the recurrence, token by token, state in place",
            case=_wkv7_step,
        ),
        Kernel(
            name="wkv7-sequence",
            aliases=("wkv7_pretrain_forward",),
            what="the recurrence over a sequence from no state, states kept for the way back",
            case=partial(forward, started=False),
        ),
        Kernel(
            name="wkv7-sequence-backward",
            aliases=("wkv7_pretrain_backward",),
            what="gradients through a sequence",
            case=partial(backward, started=False, ended=False),
        ),
        Kernel(
            name="wkv7-sequence-passed",
            aliases=("wkv7_statepass_forward", "wkv7_statetune_forward"),
            what="the recurrence over a sequence from a given state",
            case=partial(forward, started=True),
        ),
        Kernel(
            name="wkv7-sequence-passed-backward",
            aliases=("wkv7_statepass_backward",),
            what="gradients through a sequence from a given state, one coming in by the final state",
            case=partial(backward, started=True, ended=True),
        ),
        Kernel(
            name="wkv7-sequence-start-backward",
            aliases=("wkv7_statetune_backward",),
            what="gradients through a sequence from a given state, that by the state included",
            case=partial(backward, started=True, ended=False),
        ),
        Kernel(
            name="sample",
            aliases=("rapid_sample_forward",),
            what="temperature, top-p and a draw",
            case=_sample,
        ),
    )
