"""The GPU's WKV-7 sequence equals the token-by-token definition, forward and backward, and compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from triton_here import DEVICE, INTERPRETED, WANTING, needs_triton

from antiphon_kernels.wkv7_sequence import reference
from antiphon_kernels.wkv7_sequence.reference import CHUNK

if WANTING is None:
    from antiphon_kernels.wkv7_sequence import triton_gpu

pytestmark = needs_triton

# Against the definition in float64, as a share of the largest number of each array. Three TF32 products in place of
# one in float32 lose a few bits more.
WITHIN = 2e-6 if INTERPRETED else 2e-5
# Results in bfloat16 have 8 bits, which a GPU rounds to and the interpreter cuts to.
BFLOAT16_WITHIN = 2**-7 if INTERPRETED else 2**-8

MAX_LOG_DECAY = -0.606531


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs r, log_w, k, v, kappa, a; which chunks go on; the state before; gradients by y and the final state."""

    inputs: tuple[Tensor, ...]
    keep: Tensor
    start: Tensor
    dy: Tensor
    dfinal: Tensor

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """As the kernels give it; what they leave out stays NaN."""
        return triton_gpu.forward(*self.inputs, self.keep, self.start)

    def backward(self, kept: Tensor) -> tuple[Tensor, ...]:
        return triton_gpu.backward(*self.inputs, self.keep, kept, self.dy, self.dfinal)

    def part(self, tokens: slice, chunks: slice, start: Tensor) -> Case:
        inputs = tuple(x[:, tokens].contiguous() for x in self.inputs)
        return replace(self, inputs=inputs, keep=self.keep[:, chunks].contiguous(), start=start)

    def row(self, index: int) -> Case:
        alone = slice(index, index + 1)
        tensors = (self.keep, self.start, self.dy, self.dfinal)
        return Case(tuple(x[alone].clone() for x in self.inputs), *(x[alone].clone() for x in tensors))


