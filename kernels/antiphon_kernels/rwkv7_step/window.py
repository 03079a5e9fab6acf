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
        part = context.make_array(signature.return_type)(context, builder)
        item = context.get_constant(types.intp, context.get_abi_sizeof(whole.data.type.pointee))
        context.populate_array(
            part,
            data=builder.gep(whole.data, [args[1]]),
            shape=cgutils.pack_array(builder, [args[2]]),
            strides=cgutils.pack_array(builder, [item]),
            itemsize=item,
            meminfo=ir.Constant(ir.IntType(8).as_pointer(), None),
        )
        return part._getvalue()

    return array(array, types.int64, types.int64), generate
