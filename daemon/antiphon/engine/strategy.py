"""Strategies: how RWKV's own tools are told where a model runs and how it is held, read as what we do.

    cuda fp16i8                     on the GPU, in int8
    cuda:1 bf16                     on the second GPU, in bfloat16
    cuda fp16*i8                    the same as the first, in another spelling
    cuda fp16i8 *10 -> cpu fp32     ten layers there, the rest here: read, but a model is not divided between devices

The grammar is ChatRWKV's and RWKV-Runner's: parts joined by `->`, each a device, a type, and `*N` for how many layers
(`*N+`: the others stream through it). RWKV-Runner's `webgpu fp16i8 layerN chunkN` is read as well (S0-003, S0-083,
S0-084).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from antiphon.errors import AntiphonError
from antiphon.model.precision import Precision

MOST_PARTS = 64
MOST_TEXT = 1000

_DEVICES = ("cpu", "cuda", "mps", "dml", "webgpu")
_DEVICE = re.compile(r"([a-z]+)(?::(\d{1,4}))?")
_TYPE = re.compile(r"(fp16|fp32|bf16)(?:\*?(i[348]))?")
_LAYERS = re.compile(r"\*(\d{1,4})(\+?)")
_WEB_OPTION = re.compile(r"(layer|chunk)(\d{1,6})")
_EXAMPLE = "write it as 'cuda fp16i8' or 'cpu fp32'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One link of a strategy: `kept` is what the weights become (i8, i4, i3), or "" for the float type itself.

    layers: how many it holds, None for the rest. streamed: the others pass through it.
    """

    device: str
    dtype: str
    kept: str = ""
    layers: int | None = None
    streamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a model runs, `cpu` or `cuda[:N]`, and how it is held."""

    device: str
    precision: Precision


def parts_of(text: str) -> tuple[Part, ...]:
    """The parts of a strategy. Raises AntiphonError, with the place, for what the grammar does not know."""
    if len(text) > MOST_TEXT:
        raise AntiphonError("a strategy of that length cannot be meant", where=text[:60] + "…", fix=_EXAMPLE)
    links = text.split("->")
    if len(links) > MOST_PARTS:
        raise AntiphonError(f"more than {MOST_PARTS} parts", where=text[:60] + "…", fix=_EXAMPLE)
    return tuple(_part(link, text) for link in links)


def placement_of(text: str) -> Placement:
    """What we do for a strategy. Raises AntiphonError for what it does not say, and for what we do not do."""
    parts = parts_of(text)
    for part in parts:
        _require_possible(part, text)
    first = parts[0]
    for other in parts[1:]:
        if other.device != first.device:
            raise AntiphonError(
                f"a model is not divided between devices, here {first.device} and {other.device}",
                where=text,
                fix=f"give one device, for example '{_spelt(first)}', or a smaller model or precision",
            )
        if _precision(other) is not _precision(first):
            raise AntiphonError(
                f"a model is held in one precision, here {_precision(first)} and {_precision(other)}",
                where=text,
                fix=f"give one type, for example '{_spelt(first)}'",
            )
    return Placement(device=first.device, precision=_precision(first))


def _part(link: str, text: str) -> Part:
    def wrong(what: str) -> AntiphonError:
        return AntiphonError(what, where=text[:120], fix=_EXAMPLE)

    # `fp16 *i8`, `fp16 i8 * 10` and the like are all meant the same way.
    words = re.sub(r"\s*\*\s*", "*", link.strip().lower()).split()
    words = " ".join(words).replace(" i", "i").replace("*", " *").replace(" *i", "i").split()
    if not words:
        raise wrong("a part of the strategy is empty")
    device = _DEVICE.fullmatch(words[0])
    if device is None or device[1] not in _DEVICES:
        raise wrong(f"no device is called {words[0][:40]!r}")
    if len(words) < 2:
        raise wrong(f"it does not say in which type {words[0]} holds the model")
    kept = _TYPE.fullmatch(words[1])
    if kept is None:
        raise wrong(f"no type is called {words[1][:40]!r}")
    layers: int | None = None
    streamed = False
    for word in words[2:]:
        if device[1] == "webgpu" and _WEB_OPTION.fullmatch(word):
            continue
        count = _LAYERS.fullmatch(word)
        if count is None or layers is not None:
            raise wrong(f"{word[:40]!r} cannot be understood")
        layers, streamed = int(count[1]), bool(count[2])
    return Part(device=words[0], dtype=kept[1], kept=kept[2] or "", layers=layers, streamed=streamed)


def _require_possible(part: Part, text: str) -> None:
    kind = part.device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise AntiphonError(f"nothing runs on {kind} here", where=text, fix="give cpu or cuda")
    if kind == "cpu" and part.device != "cpu":
        raise AntiphonError("the processor has no number", where=text, fix="give cpu")
    if part.kept == "i3":
        raise AntiphonError("weights of three bits are not known", where=text, fix="give i4 or i8")
    if part.streamed:
        raise AntiphonError(
            "layers are not streamed", where=text, fix="give a smaller precision, or more memory to the model"
        )


def _precision(part: Part) -> Precision:
    if part.kept:
        return {"i8": Precision.INT8, "i4": Precision.INT4}[part.kept]
    return {"fp32": Precision.FP32, "bf16": Precision.BF16, "fp16": Precision.FP16}[part.dtype]


def _spelt(part: Part) -> str:
    return f"{part.device} {part.dtype}{part.kept}"
