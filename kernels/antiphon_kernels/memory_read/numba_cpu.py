"""Reads memory as fast as one thread can: whole cache lines, fetched ahead, every byte added into a sum.

The sum is what keeps a compiler from leaving out a read, and what tests that all was read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic, kernel

LINE = 8  # int64 numbers in a cache line
STEP = 4 * LINE  # numbers read by one turn of the loop: four lines, each into a sum of its own
AHEAD = 4096  # bytes between what is read and what is fetched

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LINE = ir.VectorType(_I64, LINE)


def read(memory: npt.NDArray[np.int64], *, passes: int) -> int:
    """As `reference.read`; `memory` is contiguous and its size a multiple of `STEP`. Releases the interpreter lock."""
    if memory.ndim != 1 or memory.size % STEP or not memory.flags.c_contiguous:
        raise ValueError(f"memory must be one row of a multiple of {STEP} numbers, not {list(memory.shape)}")
    return int(_read(memory, passes))


@kernel
def _read(memory: Any, passes: int) -> Any:
    sum_ = np.int64(0)
    for _ in range(passes):
        sum_ = _add_lines(memory, memory.size // STEP, sum_)
    return sum_


@intrinsic
def _add_lines(_typing: Any, memory: Any, turns: Any, start: Any) -> Any:
    """`start` plus the sum of the first turns * STEP numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        turns, start = args[1], args[2]
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("turn", "read", "all"))
        builder.branch(head)
        builder.position_at_end(head)
        turn = builder.phi(_I64)
        turn.add_incoming(ir.Constant(_I64, 0), before)
        sums = [builder.phi(_LINE) for _ in range(STEP // LINE)]
        builder.cbranch(builder.icmp_signed("<", turn, turns), body, done)
        builder.position_at_end(body)
        here = builder.gep(data, [builder.mul(turn, ir.Constant(_I64, STEP))])
        for number, sum_ in enumerate(sums):
            line = builder.gep(here, [ir.Constant(_I64, number * LINE)])
            _fetch(builder, line)
            loaded = builder.load(builder.bitcast(line, _LINE.as_pointer()))
            loaded.align = 8
            sum_.add_incoming(ir.Constant(_LINE, [0] * LINE), before)
            sum_.add_incoming(builder.add(sum_, loaded), body)
        turn.add_incoming(builder.add(turn, ir.Constant(_I64, 1)), body)
        builder.branch(head)
        builder.position_at_end(done)
        both = builder.add(builder.add(sums[0], sums[1]), builder.add(sums[2], sums[3]))
        for lane in range(LINE):
            start = builder.add(start, builder.extract_element(both, ir.Constant(_I32, lane)))
        return start

    return types.int64(memory, types.int64, types.int64), generate


def _fetch(builder: Any, line: Any) -> None:
    """Ask for what will be read soon; a hint, safe past the end."""
    place = builder.gep(builder.bitcast(line, _I8.as_pointer()), [ir.Constant(_I64, AHEAD)])
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    module, name = builder.module, "llvm.prefetch.p0"
    fetch = module.globals[name] if name in module.globals else ir.Function(module, kind, name)
    builder.call(fetch, [place, *(ir.Constant(_I32, n) for n in (0, 3, 1))])
