"""The compiled step against its definition, on the model's own weights, before it is used (S0-086, S1-071).

A processor that multiplies wrongly, or a compiler that nobody has tried, must not play wrong notes. The first layers of
the model are run in slabs of one row and of many, as they will be played, and beside them in plain PyTorch. Where the
two differ, the products that this processor has instructions for are switched off, and the log says so; where they
still do, the model is refused.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.cpu_runner import CpuMemory, CpuRunner
from antiphon.engine.runner import Feed, Floats
from antiphon.errors import AntiphonError
from antiphon.model import reference
from antiphon.model.held import HeldWeights
from antiphon.model.own_form import FLOATS, is_linear, is_low_rank
from antiphon.model.precision import Precision
from antiphon.model.source import Kind, Source
from antiphon.model.spec import ModelSpec
from antiphon_kernels.linear.processor import vnni_bits

log = logging.getLogger(__name__)

WITHIN = 0.01
"""In standard deviations of what is compared: rounding activations to 16 bits comes to 0.002, a wrong byte to more."""

MOST_LAYERS = 2
MOST_IDS = 512
"""Rows of the embedding and the head that are looked at."""

_LENGTHS = (1, 2, 19)  # what is fed to three memories at once, before they are fed one id each, and then one alone

Logits = list[Floats]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Beginning:
    """The first layers of `base`, and the first ids that it knows; see `model.source.Source`."""

    base: Source
    spec: ModelSpec

    @classmethod
    def of(cls, base: Source) -> _Beginning:
        layers, ids = min(base.spec.n_layer, MOST_LAYERS), min(base.spec.vocab_size, MOST_IDS)
        return cls(base=base, spec=dataclasses.replace(base.spec, n_layer=layers, vocab_size=ids))

    @property
    def path(self) -> Path:
        return self.base.path

    @property
    def kind(self) -> Kind:
        return self.base.kind

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.base.metadata

    @property
    def ln_x_eps(self) -> float:
        return self.base.ln_x_eps

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.spec.shapes()

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        return self.base.dtypes

    @property
    def stored(self) -> Mapping[str, str]:
        return self.base.stored

    @property
    def start_state_names(self) -> tuple[str, ...]:
        return ()

    def read(self, name: str) -> Tensor:
        return self._cut(name, self.base.read(name))

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None:
        kept = self.base.read_quantized(name)
        return None if kept is None else (self._cut(name, kept[0]), self._cut(name, kept[1]))

    def _cut(self, name: str, tensor: Tensor) -> Tensor:
        return tensor[: self.spec.vocab_size] if name in ("emb.weight", "head.weight") else tensor


def proven_interleave(
    source: Source,
    precision: Precision,
    *,
    fast: bool | None = None,
    played: Callable[[CpuRunner], Logits] | None = None,
) -> bool:
    """Whether the weights may be laid out for the instructions of this processor; if not, that is logged as an error.

    fast: whether it has any, None = look. played: gives what the step foretells, see `play`. Raises AntiphonError when
    the step differs from its definition without them, too.
    """
    play_on = play if played is None else played
    beginning = _Beginning.of(source)
    expected = _defined(beginning, precision)
    for interleave in (True, False) if (vnni_bits() > 0 if fast is None else fast) else (False,):
        runner = CpuRunner.of_source(beginning, precision, threads=1, interleave=interleave)
        off = _apart(play_on(runner), expected)
        runner.close()
        if off < WITHIN:
            return interleave
        log.error(
            "%s: the step %s differs from its definition by %.2g standard deviations and is not used",
            source.path,
            "with this processor's byte products" if interleave else "in plain instructions",
            off,
        )
    raise AntiphonError(
        "on this machine the model would not give its own numbers",
        where=str(source.path),
        fix="report it with the processor's name",
    )


def play(runner: CpuRunner) -> Logits:
    """Logits [V] of three timelines after each of three feeds: many rows together, one row each together, one alone."""
    ids = _ids(runner.spec)
    memories = [runner.new_memory() for _ in _LENGTHS]
    found: Logits = []

    def feed(fed: list[tuple[CpuMemory, int, int]]) -> None:
        runner.run([Feed(memory=memory, ids=ids[first:last]) for memory, first, last in fed])
        found.extend(memory.logits.copy() for memory, _, _ in fed)

    feed([(memory, 0, length) for memory, length in zip(memories, _LENGTHS, strict=True)])
    feed([(memory, length, length + 1) for memory, length in zip(memories, _LENGTHS, strict=True)])
    feed([(memories[-1], _LENGTHS[-1] + 1, _LENGTHS[-1] + 2)])
    return found


def _defined(beginning: _Beginning, precision: Precision) -> Logits:
    """The same by the definition in float32, on the numbers that the precision leaves of the weights."""
    weights = {name: _left(beginning, name, precision) for name in beginning.shapes}
    ids = torch.from_numpy(_ids(beginning.spec).astype(np.int64))
    with torch.inference_mode():
        logits, _ = reference.sequence(beginning.spec, weights, ids, ln_x_eps=beginning.ln_x_eps)
    rows = [*(length - 1 for length in _LENGTHS), *_LENGTHS, _LENGTHS[-1] + 1]
    return [logits[row].float().numpy() for row in rows]


def _left(beginning: _Beginning, name: str, precision: Precision) -> Tensor:
    tensor = beginning.read(name).float()
    if precision in FLOATS:
        matrix = is_linear(name) or is_low_rank(name)
        return tensor.to(FLOATS[precision]).float() if matrix else tensor
    if not is_linear(name):
        return tensor
    held = HeldWeights(beginning, precision).matrix(name, transpose=False)
    values, scales = torch.from_numpy(held.values).float(), torch.from_numpy(held.scales)
    if scales.ndim == 1:
        return values * scales.unsqueeze(1)
    scales = scales.half().float()  # as they are held
    return values * scales.repeat_interleave(values.shape[1] // scales.shape[1], dim=1)


def _ids(spec: ModelSpec) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return (7919 * np.arange(1, _LENGTHS[-1] + 3) % spec.vocab_size).astype(np.int32)


def _apart(found: Logits, expected: Logits) -> float:
    """The largest difference in standard deviations; infinite for what is not a number."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        off = float(np.abs(one - other).max() / max(float(other.std()), 1e-6))
        worst = max(worst, off if np.isfinite(off) else np.inf)
    return worst
