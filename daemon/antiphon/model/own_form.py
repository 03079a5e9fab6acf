"""Our own form: official names and shapes in safetensors, matrices as they are, in another float type, or quantized.

A quantized matrix `NAME` [out, in] is int8 with scales `NAME.scale` [out] or [out, groups], or int4, two in a byte
[out, in / 2] (the lower half first, each 8 too large). Scales are float32 by row and bfloat16 by group. A matrix whose
inputs do not divide into groups is int8 by row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from antiphon.model.precision import GROUP, Precision, quantize
from antiphon.model.safetensors_writer import Entry, Promise
from antiphon.model.source import LN_X_EPS, Kind, Source
from antiphon.model.spec import ModelSpec

FLOATS = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_LINEAR = re.compile(r"(head|blocks\.\d+\.(att|ffn)\.(receptance|key|value|output|gate))\.weight")
_LOW_RANK = re.compile(r"blocks\.\d+\.att\.([wavg][12]|time_(maa|decay)_w[12])")


def is_linear(name: str) -> bool:
    """Whether the tensor is a big matrix that is multiplied: what every quantized precision makes smaller."""
    return _LINEAR.fullmatch(name) is not None


def is_low_rank(name: str) -> bool:
    """Whether the tensor is one of a pair of narrow matrices that are multiplied one after the other."""
    return _LOW_RANK.fullmatch(name) is not None


def is_matrix(name: str) -> bool:
    """Whether the tensor is a matrix, the embedding among them: vectors that are written by head are none."""
    return is_linear(name) or is_low_rank(name) or name == "emb.weight"


def precision_of(name: str, shape: tuple[int, ...], precision: Precision) -> Precision | None:
    """How the tensor is kept in a file of `precision`; None for as it is.

    Float types change every matrix and leave vectors alone. Whole numbers are for the big matrices, and by row for the
    embedding too.
    """
    if precision in FLOATS:
        return precision if is_matrix(name) else None
    if is_linear(name):
        by_row = precision is Precision.INT8 or shape[1] % GROUP != 0
        return Precision.INT8 if by_row else precision
    return Precision.INT8 if precision is Precision.INT8 and name == "emb.weight" else None


def own_promises(source: Source, precision: Precision | None) -> list[Promise]:
    """All tensors of `source`, matrices in `precision`, or as the file has them when that is None."""
    names = [*source.shapes, *source.start_state_names]
    return [_promise(source, name, precision) for name in names]


def own_metadata(source: Source, spec: ModelSpec, precision: Precision | None) -> Mapping[str, str]:
    """The source's metadata and what our own files say of themselves."""
    form = f"antiphon-rwkv{spec.version.partition('.')[0]}"
    if precision is not None and precision not in FLOATS:
        form += f"-{precision}"
    elif precision is None and source.kind is Kind.ANTIPHON:
        form = source.metadata.get("format", form)
    told = {**source.metadata, "format": form, "spec": spec.to_json()}
    if source.ln_x_eps != LN_X_EPS:
        told["ln_x_eps"] = repr(source.ln_x_eps)
    return told


def _promise(source: Source, name: str, precision: Precision | None) -> Promise:
    if name in source.start_state_names:
        size = source.spec.head_size
        entry = Entry(name=name, shape=(source.spec.n_head, size, size), dtype=torch.float32)
        return Promise(entries=(entry,), read=lambda: (source.read(name).float(),))
    shape = tuple(source.shapes[name])
    wanted = precision_of(name, shape, precision) if precision is not None else None
    if wanted is None and (precision is None or is_linear(name) or name == "emb.weight"):
        kept = source.read_quantized(name)
        if kept is not None:
            return _kept(source, name, shape, kept)
    if wanted is None or wanted in FLOATS:
        dtype = source.dtypes[name] if wanted is None else FLOATS[wanted]
        return Promise(
            entries=(Entry(name=name, shape=shape, dtype=dtype),), read=lambda: (source.read(name).to(dtype),)
        )
    return _quantized(source, name, shape, wanted)


def _kept(source: Source, name: str, shape: tuple[int, ...], kept: tuple[Tensor, Tensor]) -> Promise:
    """A matrix that the source has quantized already, in the same numbers."""
    int4 = source.stored[name] == "INT4"

    def read() -> tuple[Tensor, Tensor]:
        found = source.read_quantized(name)
        assert found is not None
        values, scale = found
        return (_two_in_a_byte(values) if int4 else values), scale.to(dtype)

    scales = kept[1]
    narrow = scales.dim() == 2 and torch.equal(scales.bfloat16().float(), scales)
    dtype = torch.bfloat16 if narrow else torch.float32
    return Promise(entries=_entries(name, shape, tuple(scales.shape), dtype, int4=int4), read=read)


def _quantized(source: Source, name: str, shape: tuple[int, ...], precision: Precision) -> Promise:
    scale_shape = shape[:1] if precision is Precision.INT8 else (shape[0], shape[1] // GROUP)
    int4 = precision is Precision.INT4
    dtype = torch.float32 if precision is Precision.INT8 else torch.bfloat16

    def read() -> tuple[Tensor, Tensor]:
        kept = source.read_quantized(name)
        same = kept is not None and tuple(kept[1].shape) == scale_shape and (source.stored[name] == "INT4") == int4
        if kept is not None and same and torch.equal(kept[1].to(dtype).float(), kept[1]):
            values, scale = kept
        else:
            made = quantize(source.read(name).float(), precision)
            values, scale = made.values, made.scale
        return (_two_in_a_byte(values) if int4 else values), scale.to(dtype)

    return Promise(entries=_entries(name, shape, scale_shape, dtype, int4=int4), read=read)


def _entries(
    name: str, shape: tuple[int, ...], scale_shape: tuple[int, ...], scale_dtype: torch.dtype, *, int4: bool
) -> tuple[Entry, Entry]:
    values = Entry(
        name=name,
        shape=(shape[0], shape[1] // 2) if int4 else shape,
        dtype=torch.uint8 if int4 else torch.int8,
    )
    return values, Entry(name=f"{name}.scale", shape=scale_shape, dtype=scale_dtype)


def _two_in_a_byte(values: Tensor) -> Tensor:
    """Int8 [out, in] of -8 … 7 as uint8 [out, in / 2], the even input in the lower half."""
    raised = (values + 8).to(torch.uint8)
    return raised[:, 0::2] | (raised[:, 1::2] << 4)
