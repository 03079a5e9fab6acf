"""The parts of an RWKV-7 block between its matrices: the definition equals the model's, the kernels the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_slabs import nans, near, random, slab
from torch import Tensor
from triton_here import DEVICE, WANTING, needs_triton

from antiphon.model import rwkv7
from antiphon_kernels.block7 import reference
from antiphon_kernels.block7.reference import HeadWeights
from antiphon_kernels.linear.on_device import dequantized, lay_out
from antiphon_kernels.planes import joined, split
from antiphon_kernels.wkv7_step.reference import GATE, KAPPA, VECTORS, B, K, R, V, W

if WANTING is None:
    from antiphon_kernels.block7 import triton_gpu

WITHIN = 1e-5
PLANES_WITHIN = 2**-14
AT = 3


def planes(planes: int, *size: int) -> Tensor:
    return nans(size[0], planes, *size[1:], dtype=torch.float32 if planes == 0 else torch.bfloat16)


def head_weights(heads: int, n: int, *, first: bool = False, dtype: torch.dtype = torch.float16) -> HeadWeights:
    d = heads * n
    w2, a2, v2, g2 = (
        lay_out((random(d, rank, seed=rank) / 4).to(dtype), None, device=DEVICE) for rank in (16, 24, 8, 40)
    )
    w0, a0, v0, k_k, k_a = random(5, d, seed=3)
    return HeadWeights(
        w0=w0, a0=a0, v0=None if first else v0, k_k=k_k, k_a=k_a,
        w2=w2, a2=a2, v2=None if first else v2, g2=g2, starts=(0, 16, 48, 64),
    )  # fmt: skip


def hidden(rows: int) -> Tensor:
    return split(random(rows, 112, seed=rows), planes=2, dtype=torch.bfloat16)


def test_embedding_and_norm_are_those_of_the_model() -> None:
    table, weight, bias = random(9, 24), random(24, seed=1), random(24, seed=2)
    ids = torch.tensor([3, 8, 0], dtype=torch.int32, device=DEVICE)
    out = nans(3, 24)
    reference.embed(table, None, ids, weight, bias, out)
    exact = torch.nn.functional.layer_norm(table[ids.long()].double(), (24,), weight.double(), bias.double(), 1e-5)
    assert near(out, exact, WITHIN)
    again = nans(1, 1, 2, 24)
    reference.norm(table, torch.tensor([8, 3], dtype=torch.int32, device=DEVICE), weight, bias, again)
    assert near(again[0, 0], exact[[1, 0]], WITHIN)


def test_the_time_mix_is_that_of_the_model() -> None:
    """All parts one behind the other, on a sequence of five tokens, against `antiphon.model.rwkv7` (S0-086)."""
    heads, n, rows = 2, 16, 5
    d = heads * n
    head = head_weights(heads, n, dtype=torch.float32)
    assert head.v2 is not None
    assert head.v0 is not None
    ln, mixes, states = random(2, d, seed=4), random(6, d, seed=5), random(2, AT + d + d * n, seed=6)
    downs = [random(rank, d, seed=rank) / 8 for rank in (16, 24, 8, 40)]
    linear = [random(d, d, seed=8 + i) / 4 for i in range(4)]
    r_k, lnx_w, lnx_b = random(3, d, seed=12)
    x, v_first = random(rows, d, seed=13), random(rows, d, seed=14)
    before = rwkv7.LayerState(
        att_x=states[1, AT : AT + d].double(), wkv=states[1, AT + d :].view(heads, n, n).double(),
        ffn_x=states[1, :d].double(),
    )  # fmt: skip
    att = {
        **{f"x_{name}": mixes[i] for i, name in enumerate("rwkvag")},
        **{f"{name}1": down.T for name, down in zip("wavg", downs, strict=True)},
        **{
            f"{name}2": dequantized(m)[:d].T
            for name, m in zip("wavg", (head.w2, head.a2, head.v2, head.g2), strict=True)
        },
        "w0": head.w0, "a0": head.a0, "v0": head.v0, "k_k": head.k_k, "k_a": head.k_a,
        "r_k": r_k.view(heads, n), "ln_x.weight": lnx_w, "ln_x.bias": lnx_b,
        **{f"{name}.weight": w for name, w in zip(("receptance", "key", "value", "output"), linear, strict=True)},
    }  # fmt: skip
    weights = {f"blocks.1.att.{name}": tensor.double() for name, tensor in att.items()}
    normed = torch.nn.functional.layer_norm(x.double(), (d,), ln[0].double(), ln[1].double(), 1e-5)
    wanted, wkv, _ = rwkv7._time_mix(weights, 1, normed, before, v_first.double())

    mixed, vectors, y, gated = (
        nans(6, 1, rows, d),
        nans(VECTORS, rows, heads, n),
        nans(rows, heads, n),
        nans(1, 1, rows, d),
    )
    one = slab((1, rows))
    reference.shift_mix(x, ln[0], ln[1], mixes, states, AT, one, mixed)
    projected = torch.cat([mixed[i, 0] @ w.T for i, w in zip((0, 2, 3), linear[:3], strict=True)], dim=1)
    low = torch.zeros(1, rows, 112, device=DEVICE)
    for (source, start), down in zip(((1, 0), (4, 16), (3, 48), (5, 64)), downs, strict=True):
        low[0, :, start : start + down.shape[0]] = mixed[source, 0] @ down.T
    low[0, :, :16].tanh_()
    low[0, :, 64:104].sigmoid_()
    reference.prepare(projected, low, head, v_first, vectors)
    from antiphon_kernels.wkv7_step.reference import advance

    advance(vectors, states, AT + d, one, y)
    reference.finish(y, vectors, r_k, lnx_w, lnx_b, gated)
    assert near((gated[0, 0] @ linear[3].T).double(), wanted, 1e-4)
    assert near(states[1, AT + d :].view(heads, n, n).double(), wkv, 1e-4)
    assert near(states[1, AT : AT + d].double(), normed[-1], WITHIN)


@needs_triton
@pytest.mark.parametrize("kind", ["float", "half", "int8"])
def test_the_embedding_kernel_equals_the_definition(kind: str) -> None:
    table, weight, bias = random(9, 24), random(24, seed=1), random(24, seed=2)
    scales = None
    if kind == "int8":
        table, scales = (table * 40).round().to(torch.int8), random(9, seed=3).abs()
    elif kind == "half":
        table = table.half()
    ids = torch.tensor([3, 8, 0], dtype=torch.int32, device=DEVICE)
    wanted, out = nans(3, 24), nans(3, 24)
    reference.embed(table, scales, ids, weight, bias, wanted)
    triton_gpu.embed(table, scales, ids, weight, bias, out)
    assert near(out, wanted, WITHIN)


@needs_triton
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("mixes", [1, 6])
def test_the_shift_kernel_equals_the_definition(count: int, mixes: int) -> None:
    d = 40
    x, ln, mix, states = random(7, d), random(2, d, seed=1), random(mixes, d, seed=2), random(4, d + 9, seed=3)
    wanted_states, wanted, out = states.clone(), planes(count, mixes, 7, d), planes(count, mixes, 7, d)
    several = slab((2, 3), (1, 1), (3, 2), spare=1)
    reference.shift_mix(x, ln[0], ln[1], mix, wanted_states, AT, several, wanted)
    triton_gpu.shift_mix(x, ln[0], ln[1], mix, states, AT, several, out)
    assert near(joined(out), joined(wanted), PLANES_WITHIN if count == 2 else 2**-7)
    assert near(states, wanted_states, WITHIN)
    assert torch.equal(states[0], wanted_states[0])


@needs_triton
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernel_that_prepares_a_recurrence_equals_the_definition(first: bool, dtype: torch.dtype) -> None:
    heads, n, rows = 2, 16, 19
    head = head_weights(heads, n, first=first, dtype=dtype)
    projected, low, v_first = random(rows, 3 * heads * n), hidden(rows), random(rows, heads * n, seed=5)
    fast_first, wanted, out = v_first.clone(), nans(VECTORS, rows, heads, n), nans(VECTORS, rows, heads, n)
    reference.prepare(projected, low, head, v_first, wanted)
    triton_gpu.prepare(projected, low, head, fast_first, out)
    for index in (R, W, K, V, KAPPA, B, GATE):
        assert near(out[index], wanted[index], WITHIN)
    assert torch.equal(fast_first, v_first)


@needs_triton
def test_a_key_of_zeros_is_not_divided_by_zero() -> None:
    head = head_weights(1, 16)
    projected, out = torch.zeros(1, 48, device=DEVICE), nans(VECTORS, 1, 1, 16)
    triton_gpu.prepare(projected, hidden(1), head, torch.zeros(1, 16, device=DEVICE), out)
    assert not out[KAPPA].any()


@needs_triton
@pytest.mark.parametrize("count", [1, 2])
def test_the_kernel_that_finishes_a_recurrence_equals_the_definition(count: int) -> None:
    heads, n, rows = 3, 16, 5
    y, vectors, (r_k, weight, bias) = random(rows, heads, n), random(VECTORS, rows, heads, n), random(3, heads * n)
    wanted, out = planes(count, 1, rows, heads * n), planes(count, 1, rows, heads * n)
    reference.finish(y, vectors, r_k, weight, bias, wanted)
    triton_gpu.finish(y, vectors, r_k, weight, bias, out)
    assert near(joined(out), joined(wanted), PLANES_WITHIN if count == 2 else 2**-7)


@needs_triton
def test_the_norm_kernel_takes_the_rows_it_is_told() -> None:
    x, (weight, bias) = random(6, 40), random(2, 40, seed=1)
    places = torch.tensor([5, 0], dtype=torch.int32, device=DEVICE)
    wanted, out = nans(1, 1, 2, 40), nans(1, 1, 2, 40)
    reference.norm(x, places, weight, bias, wanted)
    triton_gpu.norm(x, places, weight, bias, out)
    assert near(out, wanted, WITHIN)


@needs_triton
def test_a_row_does_not_depend_on_the_others() -> None:
    heads, n = 2, 16
    head, projected, low = head_weights(heads, n), random(18, 96), hidden(18)
    whole, alone = nans(VECTORS, 18, heads, n), nans(VECTORS, 1, heads, n)
    triton_gpu.prepare(projected, low, head, torch.zeros(18, 32, device=DEVICE), whole)
    one = slice(17, 18)
    triton_gpu.prepare(
        projected[one].contiguous(), low[:, one].contiguous(), head, torch.zeros(1, 32, device=DEVICE), alone
    )
    assert torch.equal(alone[:, 0], whole[:, 17])


def test_the_first_layer_has_no_value_of_an_earlier_one() -> None:
    head = head_weights(1, 16, first=True)
    projected, out, v_first = random(2, 48), nans(VECTORS, 2, 1, 16), nans(2, 16)
    reference.prepare(projected, hidden(2), head, v_first, out)
    assert torch.equal(v_first, projected[:, 32:])
    assert torch.equal(out[V].view(2, 16), projected[:, 32:])
    with pytest.raises(RuntimeError):
        reference.prepare(projected, hidden(2), replace(head, w0=head.w0[:8]), v_first, out)
