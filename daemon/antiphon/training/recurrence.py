"""The WKV-7 recurrence that training runs on: a compiled kernel on CPU and GPU, the chunked form elsewhere.

Both equal `antiphon.model.rwkv7.wkv7`; which one runs depends only on device and dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.model.wkv7_chunked import CHUNK, wkv7_chunked
from antiphon.training.gpu_recurrence import wkv7_gpu
from antiphon_kernels.wkv7_sequence import numba_cpu, reference
from antiphon_kernels.wkv7_sequence.heads64 import N as HEAD_SIZE

if reference.CHUNK != CHUNK:
    raise AssertionError("both forms of the recurrence let sequences begin at the same places")


def wkv7_training(
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
    if r.device.type == "cuda":
        return wkv7_gpu(r, log_w, k, v, kappa, a, state, keep)
    if r.device.type != "cpu" or r.dtype != torch.float32 or r.shape[-1] != HEAD_SIZE:
        return wkv7_chunked(r, log_w, k, v, kappa, a, state, keep)
    batch, length = r.shape[:2]
    padding = -length % CHUNK
    inputs = (r, torch.exp(log_w), k, v, kappa, kappa * a)
    if padding:
        r, w, k, v, kappa, b = (functional.pad(x, (0, 0, 0, 0, 0, padding)) for x in inputs)
        # Padding must leave the state alone: nothing decays, nothing is added.
        w = w + functional.pad(w.new_zeros(batch, length, 1, 1), (0, 0, 0, 0, 0, padding), value=1.0)
        inputs = (r, w, k, v, kappa, b)
    if keep is None:
        keep = torch.ones(batch, (length + padding) // CHUNK)
    y, _, _, final = _sequence(*(x.contiguous() for x in inputs), keep.bool().contiguous(), state.contiguous())
    return y[:, :length], final


@torch.library.custom_op("antiphon::wkv7_sequence", mutates_args=())
def _sequence(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, b: Tensor, keep: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = _arrays(r, w, k, v, kappa, b, keep, state)
    y, held, kept, final = (torch.from_numpy(x) for x in numba_cpu.forward(*arrays, threads=torch.get_num_threads()))
    return y, held, kept, final


@_sequence.register_fake
def _sequence_shapes(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, b: Tensor, keep: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, length, heads, n = r.shape
    kept = r.new_empty(batch, length // CHUNK, heads, n, n)
    return torch.empty_like(r), torch.empty_like(r), kept, torch.empty_like(state)


@torch.library.custom_op("antiphon::wkv7_sequence_backward", mutates_args=())
def _sequence_backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    b: Tensor,
    keep: Tensor,
    held: Tensor,
    kept: Tensor,
    dy: Tensor,
    dfinal: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    arrays = _arrays(r, w, k, v, kappa, b, keep, held, kept, dy, dfinal)
    grads = numba_cpu.backward(*arrays, threads=torch.get_num_threads())
    dr, dw, dk, dv, dkappa, db, dstate = (torch.from_numpy(grad) for grad in grads)
    return dr, dw, dk, dv, dkappa, db, dstate


@_sequence_backward.register_fake
def _sequence_backward_shapes(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    b: Tensor,
    keep: Tensor,
    held: Tensor,
    kept: Tensor,
    dy: Tensor,
    dfinal: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dr, dw, dk, dv, dkappa, db = (torch.empty_like(r) for _ in range(6))
    return dr, dw, dk, dv, dkappa, db, torch.empty_like(dfinal)


def _keep_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    *arrays, keep, _ = inputs
    ctx.save_for_backward(*arrays, keep, *output[1:3])


def _backward(
    ctx: Any, dy: Tensor, _dheld: Tensor | None, _dkept: Tensor | None, dfinal: Tensor
) -> tuple[Tensor | None, ...]:
    grads = _sequence_backward(*ctx.saved_tensors, dy.contiguous(), dfinal.contiguous())
    return *grads[:6], None, grads[6]


_sequence.register_autograd(_backward, setup_context=_keep_for_backward)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray[Any, Any], ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
