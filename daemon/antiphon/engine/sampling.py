"""How boldly the next id is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Cuts and temper, in the order temperature, top-k, softmax, min-p, top-p.

    temperature >= 0 (0 always takes the likeliest); top_k >= 0 (0 = all); top_p and min_p within 0..1 (1 and 0 = all).
    Raises ValueError for anything else.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}, but must be 0 or more")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, but must be from 0 to 1")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}, but must be a whole number, 0 or more")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}, but must be from 0 to 1")


GREEDY = Sampling(temperature=0.0)
