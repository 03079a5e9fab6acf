"""The operations of a GPU's step: plain PyTorch, which defines them, or Triton, where it is and proves right."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from antiphon_kernels.block7 import reference as block7
from antiphon_kernels.linear import on_device
from antiphon_kernels.wkv4_step import on_device as wkv4_step
from antiphon_kernels.wkv5_step import on_device as wkv5_step
from antiphon_kernels.wkv7_step import reference as wkv7_step

Operation = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """One of each; all write their results in place and take the same arguments in either form."""

    multiply: Operation
    embed: Operation
    shift_mix: Operation
    prepare: Operation
    advance: Operation
    finish: Operation
    norm: Operation
    advance4: Operation
    advance5: Operation


PLAIN = Operations(
    multiply=on_device.multiply,
    embed=block7.embed,
    shift_mix=block7.shift_mix,
    prepare=block7.prepare,
    advance=wkv7_step.advance,
    finish=block7.finish,
    norm=block7.norm,
    advance4=wkv4_step.advance,
    advance5=wkv5_step.advance,
)

NAMES = tuple(field.name for field in fields(Operations))


def fast(head_size: int) -> Operations | None:
    """The Triton kernels, but for those that do not take heads of this size; None where Triton is not installed."""
    linear, block, *steps = (kernels(name) for name in ("linear", "block7", "wkv4_step", "wkv5_step", "wkv7_step"))
    if linear is None or block is None or None in steps:
        return None
    step4, step5, step7 = steps
    return Operations(
        multiply=linear.multiply,
        embed=block.embed,
        shift_mix=block.shift_mix,
        prepare=block.prepare if block.takes(head_size) else PLAIN.prepare,
        advance=step7.advance if step7.takes(head_size) else PLAIN.advance,
        finish=block.finish if block.takes(head_size) else PLAIN.finish,
        norm=block.norm,
        advance4=step4.advance,
        advance5=step5.advance if step5.takes(head_size) else PLAIN.advance5,
    )


def kernels(operation: str) -> Any:
    """The Triton module of a folder of `antiphon_kernels`; None where Triton is not installed."""
    try:
        return importlib.import_module(f"antiphon_kernels.{operation}.triton_gpu")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
    return None
