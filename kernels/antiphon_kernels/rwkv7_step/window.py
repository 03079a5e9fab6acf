"""A part of a flat array, borrowed; see `antiphon_kernels.window`."""

from __future__ import annotations

from antiphon_kernels.window import window

__all__ = ["window"]