def random_case(
    batch: int, length: int, heads: int, n: int, *, dtype: torch.dtype = torch.float32, lone: bool = False
) -> Case:
    """Numbers as a trained network has them: unit kappa, a in 0..1, decays of 0.54 and more."""
    generator = torch.Generator().manual_seed(length)
    size = (batch, length, heads, n)
    r, k, v, kappa, dy = (torch.randn(size, generator=generator) for _ in range(5))
    kappa = torch.nn.functional.normalize(kappa, dim=-1)
    log_w = MAX_LOG_DECAY * torch.rand(size, generator=generator)
    a = torch.rand(size, generator=generator)
    keep = torch.rand(batch, -(-length // CHUNK), generator=generator) < (1.0 if lone else 0.7)
    start, dfinal = (torch.randn(batch, heads, n, n, generator=generator).to(DEVICE) for _ in range(2))
    inputs = tuple(x.to(DEVICE, dtype) for x in (r, log_w, k, v, kappa, a))
    return Case(inputs, keep.to(DEVICE), start, dy.to(DEVICE, dtype), dfinal)


def defined(case: Case) -> tuple[list[Tensor], list[Tensor]]:
    """(y, final state) and all gradients of the definition in float64."""
    tensors = [x.cpu().double().requires_grad_() for x in (*case.inputs, case.start)]
    r, log_w, k, v, kappa, a, start = tensors
    length = r.shape[1]

    def padded(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, 0, 0, 0, 0, -length % CHUNK))

    r, log_w, k, v, kappa, b = (padded(x) for x in (r, log_w, k, v, kappa, kappa * a))
    y, final = reference.forward(r, torch.exp(log_w), k, v, kappa, b, case.keep.cpu(), start)
    out = (y[:, :length], final)
    grads = torch.autograd.grad(out, tensors, [case.dy.cpu().double(), case.dfinal.cpu().double()])
    return [x.detach() for x in out], list(grads)


def distance(fast: Tensor, exact: Tensor) -> float:
    # Where every row forgets the state before it, its gradient is exactly zero.
    return float((fast.cpu().double() - exact).abs().max() / exact.abs().max().clamp(min=1e-9))


@pytest.fixture(autouse=True)
def _outputs_begin_as_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(before)


def assert_equals_the_definition(case: Case, within: float) -> None:
    outputs, gradients = defined(case)
    y, kept, final = case.forward()
    grads = case.backward(kept)
    for fast, exact in zip((y, final, *grads), (*outputs, *gradients), strict=True):
        assert distance(fast, exact) < within
    for grad, given in zip(grads, (*case.inputs, case.start), strict=True):
        assert grad.dtype == given.dtype


@pytest.mark.parametrize("shape", [(1, 16, 1, 16), (2, 17, 2, 16), (1, 20, 1, 64)])
def test_equals_the_definition_forward_and_backward(shape: tuple[int, int, int, int]) -> None:
    assert_equals_the_definition(random_case(*shape), WITHIN)


def test_the_strongest_decays_need_no_rescaling() -> None:
    case = random_case(1, 32, 1, 16, lone=True)
    case.inputs[1].fill_(MAX_LOG_DECAY)
    assert_equals_the_definition(case, WITHIN)


def test_keys_that_repeat_without_decay_cancel_nothing() -> None:
    case = random_case(1, 16, 1, 16, lone=True)
    case.inputs[1].zero_()
    case.inputs[4].copy_(case.inputs[4][:, :1].clone())
    case.inputs[5].fill_(1.0)
    assert_equals_the_definition(case, WITHIN)


def test_bfloat16_is_rounded_at_the_doors_only() -> None:
    assert_equals_the_definition(random_case(1, 35, 1, 16, dtype=torch.bfloat16), BFLOAT16_WITHIN)


def test_a_split_sequence_goes_on_where_it_stopped() -> None:
    case = random_case(1, 40, 1, 16, lone=True)
    whole, _, end = case.forward()
    y0, _, middle = case.part(slice(0, 16), slice(0, 1), case.start).forward()
    y1, _, last = case.part(slice(16, 40), slice(1, 3), middle).forward()
    assert torch.equal(torch.cat([y0, y1], dim=1), whole)
    assert torch.equal(last, end)


def test_a_row_does_not_depend_on_the_rest_of_the_batch() -> None:
    case = random_case(2, 19, 1, 16)
    y, kept, final = case.forward()
    grads = case.backward(kept)
    alone = case.row(1)
    y_alone, kept_alone, final_alone = alone.forward()
    for whole, single in zip((y, final, *grads), (y_alone, final_alone, *alone.backward(kept_alone)), strict=True):
        assert torch.equal(whole[1:], single)


def test_a_nan_is_not_hidden() -> None:
    case = random_case(1, 32, 1, 16, lone=True)
    case.inputs[2][0, 20, 0, 3] = torch.nan
    y, kept, final = case.forward()
    assert y[:, :CHUNK].isfinite().all()
    assert y[:, 20:].isnan().all()
    assert final.isnan().any()
    assert case.backward(kept)[0].isnan().any()


@pytest.mark.parametrize("wrong", ["N of 8", "a short tensor", "float64", "not contiguous", "keep", "start", "kept"])
def test_what_the_kernels_cannot_take_is_refused(wrong: str) -> None:
    case = random_case(1, 16, 2, 8 if wrong == "N of 8" else 16)
    inputs, keep, start, kept = list(case.inputs), case.keep, case.start, case.start.new_empty(1, 2, 1, 16, 16)
    if wrong == "a short tensor":
        inputs[3] = inputs[3][:, :, :1].contiguous()
    elif wrong == "float64":
        inputs[1] = inputs[1].double()
    elif wrong == "not contiguous":
        inputs[4] = inputs[4].transpose(1, 2).contiguous().transpose(1, 2)
    elif wrong == "keep":
        keep = keep.float()
    elif wrong == "start":
        start = start.bfloat16()
    elif wrong == "kept":
        kept = kept[:, :1]
    r, log_w, k, v, kappa, a = inputs
    with pytest.raises(ValueError, match=r"must be contiguous|is \[B, T, H, N\]"):
        triton_gpu.backward(r, log_w, k, v, kappa, a, keep, kept, case.dy, start)
    if wrong != "kept":
        with pytest.raises(ValueError, match=r"must be contiguous|is \[B, T, H, N\]"):
            triton_gpu.forward(r, log_w, k, v, kappa, a, keep, start)


# What the interpreter runs, the compiler may still refuse: it needs no GPU to say so.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from antiphon_kernels.wkv7_sequence import triton_gpu

CONSTANTS = {"C": 16, "N": 16, "PRECISION": "tf32x3"}
INTEGERS = {"length": "i32", "heads": "i32", "chunks": "i32", "keep": "*u8"}
INPUTS = dict.fromkeys(("r", "log_w", "k", "v", "kappa", "a", "dy", "y", "dr", "dk", "dv", "dkappa", "da"), "*bf16")
for kernel, more in [
    (triton_gpu._prepare, {"FORWARD": True}), (triton_gpu._prepare, {"FORWARD": False}),
    (triton_gpu._carry, {"SLICE": 16}), (triton_gpu._carry_back, {"SLICE": 16}), (triton_gpu._gradients, {"SLICE": 16}),
]:
    constants = CONSTANTS | more
    kinds = INTEGERS | INPUTS | dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "*fp32") for name in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
    assert made.asm["cubin"]
"""


def test_every_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
