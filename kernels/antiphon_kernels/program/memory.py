"""Memory by its address, and numbers that several threads change: what compiled code needs and Numba does not have."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from antiphon_kernels.jit import intrinsic

_I64, _F32 = ir.IntType(64), ir.FloatType()


@intrinsic
def borrowed(_typing: Any, address: Any, size: Any) -> Any:
    """`size` float32 numbers at `address` as a 1-D array; the caller keeps the memory alive."""
    array = types.Array(types.float32, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part = context.make_array(signature.return_type)(context, builder)
        context.populate_array(
            part,
            data=builder.inttoptr(args[0], _F32.as_pointer()),
            shape=cgutils.pack_array(builder, [args[1]]),
            strides=cgutils.pack_array(builder, [ir.Constant(_I64, 4)]),
            itemsize=ir.Constant(_I64, 4),
            meminfo=ir.Constant(ir.IntType(8).as_pointer(), None),
        )
        return part._getvalue()

    return array(types.int64, types.int64), generate


@intrinsic
def add_to(_typing: Any, array: Any, at: Any, number: Any) -> Any:
    """array[at] += number for all threads to see; gives what it is then. `array` int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        before = builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")
        return builder.add(before, args[2])

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def seen(_typing: Any, array: Any, at: Any) -> Any:
    """array[at] as other threads have made it, together with all that they wrote before. `array` int64.

    All threads agree on the order of it and of `add_to`: who says that it leaves and then looks once more is either
    seen to leave, or sees what it is looking for.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.int64), generate


@intrinsic
def pause(_typing: Any) -> Any:
    """Tell the processor that this thread only waits; nothing where there is no such instruction."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if builder.module.triple.startswith(("x86_64", "i686")):
            name = "llvm.x86.sse2.pause"
            module = builder.module
            wait = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), []), name)
            builder.call(wait, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(_typing: Any) -> Any:
    """Let whoever else wants this core have it for a while (`sched_yield`)."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        module, name = builder.module, "sched_yield"
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.IntType(32), []), name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate
