"""e to the x in float64, the same to the bit on every processor: products and sums alone, one rounding each.

NumPy's own takes what instructions a processor has, and those round the last bit differently.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # fdlibm's e_exp.c: n * high is exact
_FACTORS = [1.0 / math.factorial(n) for n in range(14)]


def exp(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """e to the x; relative error 4e-16 within [-708, 709], outside of which x is clamped. NaN in, NaN out."""
    x = np.clip(x.astype(np.float64), -708.0, 709.0)
    n = np.rint(x * _LOG2_E)
    rest = x - n * _LN2_HIGH - n * _LN2_LOW
    power = np.full_like(rest, _FACTORS[-1])
    for factor in reversed(_FACTORS[:-1]):
        power = power * rest + factor
    return np.ldexp(power, np.nan_to_num(n).astype(np.int64))
