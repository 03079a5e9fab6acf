"""What this processor can do that decides how weights are laid out and multiplied."""

from __future__ import annotations

import sys

from numba.core import config
from numba.core.codegen import get_host_cpu_features


def features() -> frozenset[str]:
    """The features that kernels are compiled for, as LLVM names them: `NUMBA_CPU_FEATURES`, or those found here."""
    if config.CPU_FEATURES is not None:
        named = str(config.CPU_FEATURES)
    elif config.CPU_NAME:
        named = ""
    else:
        named = str(get_host_cpu_features())
    return frozenset(flag[1:] for flag in named.split(",") if flag.startswith("+"))


def vnni_bits() -> int:
    """Width in bits of this processor's byte dot product: 512 (AVX-512 VNNI), 256 (AVX-VNNI) or 0 (none)."""
    if {"avx512f", "avx512bw", "avx512vl", "avx512vnni"} <= features():
        return 512
    return 256 if "avxvnni" in features() else 0


def has_amx() -> bool:
    """Whether kernels may hold byte-tile products; a process still has to be granted the tiles' state by Linux."""
    return sys.platform == "linux" and vnni_bits() == 512 and {"amx-tile", "amx-int8"} <= features()


def reads_halves() -> bool:
    """Whether float16 becomes float32 in one instruction."""
    return bool({"f16c", "avx512f"} & features())
