"""What the numbers of a state are: one float32 array, divided into named parts, layer after layer."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.model.spec import ModelSpec
from antiphon.model.version import Version


def slots(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every part in the order in which they lie in the array.

    Each layer has att_x [D] and ffn_x [D], what the last id left for the token shifts, around what it remembers:
    RWKV-7 wkv [H, N (value), N (key)]; 5 and 6 wkv [H, N (key), N (value)]; 4 the numerator aa, the denominator bb and
    the exponent pp, all [D].
    """
    width, size = spec.n_embd, spec.head_size
    inner: tuple[tuple[str, tuple[int, ...]], ...] = (("wkv", (spec.n_head, size, size)),)
    if spec.version is Version.V4:
        inner = (("aa", (width,)), ("bb", (width,)), ("pp", (width,)))
    for layer in range(spec.n_layer):
        for name, shape in (("att_x", (width,)), *inner, ("ffn_x", (width,))):
            yield f"blocks.{layer}.{name}", shape
