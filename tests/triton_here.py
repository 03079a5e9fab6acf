"""Triton for tests: compiled where there is a GPU, interpreted on any other machine, or the reason why neither.

To be imported before anything imports Triton, which decides there and then whether it interprets.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os

import numpy as np
import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")
INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"


def _version(numbers: str) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers.split(".")[:2])


def _wanting() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton; no GPU is needed)"
    triton = importlib.metadata.version("triton")
    if INTERPRETED and _version(triton) < (3, 7) and _version(np.__version__) >= (2, 4):
        return f"the interpreter of Triton {triton} fails with NumPy 2.4 and later; that of 3.7 does not"
    return None


WANTING = _wanting()
needs_triton = pytest.mark.skipif(WANTING is not None, reason=WANTING or "")
