"""WKV-7 token by token in place: the definition, and the kernel that equals it."""

from __future__ import annotations

import pytest
import torch
from gpu_slabs import nans, near, random, slab
from torch import Tensor
from triton_here import DEVICE, WANTING, needs_triton

from antiphon_kernels.slab import Slab
from antiphon_kernels.wkv7_sequence import reference as sequence
from antiphon_kernels.wkv7_step import reference
from antiphon_kernels.wkv7_step.reference import GATE, KAPPA, VECTORS, B, K, R, V, W

if WANTING is None:
    from antiphon_kernels.wkv7_step import triton_gpu

AT = 5
"""Where the matrices begin in a state: other numbers stand before them and after."""


def random_vectors(rows: int, heads: int, n: int) -> Tensor:
    vectors = random(VECTORS, rows, heads, n, seed=rows)
    vectors[W] = torch.exp(-0.606 * torch.sigmoid(vectors[W]))
    vectors[KAPPA] = torch.nn.functional.normalize(vectors[KAPPA], dim=-1)
    vectors[B] = vectors[KAPPA] * torch.sigmoid(vectors[B])
    vectors[GATE] = torch.nan
    return vectors


def random_states(count: int, heads: int, n: int) -> Tensor:
    return random(count, AT + heads * n * n + 3, seed=7)


def test_the_definition_is_that_of_the_sequence_form() -> None:
    vectors, states = random_vectors(16, 2, 8), random_states(2, 2, 8)
    start = states[1, AT:-3].view(1, 2, 8, 8).clone()
    r, w, k, v, kappa, b, _ = (x.unsqueeze(0) for x in vectors)
    wanted, after = sequence.forward(r, w, k, v, kappa, b, torch.ones(1, 1, dtype=torch.bool, device=DEVICE), start)
    out = nans(16, 2, 8)
    reference.advance(vectors, states, AT, slab((1, 16)), out)
    assert near(out, wanted[0], 1e-5)
    assert near(states[1, AT:-3], after.flatten(), 1e-5)


@needs_triton
@pytest.mark.parametrize(("heads", "n"), [(1, 4), (3, 16), (1, 64)])
def test_the_kernel_equals_the_definition(heads: int, n: int) -> None:
    vectors, states = random_vectors(6, heads, n), random_states(4, heads, n)
    wanted_states, wanted, out = states.clone(), nans(6, heads, n), nans(6, heads, n)
    several = slab((2, 3), (1, 1), (3, 2))
    reference.advance(vectors, wanted_states, AT, several, wanted)
    triton_gpu.advance(vectors, states, AT, several, out)
    assert near(out, wanted, 1e-5)
    assert near(states, wanted_states, 1e-5)
    assert torch.equal(states[:, :AT], wanted_states[:, :AT])
    assert torch.equal(states[0], wanted_states[0])


def steps() -> list[object]:
    return [reference.advance, *([triton_gpu.advance] if WANTING is None else [])]


@pytest.mark.parametrize("advance", steps())
@pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 5]])
def test_any_split_of_a_sequence_gives_the_same_bits(advance: object, cuts: list[int]) -> None:
    vectors, states = random_vectors(8, 2, 16), random_states(2, 2, 16)
    wanted_states, wanted = states.clone(), nans(8, 2, 16)
    advance(vectors, wanted_states, AT, slab((1, 8)), wanted)  # type: ignore[operator]
    row, outputs = 0, []
    for length in cuts:
        out = nans(length, 2, 16)
        advance(vectors[:, row : row + length].contiguous(), states, AT, slab((1, length)), out)  # type: ignore[operator]
        outputs.append(out)
        row += length
    assert torch.equal(torch.cat(outputs), wanted)
    assert torch.equal(states, wanted_states)


@pytest.mark.parametrize("advance", steps())
def test_a_sequence_does_not_depend_on_the_others_of_its_slab(advance: object) -> None:
    vectors, states = random_vectors(5, 1, 16), random_states(3, 1, 16)
    alone_states, alone = states.clone(), nans(2, 1, 16)
    advance(vectors[:, 3:].contiguous(), alone_states, AT, slab((2, 2)), alone)  # type: ignore[operator]
    out = nans(5, 1, 16)
    advance(vectors, states, AT, slab((1, 3), (2, 2)), out)  # type: ignore[operator]
    assert torch.equal(out[3:], alone)
    assert torch.equal(states[2], alone_states[2])


@pytest.mark.parametrize("advance", steps())
def test_rows_of_nobody_are_left_alone(advance: object) -> None:
    vectors, states = random_vectors(4, 1, 16), random_states(2, 1, 16)
    out, before = nans(4, 1, 16), states.clone()
    partly: Slab = slab((1, 1), spare=3)
    advance(vectors, states, AT, partly, out)  # type: ignore[operator]
    assert torch.equal(states[0], before[0])
    assert out[0].isfinite().all()
    assert out[1:].isnan().all()


@pytest.mark.parametrize("advance", steps())
def test_a_nan_is_not_hidden(advance: object) -> None:
    vectors, states = random_vectors(2, 1, 16), random_states(2, 1, 16)
    vectors[V, 1, 0, 3] = torch.nan
    out = nans(2, 1, 16)
    advance(vectors, states, AT, slab((1, 2)), out)  # type: ignore[operator]
    assert out[0].isfinite().all()
    assert out[1].isnan().any()
    assert not torch.isnan(vectors[R]).any()
    assert not torch.isnan(vectors[K]).any()
