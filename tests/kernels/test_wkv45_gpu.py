"""WKV-4, 5 and 6 on a GPU, in place in chosen states, against their definitions in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_process import compile_for_a_gpu
from gpu_slabs import nans, near, random, slab
from torch import Tensor
from triton_here import WANTING, needs_triton

from antiphon_kernels.wkv4_step import reference as wkv4
from antiphon_kernels.wkv5_step import reference as wkv5

if WANTING is None:
    from antiphon_kernels.wkv4_step import triton_gpu as wkv4_gpu
    from antiphon_kernels.wkv5_step import triton_gpu as wkv5_gpu

pytestmark = needs_triton

AT = 5
SEQUENCES = ((2, 3), (1, 1), (3, 2))
ROWS = 6


def rows_of(number: int) -> slice:
    first = sum(length for _, length in SEQUENCES[:number])
    return slice(first, first + SEQUENCES[number][1])


@pytest.mark.parametrize("width", [7, 300])
def test_wkv4_equals_its_definition(width: int) -> None:
    vectors, u, states = 3 * random(2, ROWS, width), random(width, seed=1), random(4, AT + 3 * width + 2, seed=2)
    log_w, out = -torch.exp(random(width, seed=3)), nans(ROWS, width)
    states[:, AT + 2 * width : AT + 3 * width] = -1e30
    wanted, y = states.cpu().numpy().copy(), np.empty((ROWS, width), np.float32)
    for number, (state, _) in enumerate(SEQUENCES):
        sums = wanted[state, AT : AT + 3 * width].reshape(3, width)
        part = rows_of(number)
        wkv4.advance(vectors.cpu().numpy()[:, part], u.cpu().numpy(), log_w.cpu().numpy(), sums, y[part])
    wkv4_gpu.advance(vectors, u, log_w, states, AT, slab(*SEQUENCES), out)
    assert near(out.cpu(), torch.from_numpy(y), 1e-5)
    assert near(states[1:, : AT + 2 * width].cpu(), torch.from_numpy(wanted[1:, : AT + 2 * width]), 1e-5)
    assert near(states[1:, AT + 2 * width :].cpu(), torch.from_numpy(wanted[1:, AT + 2 * width :]), 1e-5)
    assert torch.equal(states[0].cpu(), torch.from_numpy(wanted[0]))


def wkv5_case(heads: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    vectors = random(4, ROWS, heads, n)
    vectors[1] = torch.sigmoid(vectors[1])
    return vectors, random(heads, n, seed=1), random(4, AT + heads * n * n + 2, seed=2)


@pytest.mark.parametrize(("heads", "n"), [(1, 4), (3, 16), (1, 64)])
def test_wkv5_equals_its_definition(heads: int, n: int) -> None:
    vectors, u, states = wkv5_case(heads, n)
    wanted, y, out = states.cpu().numpy().copy(), np.empty((ROWS, heads, n), np.float32), nans(ROWS, heads, n)
    for number, (state, _) in enumerate(SEQUENCES):
        wkv = wanted[state, AT : AT + heads * n * n].reshape(heads, n, n)
        part = rows_of(number)
        wkv5.advance(vectors.cpu().numpy()[:, part], u.cpu().numpy(), wkv, y[part])
    wkv5_gpu.advance(vectors, u, states, AT, slab(*SEQUENCES), out)
    assert near(out.cpu(), torch.from_numpy(y), 1e-5)
    assert near(states.cpu(), torch.from_numpy(wanted), 1e-5)


def test_any_split_of_a_sequence_gives_the_same_bits() -> None:
    vectors, u, states = wkv5_case(2, 16)
    stepped, whole, parts = states.clone(), nans(ROWS, 2, 16), []
    wkv5_gpu.advance(vectors, u, states, AT, slab((1, ROWS)), whole)
    for row in range(ROWS):
        out = nans(1, 2, 16)
        wkv5_gpu.advance(vectors[:, row : row + 1].contiguous(), u, stepped, AT, slab((1, 1)), out)
        parts.append(out)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(stepped, states)


def test_a_nan_is_not_hidden() -> None:
    vectors, u, states = random(2, 2, 8), random(8, seed=1), random(2, AT + 24, seed=2)
    vectors[0, 1, 3] = torch.nan
    out = nans(2, 8)
    wkv4_gpu.advance(vectors, u, -torch.ones_like(u), states, AT, slab((1, 2)), out)
    assert out[0].isfinite().all()
    assert out[1].isnan().sum() == 1


COMPILE = """
import gpu_compiler
import torch
from antiphon_kernels.slab import slab_of, tables
from antiphon_kernels.wkv4_step import triton_gpu as wkv4
from antiphon_kernels.wkv5_step import triton_gpu as wkv5

one = slab_of(torch.from_numpy(tables([(1, 2)], capacity=4)), rows=2, sequences=1)
wkv4.advance(torch.zeros(2, 2, 768), *torch.zeros(2, 768), torch.zeros(2, 5 * 768), 768, one, torch.zeros(2, 768))
vectors, states = torch.zeros(4, 2, 12, 64), torch.zeros(2, 66 * 768)
wkv5.advance(vectors, torch.zeros(12, 64), states, 768, one, torch.zeros(2, 12, 64))
assert len(gpu_compiler.compiled) == 2
"""


def test_the_kernels_compile_for_a_gpu_that_is_not_here() -> None:
    compile_for_a_gpu(COMPILE)
