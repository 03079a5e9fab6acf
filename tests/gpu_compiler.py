"""What every kernel launched on CPU tensors would be on a GPU that is not here: compiled, not run.

To be run in a process of its own, before anything imports the kernels: it takes the place of their launches.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from antiphon_kernels import triton_jit

KINDS = {
    "torch.float32": "*fp32", "torch.float16": "*fp16", "torch.bfloat16": "*bf16", "torch.float64": "*fp64",
    "torch.int8": "*i8", "torch.uint8": "*u8", "torch.int32": "*i32", "torch.int64": "*i64", "torch.bool": "*u1",
}  # fmt: skip
OPTIONS = {"num_warps", "num_stages"}

compiled: set[str] = set()
"""Each launch that was compiled: the kernel's name, its kinds of arguments and its constants."""


def compile_only(function: Any, grid: tuple[int, ...], near: Tensor, *arguments: Any, **constants: Any) -> None:
    """In place of `triton_jit.launch`: compile for an H100 or H200, once for each kind of launch."""
    assert all(1 <= size < 65536 or axis == 0 for axis, size in enumerate(grid))
    options = {name: value for name, value in constants.items() if name in OPTIONS}
    known = {name: value for name, value in constants.items() if name not in OPTIONS}
    if "INTERPRETED" in known:
        known["INTERPRETED"] = False
    plain = [name for name in function.arg_names if name not in known]
    signature: dict[str, str] = dict.fromkeys(known, "constexpr")
    attributes = {}
    for name, argument in zip(plain, arguments, strict=True):
        if isinstance(argument, Tensor):
            signature[name] = KINDS[str(argument.dtype)]
            attributes[(function.arg_names.index(name),)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(argument, float) else "i32"
            if argument % 16 == 0 and name != "rows":
                attributes[(function.arg_names.index(name),)] = [["tt.divisibility", 16]]
    ordered = {name: signature[name] for name in function.arg_names}
    key = f"{function.fn.__module__}.{function.fn.__name__} {ordered} {known} {options}"
    if key not in compiled:
        source = ASTSource(function, ordered, {(function.arg_names.index(n),): v for n, v in known.items()}, attributes)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert made.asm["cubin"]
        compiled.add(key)


triton_jit.launch = compile_only
