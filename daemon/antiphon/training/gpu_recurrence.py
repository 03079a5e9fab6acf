"""The WKV-7 recurrence on a GPU: Triton kernels where Triton is and they prove right, else the chunked form, aloud."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.model.rwkv7 import MAX_LOG_DECAY
from antiphon.model.wkv7_chunked import CHUNK, wkv7_chunked

# Of the largest number of each array. The kernels stay near 1e-6; plain TF32, which must not slip in, is near 1e-3.
PROVEN_WITHIN = 1e-4


class SlowRecurrence(RuntimeWarning):
    """Training goes on, and right, but in the slow form of the recurrence."""


def wkv7_gpu(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    state: Tensor,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N] and the state after; arguments as in `wkv7_chunked`."""
    triton_gpu = _kernels()
    if triton_gpu is None or not triton_gpu.takes(r) or not _proven(r.device, r.shape[3]):
        return wkv7_chunked(r, log_w, k, v, kappa, a, state, keep)
    if keep is None:
        keep = torch.ones(r.shape[0], -(-r.shape[1] // CHUNK), dtype=torch.bool, device=r.device)
    inputs = (x.contiguous() for x in (r, log_w, k, v, kappa, a))
    y, _, final = _sequence(*inputs, keep.bool().contiguous(), state.float().contiguous())
    return y, final.to(state.dtype)


@functools.cache
def _kernels() -> Any:
    """The module of kernels; None, said once, where Triton is not installed."""
    try:
        return importlib.import_module("antiphon_kernels.wkv7_sequence.triton_gpu")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
    warnings.warn(
        "Triton is not installed: training on the GPU takes the chunked form of the recurrence, which is slower and "
        "needs more memory. Builds of torch for GPUs bring Triton; else: pip install triton",
        SlowRecurrence,
        stacklevel=3,
    )
    return None


@functools.cache
def _proven(device: torch.device, head_size: int) -> bool:
    """Whether the kernels, compiled for this device, equal the chunked form in float64 on a small random case.

    A GPU, driver or compiler that nobody has tried must not train a model on wrong gradients.
    """
    worst = _worst_error(device, head_size)
    if worst <= PROVEN_WITHIN:
        return True
    warnings.warn(
        f"the Triton kernels are off by {worst:.1e} of the largest number on {device}: training takes the chunked form "
        "of the recurrence, which is slower",
        SlowRecurrence,
        stacklevel=3,
    )
    return False


def _worst_error(device: torch.device, head_size: int) -> float:
    """The largest error of an output or a gradient, as a share of that array's largest number; NaN counts as ∞."""
    generator = torch.Generator().manual_seed(0)
    r, log_w, k, v, kappa, a = (torch.randn(1, 40, 2, head_size, generator=generator) for _ in range(6))
    kappa = functional.normalize(kappa, dim=-1)
    log_w, a = MAX_LOG_DECAY * torch.sigmoid(log_w), torch.sigmoid(a)
    state = torch.randn(1, 2, head_size, head_size, generator=generator)
    keep = torch.tensor([[True, False, True]], device=device)
    outcomes = []
    with torch.enable_grad():
        for dtype in (torch.float32, torch.float64):
            inputs = [x.to(device, dtype).requires_grad_() for x in (r, log_w, k, v, kappa, a, state)]
            x_r, x_w, x_k, x_v, x_kappa, x_a, start = inputs
            if dtype == torch.float32:
                y, _, final = _sequence(x_r, x_w, x_k, x_v, x_kappa, x_a, keep, start)
            else:
                y, final = wkv7_chunked(x_r, x_w, x_k, x_v, x_kappa, x_a, start, keep)
            grads = torch.autograd.grad(y.square().sum() + final.square().sum(), inputs)
            outcomes.append([x.detach().double() for x in (y, final, *grads)])
    errors = [float((fast - exact).abs().max() / exact.abs().max()) for fast, exact in zip(*outcomes, strict=True)]
    return max(error if error == error else float("inf") for error in errors)


@torch.library.custom_op("antiphon::wkv7_gpu", mutates_args=())
def _sequence(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, a: Tensor, keep: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    y, kept, final = _kernels().forward(r, log_w, k, v, kappa, a, keep, state)
    return y, kept, final


@_sequence.register_fake
def _sequence_shapes(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, a: Tensor, keep: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, heads, n = r.shape
    return torch.empty_like(v), state.new_empty(batch, heads, keep.shape[1], n, n), torch.empty_like(state)


@torch.library.custom_op("antiphon::wkv7_gpu_backward", mutates_args=())
def _sequence_backward(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    keep: Tensor,
    kept: Tensor,
    dy: Tensor,
    dfinal: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dr, dlog_w, dk, dv, dkappa, da, dstate = _kernels().backward(r, log_w, k, v, kappa, a, keep, kept, dy, dfinal)
    return dr, dlog_w, dk, dv, dkappa, da, dstate


@_sequence_backward.register_fake
def _sequence_backward_shapes(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    keep: Tensor,
    kept: Tensor,
    dy: Tensor,
    dfinal: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dr, dlog_w, dk, dv, dkappa, da = (torch.empty_like(x) for x in (r, log_w, k, v, kappa, a))
    return dr, dlog_w, dk, dv, dkappa, da, torch.empty_like(dfinal)


def _keep_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    *arrays, keep, _ = inputs
    ctx.save_for_backward(*arrays, keep, output[1])


def _backward(ctx: Any, dy: Tensor, _dkept: Tensor | None, dfinal: Tensor) -> tuple[Tensor | None, ...]:
    grads = _sequence_backward(*ctx.saved_tensors, dy.contiguous(), dfinal.contiguous())
    return *grads[:6], None, grads[6]


_sequence.register_autograd(_backward, setup_context=_keep_for_backward)
