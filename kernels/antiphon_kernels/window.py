"""A part of a flat array, borrowed: no bounds to normalise, no reference to count, and an index that starts at zero.

Indexing a whole array at `start + i` costs a kernel its vector code, because a sum of signed numbers might be negative
and Python would then count from the end.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from antiphon_kernels.jit import intrinsic


@intrinsic
def window(_typing: Any, array: Any, start: Any, size: Any) -> Any:
    """array[start : start + size] of a 1-D C-contiguous array, unchecked; the caller keeps `array` alive."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, args[0])
        return _borrowed(context, builder, signature.return_type, builder.gep(whole.data, [args[1]]), args[2])

    return array(array, types.int64, types.int64), generate


@intrinsic
def int8_window(_typing: Any, array: Any, start: Any, size: Any) -> Any:
    """`size` int8 that begin at byte `start` of a 1-D C-contiguous array, unchecked."""
    return _viewed(array, types.int8)


@intrinsic
def int16_window(_typing: Any, array: Any, start: Any, size: Any) -> Any:
    """`size` int16 that begin at byte `start` of a 1-D C-contiguous array, unchecked."""
    return _viewed(array, types.int16)


@intrinsic
def int32_window(_typing: Any, array: Any, start: Any, size: Any) -> Any:
    """`size` int32 that begin at byte `start` of a 1-D C-contiguous array, unchecked."""
    return _viewed(array, types.int32)


@intrinsic
def float32_window(_typing: Any, array: Any, start: Any, size: Any) -> Any:
    """`size` float32 that begin at byte `start` of a 1-D C-contiguous array, unchecked."""
    return _viewed(array, types.float32)


@intrinsic
def float64_window(_typing: Any, array: Any, start: Any, size: Any) -> Any:
    """`size` float64 that begin at byte `start` of a 1-D C-contiguous array, unchecked."""
    return _viewed(array, types.float64)


@intrinsic
def address(_typing: Any, array: Any, start: Any) -> Any:
    """The address of byte `start` of a 1-D C-contiguous array, for code that reads and writes whole vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.add(builder.ptrtoint(whole.data, ir.IntType(64)), args[1])

    return types.int64(array, types.int64), generate


def _viewed(array: Any, kind: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, args[0])
        first = builder.gep(builder.bitcast(whole.data, ir.IntType(8).as_pointer()), [args[1]])
        data = builder.bitcast(first, context.get_data_type(kind).as_pointer())
        return _borrowed(context, builder, signature.return_type, data, args[2])

    return types.Array(kind, 1, "C")(array, types.int64, types.int64), generate


def _borrowed(context: Any, builder: Any, kind: Any, data: Any, size: Any) -> Any:
    part = context.make_array(kind)(context, builder)
    item = context.get_constant(types.intp, context.get_abi_sizeof(data.type.pointee))
    context.populate_array(
        part,
        data=data,
        shape=cgutils.pack_array(builder, [size]),
        strides=cgutils.pack_array(builder, [item]),
        itemsize=item,
        meminfo=ir.Constant(ir.IntType(8).as_pointer(), None),
    )
    return part._getvalue()
