"""Drawing ids from logits that lie on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.cpu_runner import draw_from
from antiphon.engine.gpu_operations import kernels
from antiphon.engine.runner import Draw


def sample_on(logits: Tensor, places: Sequence[int], draws: Sequence[Draw]) -> list[int]:
    """The id that each draw takes from its row of `logits` [slots, V]; ValueError as `sample.reference` raises it."""
    module = kernels("sample") if logits.is_cuda else None
    if module is None:
        rows = logits[torch.as_tensor(places, device=logits.device)].cpu().numpy()
        return [draw_from(row, draw) for row, draw in zip(rows, draws, strict=True)]
    values = adjusted(logits, places, draws)
    settings = torch.tensor([[d.temperature, d.top_k, d.top_p, d.min_p, d.uniform] for d in draws], dtype=torch.float64)
    chosen: list[int] = module.sample(values, settings.to(logits.device)).tolist()
    for token in chosen:
        module.refuse(token)
    return chosen


def adjusted(logits: Tensor, places: Sequence[int], draws: Sequence[Draw]) -> Tensor:
    """The rows that are drawn from, [n, V]: offsets and shifts added in float32, what is masked at -∞."""
    device = logits.device
    values = logits[torch.as_tensor(places, device=device)]
    for row, draw in zip(values, draws, strict=True):
        if draw.offsets is not None:
            row += torch.from_numpy(np.ascontiguousarray(draw.offsets, np.float32)).to(device)
        if draw.seen is not None and draw.shifts is not None:
            row[torch.from_numpy(draw.seen).to(device).long()] += torch.from_numpy(draw.shifts).to(device)
        if draw.mask is not None:
            row.masked_fill_(~torch.from_numpy(np.ascontiguousarray(draw.mask)).to(device), -torch.inf)
    return values
