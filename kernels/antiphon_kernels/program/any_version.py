"""The program of any RWKV: which one it is, its tensors say."""

from __future__ import annotations

from antiphon_kernels.program import rwkv4, rwkv5, rwkv6, rwkv7
from antiphon_kernels.program.build import Weights
from antiphon_kernels.program.frame import has
from antiphon_kernels.program.ops import Program
from antiphon_kernels.program.rwkv5 import GROUP_NORM_EPS


def build(weights: Weights, *, interleave: bool, ln_x_eps: float = GROUP_NORM_EPS) -> Program:
    """The program of the RWKV whose tensors `weights` gives; KeyError and ValueError when one is amiss.

    ln_x_eps: the constant in the norm over heads; only RWKV-5's may be another than the usual one.
    """
    at = "blocks.0.att."
    if not has(weights, f"{at}r_k") and not has(weights, f"{at}time_maa_x") and has(weights, f"{at}ln_x.weight"):
        return rwkv5.build(weights, interleave=interleave, ln_x_eps=ln_x_eps)
    if ln_x_eps != GROUP_NORM_EPS:
        raise ValueError(f"only RWKV-5 has another constant in its norm over heads than {GROUP_NORM_EPS}")
    if has(weights, f"{at}r_k"):
        return rwkv7.build(weights, interleave=interleave)
    if has(weights, f"{at}time_maa_x"):
        return rwkv6.build(weights, interleave=interleave)
    return rwkv4.build(weights, interleave=interleave)
