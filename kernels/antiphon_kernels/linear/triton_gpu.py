"""Linear layers on a GPU: the product of `on_device.multiply` in one launch, for one row or many.

A program takes 16 or 32 rows of activations and a few outputs, and walks over all inputs in order, on the matrix units:
what a row sums to depends on nothing but the matrix, neither on the other rows nor on how the outputs are divided. (16
and 32 rows are the same instructions; 64 would be others.) Of two planes each sum takes the first, then the second.
Weights of 8 bits and less become bfloat16 without loss; float16 becomes two bfloat16 numbers, also without loss.

Where weights lie input by input, a row that is alone does not read those of inputs that are zero: they are taken to be
zero themselves, which changes no sum. (Of ffn.value's inputs nine in ten are zero in a trained model.)
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from antiphon_kernels.linear import format as forms
from antiphon_kernels.linear.on_device import AS_IS, BY_PART, OUTPUTS_PAD, SQUARED_RELU, Matrix
from antiphon_kernels.triton_jit import dot, kernel, launch, piece, put_planes

_INT8_ROWS = tl.constexpr(forms.INT8_ROWS)
_INT8_GROUPS = tl.constexpr(forms.INT8_GROUPS)
_INT4_GROUPS = tl.constexpr(forms.INT4_GROUPS)
_FLOAT16 = tl.constexpr(forms.FLOAT16)
_SQUARED_RELU = tl.constexpr(SQUARED_RELU)
_BY_PART = tl.constexpr(BY_PART)
_OUTPUTS_PAD = tl.constexpr(OUTPUTS_PAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one launch is divided; none of it changes a sum.

    outputs: of a program. inputs: taken at a time. warps, stages: of a program, and of loading ahead.
    """

    outputs: int
    inputs: int
    warps: int
    stages: int


