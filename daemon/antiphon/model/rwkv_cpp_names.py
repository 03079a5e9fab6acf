"""What rwkv.cpp's converter does to a model's tensors, undone: official names, shapes and meanings.

Most of it is only turned or reshaped, and comes back exactly. Decays of RWKV-4 and 5 and the bonus of RWKV-5.0 are
stored after an exponential, in float32; their logarithm is taken in float64. What such a decay does to a state comes
back to within float32's rounding. The number itself does not where the exponential has lost it: a decay that was
rounded to exactly 1 or 0 gets the least extreme number that gives the same again.
Source: rwkv.cpp, python/convert_pytorch_to_ggml.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.stored import StoredTensor

_MIXES = "rwkvag"
"""The order in which an RWKV-7's six mixes are stacked."""

_TURNED = re.compile(r"\.att\.(time_maa_w[12]|time_decay_w[12]|[wavg][12])$")

_NOTHING = math.log(2.0**-151)
"""exp of it is 0 in float32."""
_KEEPS, _FORGETS = math.log(2.0**-26), math.log(-math.log(2.0**-151))
"""exp(-exp(x)) of them is 1 and 0 in float32."""


def is_turned(official: str) -> bool:
    """Whether rwkv.cpp keeps the tensor with its last two axes exchanged."""
    return _TURNED.search(official) is not None


def to_official(parts: Mapping[str, StoredTensor], *, where: str = "") -> dict[str, StoredTensor]:
    """The same tensors under official names. Raises FileError for numbers that no exponential gives."""
    endings = {name.partition(".att.")[2] for name in parts}
    official: dict[str, StoredTensor] = {}
    for name, part in parts.items():
        if name.endswith(".att.x_rwkvag"):
            official |= _unstacked(name, part)
        elif is_turned(name) and len(part.shape) >= 2:
            official[name] = part.turned()
        elif name.endswith((".att.time_decay", ".att.time_first", ".att.time_faaaa")):
            renamed, changed = _before_7(name, part, parts, endings, where)
            official[renamed] = changed
        else:
            official[name] = part
    return official


def _unstacked(name: str, part: StoredTensor) -> dict[str, StoredTensor]:
    """x_r, x_w, x_k, x_v, x_a and x_g out of the one tensor that holds them."""
    width = math.prod(part.shape) // len(_MIXES)
    if part.shape[0] != len(_MIXES):
        return {name: part}

    def row(index: int) -> StoredTensor:
        return part.then(lambda tensor: tensor[index].reshape(1, 1, width), (1, 1, width))

    return {name.replace("x_rwkvag", f"x_{mix}"): row(index) for index, mix in enumerate(_MIXES)}


def _before_7(
    name: str, part: StoredTensor, parts: Mapping[str, StoredTensor], endings: set[str], where: str
) -> tuple[str, StoredTensor]:
    """A decay or bonus of RWKV-4, 5 or 6, and its official name."""
    embedding = parts.get("emb.weight")
    width = embedding.shape[-1] if embedding is not None else 0
    if "ln_x.weight" not in endings:
        if name.endswith("time_decay"):
            return name, _changed(part, lambda x: torch.log(-x).clamp(min=_NOTHING), "below 0", name, where)
        return name, part
    count = math.prod(part.shape)
    heads: tuple[int, ...] = (count,)
    if count == width:
        # A number per channel: the axis of the heads comes first, unless there is only one.
        by_head = len(part.shape) >= 2 and part.shape[1] > 1
        heads = (part.shape[0], count // part.shape[0]) if by_head else (1, count)
    if "time_maa_x" in endings:
        return name, part.shaped((1, 1, count) if name.endswith("time_decay") else heads)
    part = part.shaped(heads)
    if name.endswith("time_decay"):
        return name, _changed(part, _log_log, "between 0 and 1", name, where)
    if name.endswith("time_first"):
        if "gate.weight" in endings:
            # RWKV-5.1's bonus is used as it is, and this is what the exponential has made of an early one.
            return name.replace("time_first", "time_faaaa"), part
        return name, _changed(part, lambda x: torch.log(x).clamp(min=_NOTHING), "above 0", name, where)
    return name, part


def _log_log(decay: Tensor) -> Tensor:
    """The inverse of exp(-exp(x)), for a decay in 0…1."""
    return torch.log(-torch.log(decay)).clamp(_KEEPS, _FORGETS)


def _changed(
    part: StoredTensor, inverse: Callable[[Tensor], Tensor], allowed: str, name: str, where: str
) -> StoredTensor:
    """`part` with `inverse` taken of it in float64, where every number must be `allowed`."""

    def change(tensor: Tensor) -> Tensor:
        numbers = inverse(tensor.double())
        if bool(numbers.isnan().any()):
            raise FileError(f"tensor {name} holds a number that is not {allowed}", where=where, fix="convert it again")
        return numbers.float()

    return part.then(change, part.shape, dtype=torch.float32)
