"""Linear layers on a device: how their weights lie there, and the plain PyTorch product that the fast one must equal.

Weights lie row by row, a row one output, with rows and inputs padded by zeros; or input by input, so that inputs which
are zero need not be read. In int4, 64 inputs are 32 bytes: the low half of byte j is input j, the high half input
j + 32, each plus 8. Scales of groups lie group by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from antiphon_kernels.linear.format import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INPUTS_PAD,
    INT4_GROUPS,
    INT8_GROUPS,
    INT8_ROWS,
    up,
)
from antiphon_kernels.planes import joined, put

OUTPUTS_PAD = 16
"""Rows are padded to a multiple of it: the least that a matrix product of a GPU takes."""

FLOATS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}

AS_IS, SQUARED_RELU, BY_PART = range(3)
"""What becomes of a product: nothing; max(0, y) squared; what each part of the matrix says (`IDENTITY`, …)."""

IDENTITY, TANH, SIGMOID = range(3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matrix:
    """One linear layer, or several stacked, each a part with an input of its own.

    values: [height, padded] float32, bfloat16, float16 or int8, or uint8 [height, padded / 2] in int4.
    scales: None, float32 [height] (int8 per row) or float32 or float16 [groups, height].
    parts: int32 [2, height / 16]: for each 16 rows which input they multiply, and what becomes of the product.
    starts: where each part's rows begin; `outputs` of a single part are its true rows, of several all.
    by_input: whether `values` lies the other way round, [padded, height].
    """

    form: int
    values: Tensor
    scales: Tensor | None
    parts: Tensor
    starts: tuple[int, ...]
    inputs: int
    padded: int
    outputs: int
    group: int
    by_input: bool = False

    @property
    def height(self) -> int:
        """Rows, padding included."""
        return OUTPUTS_PAD * self.parts.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and their scales."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    @property
    def aligned(self) -> int:
        """Rows, a power of two from 16 to 128, of which each run belongs to one part."""
        size = 128
        while any(start % size for start in (*self.starts, self.height)):
            size //= 2
        return size


def lay_out(
    values: Tensor, scales: Tensor | None, *, device: torch.device | str, group: int = 0, by_input: bool = False
) -> Matrix:
    """A matrix [out, in] on `device`.

    values: float32, bfloat16 or float16 without scales; int8 with float32 `scales` [out]; int8 with [out, groups] of
    `group` inputs each; or uint8 [out, in / 2] (low half first, plus 8: the form of our files) with [out, groups].
    `group` is a multiple of 32. by_input: to lie input by input, which int4 never does. ValueError for anything else.
    """
    outputs, inputs = values.shape[0], values.shape[1] * (2 if values.dtype == torch.uint8 else 1)
    padded = up(inputs, INPUTS_PAD)
    height = up(outputs, 64 if outputs >= 512 else OUTPUTS_PAD)
    form = _form(values, scales)
    if form in (INT8_GROUPS, INT4_GROUPS):
        if group < 32 or group % 32 or scales is None or scales.shape[1] != -(-inputs // group):
            raise ValueError(f"groups hold a multiple of 32 inputs and have a scale each, not {group} of {inputs}")
        padded = up(inputs, max(group, INPUTS_PAD))
    moved = values.to(device)
    if form == INT4_GROUPS:
        moved = _halves(moved, inputs, padded)
    else:
        moved = torch.nn.functional.pad(moved, (0, padded - inputs))
    moved = torch.nn.functional.pad(moved, (0, 0, 0, height - outputs))
    by_input = by_input and form != INT4_GROUPS
    return Matrix(
        form=form,
        values=(moved.T if by_input else moved).contiguous(),
        scales=None if scales is None else _scales(scales.to(device), form, padded, group, height),
        parts=torch.zeros(2, height // OUTPUTS_PAD, dtype=torch.int32, device=device),
        starts=(0,),
        inputs=inputs,
        padded=padded,
        outputs=outputs,
        group=group,
        by_input=by_input,
    )


def pack_int4(values: Tensor) -> Tensor:
    """uint8 [out, in / 2], low half first, of whole numbers -8 .. 7 [out, in]; an odd input is joined by a zero."""
    shifted = torch.nn.functional.pad(values.to(torch.int16) + 8, (0, values.shape[1] % 2), value=8)
    return (shifted[:, ::2] | (shifted[:, 1::2] << 4)).to(torch.uint8)


def stack(matrices: Sequence[Matrix], *, sources: Sequence[int], acts: Sequence[int] | None = None) -> Matrix:
    """Matrices of one form and width as one: part i multiplies input `sources[i]`, and `acts[i]` becomes of it."""
    first = matrices[0]
    kind = (first.form, first.padded, first.group, False)
    if any((m.form, m.padded, m.group, m.by_input) != kind for m in matrices):
        raise ValueError("only matrices of one form, width and group that lie by outputs can be stacked")
    starts = [0]
    parts: list[Tensor] = []
    for matrix, source, act in zip(matrices, sources, acts or [IDENTITY] * len(sources), strict=True):
        starts.append(starts[-1] + matrix.height)
        part = torch.tensor([[source], [act]], dtype=torch.int32, device=matrix.values.device)
        parts.append(part.expand(2, matrix.height // OUTPUTS_PAD))
    scales = [matrix.scales for matrix in matrices if matrix.scales is not None]
    return Matrix(
        form=first.form,
        values=torch.cat([matrix.values for matrix in matrices]),
        scales=torch.cat(scales, dim=-1) if scales else None,
        parts=torch.cat(parts, dim=1).contiguous(),
        starts=tuple(starts[:-1]),
        inputs=first.inputs,
        padded=first.padded,
        outputs=starts[-1],
        group=first.group,
    )


def dequantized(matrix: Matrix, first: int = 0, last: int | None = None) -> Tensor:
    """Rows [first, last) as float32 [rows, inputs]."""
    values = matrix.values[:, first:last].T if matrix.by_input else matrix.values[first:last]
    if matrix.form == INT4_GROUPS:
        packed = values.unflatten(1, (-1, 32)).to(torch.int16)
        values = torch.cat([packed & 15, packed >> 4], dim=2).flatten(1) - 8
    whole: Tensor = values.float()
    if matrix.scales is not None:
        scales = matrix.scales[..., first:last].float()
        if matrix.form == INT8_ROWS:
            whole = whole * scales[:, None]
        else:
            whole = (whole.unflatten(1, (-1, matrix.group)) * scales.T[:, :, None]).flatten(1)
    kept: Tensor = whole[:, : matrix.inputs]
    return kept


def multiply(
    matrix: Matrix,
    x: Tensor,
    out: Tensor,
    *,
    residual: Tensor | None = None,
    act: int = AS_IS,
    places: Tensor | None = None,
) -> None:
    """out = act(matrix x) + residual.

    x: planes [inputs of parts, P, rows, in]. out: float32 [rows, matrix.outputs], or planes [P, rows, matrix.outputs].
    residual: float32 like such an out, which it may be itself. places: int32 [rows] or None: the row of `out` that each
    row of x goes to (several may share one only if nobody reads it).
    """
    y = torch.empty(x.shape[2], matrix.height, dtype=torch.float32, device=x.device)
    whole = joined(x)
    for index, start in enumerate(matrix.starts):
        end = matrix.starts[index + 1] if index + 1 < len(matrix.starts) else matrix.height
        source, kind = (int(row[start // OUTPUTS_PAD]) for row in matrix.parts)
        part = whole[source] @ dequantized(matrix, start, end).T
        if act == BY_PART:
            part = torch.tanh(part) if kind == TANH else torch.sigmoid(part) if kind == SIGMOID else part
        y[:, start:end] = part
    y = y[:, : matrix.outputs]
    if act == SQUARED_RELU:
        y = torch.relu(y) ** 2
    if residual is not None:
        y = y + residual
    if out.ndim == 3:
        put(y, out)
    elif places is None:
        out.copy_(y)
    else:
        out[places.long()] = y


def _form(values: Tensor, scales: Tensor | None) -> int:
    if scales is None and values.dtype in FLOATS:
        return FLOATS[values.dtype]
    if scales is not None and values.dtype == torch.int8:
        return INT8_ROWS if scales.ndim == 1 else INT8_GROUPS
    if scales is not None and values.dtype == torch.uint8:
        return INT4_GROUPS
    raise ValueError(f"no format has values in {values.dtype} {'with' if scales is not None else 'without'} scales")


def _halves(packed: Tensor, inputs: int, padded: int) -> Tensor:
    """Bytes of inputs (2j, 2j + 1) as bytes of inputs (j, j + 32) of each 64; padding is zero, which is 8."""
    values = torch.stack([packed & 15, packed >> 4], dim=2).flatten(1)
    values = torch.nn.functional.pad(values, (0, padded - inputs), value=8).unflatten(1, (-1, 2, 32))
    halves: Tensor = values[:, :, 0] | (values[:, :, 1] << 4)
    return halves.flatten(1)


def _scales(scales: Tensor, form: int, padded: int, group: int, height: int) -> Tensor:
    if form == INT8_ROWS:
        return torch.nn.functional.pad(scales.float(), (0, height - scales.shape[0])).contiguous()
    # Half the bytes where nothing is lost by it.
    half = scales.half()
    kept = half if bool((half.float() == scales.float()).all()) else scales.float()
    groups = padded // group
    filled = torch.nn.functional.pad(kept, (0, groups - kept.shape[1], 0, height - kept.shape[0]))
    return filled.T.contiguous()
