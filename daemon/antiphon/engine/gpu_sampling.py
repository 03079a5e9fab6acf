"""Drawing ids from logits that lie on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antiphon.engine.cpu_runner import draw_from
from antiphon.engine.gpu_operations import kernels
from antiphon.engine.runner import Draw


def sample_on(logits: Tensor, places: Sequence[int], draws: Sequence[Draw]) -> list[int]:
    """The id that each draw takes from its row of `logits` [slots, V]; ValueError as `sample.reference` raises it."""
    module = kernels("sample") if logits.is_cuda else None
    if module is None:
        return [draw_from(logits[place].cpu().numpy(), draw) for place, draw in zip(places, draws, strict=True)]
    return draw_on_device(module, logits, places, draws)


def draw_on_device(module: Any, logits: Tensor, places: Sequence[int], draws: Sequence[Draw]) -> list[int]:
    """The same by the Triton kernel of `module`; the device is waited for once."""
    rows = list(places)
    if any(draw.mask is not None or draw.offsets is not None or draw.seen is not None for draw in draws):
        logits, rows = adjusted(logits, places, draws), list(range(len(draws)))
    settings = np.array(
        [[d.temperature, d.top_k, d.top_p, d.min_p, d.uniform, row] for d, row in zip(draws, rows, strict=True)]
    )
    chosen: list[int] = module.sample(logits, _moved(settings, logits.device)).tolist()
    for token in chosen:
        module.refuse(token)
    return chosen


def adjusted(logits: Tensor, places: Sequence[int], draws: Sequence[Draw]) -> Tensor:
    """The rows that are drawn from, [n, V]: offsets and shifts added in float32, what is masked at -∞."""
    device = logits.device
    values = torch.stack([logits[place] for place in places])
    for row, draw in zip(values, draws, strict=True):
        if draw.offsets is not None:
            row += _moved(draw.offsets, device)
        if draw.seen is not None and draw.shifts is not None:
            # Each id is there once at most, so nothing is added up in an order of chance.
            row.index_add_(0, _moved(draw.seen, device), _moved(draw.shifts, device))
        if draw.mask is not None:
            row.masked_fill_(~_moved(draw.mask, device), -torch.inf)
    return values


def _moved(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy on the device; through page-locked memory, so that work there is not waited for."""
    copy = torch.from_numpy(np.array(array))
    return copy.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else copy.to(device)
