"""The GPU's linear layers: how weights lie on a device, the plain product, and the kernel that equals it (S0-084)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from triton_here import DEVICE, WANTING, needs_triton

from antiphon_kernels.linear import on_device
from antiphon_kernels.linear.on_device import AS_IS, BY_PART, IDENTITY, SIGMOID, SQUARED_RELU, TANH, Matrix
from antiphon_kernels.planes import joined, split

if WANTING is None:
    from antiphon_kernels.linear import triton_gpu

# Against float64, as a share of the largest output: sums of some dozen products in float32, and what a plane cuts off.
WITHIN = 3e-6
ONE_PLANE = 2**-8

FORMS = ["fp32", "bf16", "fp16", "int8", "int8 groups", "int4"]


@pytest.fixture(autouse=True)
def _outputs_begin_as_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def random_matrix(form: str, outputs: int, inputs: int, *, group: int = 32) -> tuple[Matrix, Tensor]:
    """A matrix on the device, and what it says in float64."""
    dense = random(outputs, inputs, seed=outputs)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if form in dtypes:
        values = dense.to(dtypes[form])
        return on_device.lay_out(values, None, device=DEVICE), values.double()
    groups = -(-inputs // group)
    scales = torch.rand(outputs, groups, generator=torch.Generator().manual_seed(1)) + 0.1
    spread = scales.repeat_interleave(group, dim=1)[:, :inputs].double()
    if form == "int4":
        whole = (dense * 4).round().clamp(-8, 7).to(torch.int64)
        packed = ((whole[:, ::2] + 8) | ((whole[:, 1::2] + 8) << 4)).to(torch.uint8)
        return on_device.lay_out(packed, scales, device=DEVICE, group=group), whole * spread
    whole = (dense * 40).round().clamp(-127, 127).to(torch.int8)
    if form == "int8 groups":
        return on_device.lay_out(whole, scales, device=DEVICE, group=group), whole * spread
    return on_device.lay_out(whole, scales[:, 0], device=DEVICE), whole * scales[:, :1].double()


def activations(form: str, sources: int, rows: int, inputs: int, *, planes: int = 2) -> tuple[Tensor, Tensor]:
    """Planes on the device, and what they say in float64."""
    x = random(sources, rows, inputs, seed=rows)
    dtype = torch.float32 if form == "fp32" else torch.bfloat16
    parts = split(x, planes=1 if form == "fp32" else planes, dtype=dtype).to(DEVICE)
    return parts, joined(parts).cpu().double()


def distance(fast: Tensor, exact: Tensor) -> float:
    return float((fast.cpu().double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("form", FORMS)
def test_laid_out_weights_say_what_they_said(form: str) -> None:
    matrix, exact = random_matrix(form, 40, 72)
    assert distance(on_device.dequantized(matrix)[:40], exact) < 1e-6
    assert matrix.height % 16 == 0
    assert matrix.padded % 64 == 0


def test_scales_that_were_float16_take_half_the_bytes() -> None:
    packed = torch.zeros(16, 32, dtype=torch.uint8)
    small = on_device.lay_out(packed, random(16, 2).half().float(), device="cpu", group=32)
    large = on_device.lay_out(packed, random(16, 2), device="cpu", group=32)
    assert small.scales is not None
    assert large.scales is not None
    assert 2 * small.scales.nbytes == large.scales.nbytes


@pytest.mark.parametrize("wrong", ["a group of 48", "scales of another count", "int16", "floats with scales"])
def test_what_is_no_matrix_is_refused(wrong: str) -> None:
    values, scales, group = torch.zeros(16, 64, dtype=torch.int8), torch.ones(16, 2), 32
    if wrong == "a group of 48":
        group = 48
    elif wrong == "scales of another count":
        scales = torch.ones(16, 3)
    else:
        values = values.to(torch.int16 if wrong == "int16" else torch.float32)
    with pytest.raises(ValueError, match=r"group|format"):
        on_device.lay_out(values, scales, device="cpu", group=group)


@pytest.mark.parametrize("form", FORMS)
def test_the_plain_product_equals_float64(form: str) -> None:
    matrix, exact = random_matrix(form, 40, 72)
    x, wide = activations(form, 1, 3, 72)
    out = torch.empty(3, 40, device=DEVICE)
    on_device.multiply(matrix, x, out)
    assert distance(out, wide[0] @ exact.T) < WITHIN


@needs_triton
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("outputs", "inputs", "rows"), [(40, 72, 1), (16, 64, 5), (33, 130, 18)])
def test_the_kernel_equals_float64(form: str, outputs: int, inputs: int, rows: int) -> None:
    matrix, exact = random_matrix(form, outputs, inputs)
    x, wide = activations(form, 1, rows, inputs)
    out = torch.empty(rows, outputs, device=DEVICE)
    triton_gpu.multiply(matrix, x, out)
    assert distance(out, wide[0] @ exact.T) < WITHIN


@needs_triton
@pytest.mark.parametrize(("form", "group"), [("int8 groups", 64), ("int8 groups", 128), ("int4", 64), ("int4", 128)])
def test_groups_of_other_sizes(form: str, group: int) -> None:
    matrix, exact = random_matrix(form, 32, 192, group=group)
    x, wide = activations(form, 1, 2, 192)
    out = torch.empty(2, 32, device=DEVICE)
    triton_gpu.multiply(matrix, x, out)
    assert distance(out, wide[0] @ exact.T) < WITHIN


@needs_triton
def test_two_planes_keep_sixteen_bits_and_one_keeps_eight() -> None:
    matrix, exact = random_matrix("int8", 32, 64)
    x = random(1, 4, 64)
    wanted = x[0].double() @ exact.T
    for planes, least, most in ((2, 0.0, 2**-14), (1, 2**-13, ONE_PLANE)):
        out = torch.empty(4, 32, device=DEVICE)
        triton_gpu.multiply(matrix, split(x, planes=planes, dtype=torch.bfloat16).to(DEVICE), out)
        assert least <= distance(out, wanted) < most


@needs_triton
@pytest.mark.parametrize("form", FORMS)
def test_a_rows_result_is_the_same_in_every_batch(form: str) -> None:
    matrix, _ = random_matrix(form, 32, 96)
    x, _ = activations(form, 1, 16, 96)
    out = torch.empty(16, 32, device=DEVICE)
    triton_gpu.multiply(matrix, x, out)
    for rows in (1, 3):
        few = torch.empty(rows, 32, device=DEVICE)
        triton_gpu.multiply(matrix, x[:, :, :rows].contiguous(), few)
        assert torch.equal(few, out[:rows])


@needs_triton
@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter multiplies as NumPy does, which looks at the whole shape")
@pytest.mark.parametrize("form", FORMS)
def test_wide_batches_give_the_bits_of_one_row(form: str) -> None:
    matrix, _ = random_matrix(form, 1024, 1024)
    x, _ = activations(form, 1, 200, 1024)
    out, few = torch.empty(200, 1024, device=DEVICE), torch.empty(1, 1024, device=DEVICE)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        assert triton_gpu.tune([matrix], planes=x.shape[1], many=True) == []
        assert triton_gpu.tune([matrix], planes=x.shape[1], many=False) == []
    torch.cuda.synchronize()
    triton_gpu.multiply(matrix, x, out)
    for row in (0, 77, 199):
        triton_gpu.multiply(matrix, x[:, :, row : row + 1].contiguous(), few)
        assert torch.equal(few[0], out[row])


def by_input(form: str, outputs: int, inputs: int) -> tuple[Matrix, Matrix]:
    """The same matrix twice: by outputs, and by inputs."""
    group = 32 if form in ("int8 groups", "int4") else 0
    one, _ = random_matrix(form, outputs, inputs)
    values, scales = one.values[:outputs, :inputs].cpu(), None if one.scales is None else one.scales.cpu()
    scales = scales[:outputs] if form == "int8" and scales is not None else scales
    scales = scales.T[:outputs] if group and scales is not None else scales
    return one, on_device.lay_out(values, scales, device=DEVICE, group=group, by_input=True)


@needs_triton
@pytest.mark.parametrize("form", [form for form in FORMS if form != "int4"])
@pytest.mark.parametrize("rows", [1, 3, 18])
def test_weights_of_inputs_that_are_zero_are_not_looked_at(form: str, rows: int) -> None:
    """Of a lone row: weights that are NaN show that they were not read. The sums are the same to the bit always."""
    usual, other = by_input(form, 48, 128)
    assert other.by_input
    assert torch.equal(on_device.dequantized(other), on_device.dequantized(usual))
    x, _ = activations(form, 1, rows, 128)
    asleep = torch.rand(128, generator=torch.Generator().manual_seed(5)) < 0.8
    x[..., asleep] = 0
    wanted, out = torch.empty(rows, 48, device=DEVICE), torch.empty(rows, 48, device=DEVICE)
    triton_gpu.multiply(usual, x, wanted)
    if other.values.is_floating_point() and rows == 1:
        other.values[asleep] = torch.nan
    triton_gpu.multiply(other, x, out)
    assert torch.equal(out, wanted)


def test_int4_always_lies_by_outputs() -> None:
    packed = torch.zeros(16, 32, dtype=torch.uint8)
    assert not on_device.lay_out(packed, random(16, 2), device="cpu", group=32, by_input=True).by_input


def plain_and_fast() -> list[object]:
    return [on_device.multiply, *([triton_gpu.multiply] if WANTING is None else [])]


@pytest.mark.parametrize("multiply", plain_and_fast())
def test_stacked_layers_multiply_each_its_own_input(multiply: object) -> None:
    parts = [random_matrix("bf16", outputs, 64) for outputs in (32, 24, 32)]
    stacked = on_device.stack([matrix for matrix, _ in parts], sources=[2, 0, 1], acts=[IDENTITY, TANH, SIGMOID])
    x, wide = activations("bf16", 3, 2, 64)
    out = torch.empty(2, 96, device=DEVICE)
    multiply(stacked, x, out, act=BY_PART)  # type: ignore[operator]
    assert stacked.starts == (0, 32, 64)
    assert stacked.aligned == 32
    assert distance(out[:, :32], wide[2] @ parts[0][1].T) < WITHIN
    assert distance(out[:, 32:56], torch.tanh(wide[0] @ parts[1][1].T)) < WITHIN
    assert distance(out[:, 64:], torch.sigmoid(wide[1] @ parts[2][1].T)) < WITHIN


@pytest.mark.parametrize("multiply", plain_and_fast())
def test_what_becomes_of_a_product(multiply: object) -> None:
    matrix, exact = random_matrix("int8", 20, 64)
    x, wide = activations("int8", 1, 3, 64)
    y = wide[0] @ exact.T
    planes = torch.empty(2, 3, 20, dtype=torch.bfloat16, device=DEVICE)
    multiply(matrix, x, planes, act=SQUARED_RELU)  # type: ignore[operator]
    assert distance(joined(planes), torch.relu(y) ** 2) < 2**-14
    total = random(3, 20).to(DEVICE)
    wanted = y + total.cpu().double()
    multiply(matrix, x, total, residual=total, act=AS_IS)  # type: ignore[operator]
    assert distance(total, wanted) < WITHIN
    scattered = torch.zeros(5, 20, device=DEVICE)
    multiply(matrix, x, scattered, places=torch.tensor([4, 0, 2], dtype=torch.int32, device=DEVICE))  # type: ignore[operator]
    assert distance(scattered[[4, 0, 2]], y) < WITHIN
    assert not scattered[[1, 3]].any()


@pytest.mark.parametrize("multiply", plain_and_fast())
def test_a_nan_is_not_hidden(multiply: object) -> None:
    matrix, _ = random_matrix("int8", 16, 64)
    x, _ = activations("int8", 1, 2, 64)
    x[0, 0, 1, 5] = torch.nan
    out = torch.empty(2, 16, device=DEVICE)
    multiply(matrix, x, out, act=SQUARED_RELU)  # type: ignore[operator]
    assert out[0].isfinite().all()
    assert out[1].isnan().all()
