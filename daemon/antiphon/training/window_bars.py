"""How long the windows are that a model is fine-tuned on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowBars:
    """How many bars a window has: both are drawn evenly from (low, high), each at least 1, high included."""

    context: tuple[int, int]
    completion: tuple[int, int]