@piece
def _times(
    acc: tl.tensor, x: tl.tensor, w: tl.tensor, r: tl.tensor, k: tl.tensor, rows: tl.tensor, plane: tl.tensor,
    INPUTS: tl.constexpr, PADDED: tl.constexpr, STRIDE: tl.constexpr, PLANES: tl.constexpr, INTERPRETED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """acc [rows, outputs] + x[:, k] w, one plane after the other."""
    mask = (r < rows)[:, None]
    if INPUTS != PADDED:
        mask = mask & (k < INPUTS)[None, :]
    for p in tl.static_range(PLANES):
        taken = tl.load(x + p * plane + r[:, None] * STRIDE + k[None, :], mask=mask, other=0.0)
        acc = dot(taken, w, acc, INTERPRETED)
    return acc


@piece
def _awake(
    x: tl.tensor, k: tl.tensor, plane: tl.tensor, INPUTS: tl.constexpr, PADDED: tl.constexpr, PLANES: tl.constexpr
) -> tl.tensor:
    """Which of inputs k of a lone row are not zero; those behind the last one are."""
    mask = k < PADDED if INPUTS == PADDED else k < INPUTS
    awake = tl.load(x + k, mask=mask, other=0.0).to(tl.float32) != 0.0
    if PLANES == 2:
        awake = awake | (tl.load(x + plane + k, mask=mask, other=0.0).to(tl.float32) != 0.0)
    return awake


@piece
def product(
    x: tl.tensor, values: tl.tensor, scales: tl.tensor, r: tl.tensor, o: tl.tensor, rows: tl.tensor, plane: tl.tensor,
    INPUTS: tl.constexpr, PADDED: tl.constexpr, STRIDE: tl.constexpr, HEIGHT: tl.constexpr, FORM: tl.constexpr,
    GROUP: tl.constexpr, BY_INPUT: tl.constexpr, LONE: tl.constexpr, PLANES: tl.constexpr, HIGH: tl.constexpr,
    WIDE: tl.constexpr, K: tl.constexpr, INTERPRETED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Rows r of x, which lie STRIDE apart, times outputs o of a matrix: [HIGH, WIDE] in float32."""
    acc = tl.zeros((HIGH, WIDE), tl.float32)
    far = o.to(tl.int64)[None, :]
    for start in range(0, PADDED, K):
        if FORM == _INT4_GROUPS:
            for step in tl.static_range(K // 64):
                k = start + step * 64 + tl.arange(0, 32)
                packed = tl.load(values + far * (PADDED // 2) + start // 2 + step * 32 + tl.arange(0, 32)[:, None])
                for half in tl.static_range(2):
                    w = (((packed >> (4 * half)) & 15).to(tl.float32) - 8.0).to(tl.bfloat16)
                    summed = _times(
                        tl.zeros((HIGH, WIDE), tl.float32), x, w, r, k + 32 * half, rows, plane,
                        INPUTS, PADDED, STRIDE, PLANES, INTERPRETED,
                    )  # fmt: skip
                    scale = tl.load(scales + (start + step * 64 + 32 * half) // GROUP * HEIGHT + o)
                    acc += summed * scale.to(tl.float32)[None, :]
        else:
            k = start + tl.arange(0, K)
            if BY_INPUT:
                place = values + k.to(tl.int64)[:, None] * HEIGHT + o[None, :]
                if LONE:
                    w = tl.load(place, mask=_awake(x, k, plane, INPUTS, PADDED, PLANES)[:, None], other=0)
                else:
                    w = tl.load(place)
            else:
                w = tl.load(values + far * PADDED + k[:, None])
            if FORM == _INT8_GROUPS:
                summed = _times(
                    tl.zeros((HIGH, WIDE), tl.float32), x, w.to(tl.float32).to(tl.bfloat16), r, k, rows, plane,
                    INPUTS, PADDED, STRIDE, PLANES, INTERPRETED,
                )  # fmt: skip
                acc += summed * tl.load(scales + start // GROUP * HEIGHT + o).to(tl.float32)[None, :]
            elif FORM == _INT8_ROWS:
                w = w.to(tl.float32).to(tl.bfloat16)
                acc = _times(acc, x, w, r, k, rows, plane, INPUTS, PADDED, STRIDE, PLANES, INTERPRETED)
            elif FORM == _FLOAT16:
                high = w.to(tl.float32).to(tl.bfloat16)
                low = (w.to(tl.float32) - high.to(tl.float32)).to(tl.bfloat16)
                acc = _times(acc, x, high, r, k, rows, plane, INPUTS, PADDED, STRIDE, PLANES, INTERPRETED)
                acc = _times(acc, x, low, r, k, rows, plane, INPUTS, PADDED, STRIDE, PLANES, INTERPRETED)
            else:
                acc = _times(acc, x, w, r, k, rows, plane, INPUTS, PADDED, STRIDE, PLANES, INTERPRETED)
    if FORM == _INT8_ROWS:
        acc *= tl.load(scales + o)[None, :]
    return acc


@kernel
def _multiply(
    x: tl.tensor, values: tl.tensor, scales: tl.tensor, parts: tl.tensor, out: tl.tensor, residual: tl.tensor,
    places: tl.tensor, rows: tl.tensor, source: tl.tensor, plane: tl.tensor, out_plane: tl.tensor,
    INPUTS: tl.constexpr, PADDED: tl.constexpr, HEIGHT: tl.constexpr, OUTPUTS: tl.constexpr, FORM: tl.constexpr,
    GROUP: tl.constexpr, BY_INPUT: tl.constexpr, LONE: tl.constexpr, ACT: tl.constexpr, RESIDUAL: tl.constexpr,
    PLACES: tl.constexpr, PLANES: tl.constexpr, OUT_PLANES: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
    K: tl.constexpr, INTERPRETED: tl.constexpr,
) -> None:  # fmt: skip
    """HIGH rows of activations times WIDE outputs, and what becomes of them."""
    r = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    block = tl.program_id(1)
    o = block * WIDE + tl.arange(0, WIDE)
    run = block * (WIDE // _OUTPUTS_PAD)
    begin = tl.load(parts + run) * source
    if INPUTS % 8 == 0:
        begin = tl.multiple_of(begin, 8)  # or activations would be loaded one by one
    acc = product(
        x + begin, values, scales, r, o, rows, plane,
        INPUTS, PADDED, INPUTS, HEIGHT, FORM, GROUP, BY_INPUT, LONE, PLANES, HIGH, WIDE, K, INTERPRETED,
    )  # fmt: skip
    if ACT == _SQUARED_RELU:
        acc = tl.maximum(acc, 0.0, propagate_nan=tl.PropagateNan.ALL)
        acc = acc * acc
    if ACT == _BY_PART:
        kind = tl.load(parts + HEIGHT // _OUTPUTS_PAD + run)
        if kind == 1:
            acc = 2.0 * tl.sigmoid(2.0 * acc) - 1.0
        elif kind == 2:
            acc = tl.sigmoid(acc)
    mask = (r < rows)[:, None] & (o < OUTPUTS)[None, :]
    row = r.to(tl.int64)
    if PLACES:
        row = tl.load(places + r, mask=r < rows, other=0).to(tl.int64)
    at = row[:, None] * OUTPUTS + o[None, :]
    if RESIDUAL:
        acc += tl.load(residual + at, mask=mask, other=0.0)
    if OUT_PLANES == 0:
        tl.store(out + at, acc, mask=mask)
    else:
        put_planes(out, acc, at, mask, out_plane, OUT_PLANES)


def multiply(
    matrix: Matrix,
    x: Tensor,
    out: Tensor,
    *,
    residual: Tensor | None = None,
    act: int = AS_IS,
    places: Tensor | None = None,
    divided: Launch | None = None,
) -> None:
    """As `on_device.multiply`, for contiguous tensors; `divided` None takes what `tune` found, or a guess."""
    rows = x.shape[2]
    height = 16 if rows <= 16 else 32
    how = divided or launch_of(matrix, planes=x.shape[1], many=rows > 16)
    launch(
        _multiply, (-(-rows // height), matrix.height // how.outputs), x,
        x, matrix.values, matrix.values if matrix.scales is None else matrix.scales, matrix.parts, out,
        out if residual is None else residual, matrix.parts if places is None else places,
        rows, x.stride(0), x.stride(1), out.stride(0) if out.ndim == 3 else 0,
        INPUTS=matrix.inputs, PADDED=matrix.padded, HEIGHT=matrix.height, OUTPUTS=matrix.outputs, FORM=matrix.form,
        GROUP=max(1, matrix.group), BY_INPUT=matrix.by_input, LONE=rows == 1, ACT=act,
        RESIDUAL=residual is not None, PLACES=places is not None, PLANES=x.shape[1],
        OUT_PLANES=out.shape[0] if out.ndim == 3 else 0,
        HIGH=height, WIDE=how.outputs, K=how.inputs, INTERPRETED=not x.is_cuda,
        num_warps=how.warps, num_stages=how.stages,
    )  # fmt: skip


_tuned: dict[tuple[object, ...], Launch] = {}


def launch_of(matrix: Matrix, *, planes: int, many: bool) -> Launch:
    """How a product with this matrix is divided: as `tune` found it on this device, else a guess."""
    return _tuned.get(_key(matrix, planes, many)) or _guess(
        matrix.form, matrix.height, matrix.padded, matrix.group, matrix.aligned, many
    )


def tune(matrices: Sequence[Matrix], *, planes: int, many: bool) -> list[Launch]:
    """Time ways to divide the product with matrices of one shape on their GPU, and keep the fastest for that shape.

    Only a way that gives the guess's results to the bit is kept; those that do not are returned. The matrices are read
    in turn, so that several are not simply found in the cache. The current stream must not be the default one.
    """
    first = matrices[0]
    key = _key(first, planes, many)
    if key in _tuned or not first.values.is_cuda:
        return []
    device = first.values.device
    generator = torch.Generator(device).manual_seed(0)
    kind = torch.float32 if first.form == forms.FLOAT32 else torch.bfloat16
    sources, rows = int(first.parts[0].max()) + 1, 32 if many else 1
    x = torch.randn(sources, planes, rows, first.inputs, generator=generator, device=device).to(kind)
    out, expected = (torch.empty(rows, first.outputs, device=device) for _ in range(2))
    guess = launch_of(first, planes=planes, many=many)
    multiply(first, x, expected, divided=guess)
    best, fastest = guess, float("inf")
    refused: list[Launch] = []
    for how in _ways(first, many, guess):
        out.fill_(torch.nan)
        try:
            multiply(first, x, out, divided=how)
        except triton.runtime.errors.OutOfResources:
            continue
        if not torch.equal(out, expected):
            refused.append(how)
            continue
        elapsed = _elapsed(matrices, x, out, how)
        if elapsed < fastest:
            best, fastest = how, elapsed
    _tuned[key] = best
    return refused


def _elapsed(matrices: Sequence[Matrix], x: Tensor, out: Tensor, how: Launch) -> float:
    """Milliseconds of one product with each; from a graph, whose launches do not wait for Python."""
    stream = torch.cuda.current_stream(x.device)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        for matrix in matrices:
            multiply(matrix, x, out, divided=how)
    finally:
        graph.capture_end()
    graph.replay()
    times: list[float] = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        graph.replay()
        end.record(stream)
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def _ways(matrix: Matrix, many: bool, guess: Launch) -> list[Launch]:
    outputs = [size for size in ((64, 128) if many else (16, 32)) if size <= matrix.aligned]
    inputs = [guess.inputs]
    if not many and matrix.form != forms.INT8_GROUPS and matrix.padded % (2 * guess.inputs) == 0:
        inputs.append(2 * guess.inputs)
    ways = [
        Launch(outputs=size, inputs=taken, warps=warps, stages=stages)
        for size, taken in itertools.product(outputs or [guess.outputs], inputs)
        for warps, stages in ((4, 3), (4, 5), (2, 5), (8, 4))
    ]
    return [guess, *(way for way in ways if way != guess)]


def _key(matrix: Matrix, planes: int, many: bool) -> tuple[object, ...]:
    shape = (matrix.form, matrix.height, matrix.padded, matrix.group, matrix.aligned, matrix.by_input)
    return (str(matrix.values.device), *shape, planes, many)


@functools.cache
def _guess(form: int, height: int, padded: int, group: int, aligned: int, many: bool) -> Launch:
    outputs = min(64, aligned) if many else 32 if height >= 8192 and aligned >= 32 else 16
    if form == forms.INT8_GROUPS:
        inputs = group
    elif form == forms.INT4_GROUPS:
        inputs = 128 if padded % 128 == 0 and not many else 64
    else:
        inputs = 128 if padded % 128 == 0 and form != forms.FLOAT32 else 64
    return Launch(outputs=outputs, inputs=inputs, warps=4, stages=4)
