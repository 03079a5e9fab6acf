"""The operations of a GPU's step: plain PyTorch, which defines them, or Triton, where it is and proves right."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from antiphon_kernels.block7 import reference as block7
from antiphon_kernels.linear import on_device
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


PLAIN = Operations(
    multiply=on_device.multiply,
    embed=block7.embed,
    shift_mix=block7.shift_mix,
    prepare=block7.prepare,
    advance=wkv7_step.advance,
    finish=block7.finish,
    norm=block7.norm,
)

NAMES = tuple(field.name for field in fields(Operations))


def fast(head_size: int) -> Operations | None:
    """The Triton kernels; None where Triton is not installed or does not take heads of this size."""
    linear, block, step = (kernels(name) for name in ("linear", "block7", "wkv7_step"))
    if linear is None or block is None or step is None or not (block.takes(head_size) and step.takes(head_size)):
        return None
    return Operations(
        multiply=linear.multiply,
        embed=block.embed,
        shift_mix=block.shift_mix,
        prepare=block.prepare,
        advance=step.advance,
        finish=block.finish,
        norm=block.norm,
    )


def kernels(operation: str) -> Any:
    """The Triton module of a folder of `antiphon_kernels`; None where Triton is not installed."""
    try:
        return importlib.import_module(f"antiphon_kernels.{operation}.triton_gpu")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
    return None
