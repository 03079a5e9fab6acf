"""The kernels of a GPU against their definitions, on the model's own weights, before they are used (S0-086, S1-071).

A driver, a GPU or a compiler that nobody has tried must not play wrong notes: a kernel that differs, or does not run at
all, is switched off for this model, and the log says which and how far it was off.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.gpu_network import Network, Part, Store, Weights
from antiphon.engine.gpu_operations import NAMES, PLAIN, Operation, Operations

log = logging.getLogger(__name__)

WITHIN = 1e-4
"""Of the largest number of an array. Sums in another order stay near 1e-6, two planes of bfloat16 near 1e-5."""
ONE_PLANE_WITHIN = 2**-7
"""Where results are written in one bfloat16 plane, which the two sides may round to different neighbours."""

SLABS = ((1,), (2, 1, 15))
"""Lengths of the sequences in the slabs that are compared: one row, and more than a product takes at once."""
TOGETHER = (2, 17, 1)
"""Lengths of the sequences that are run in one slab, and cut and alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An operation whose kernel is not used: by how much of the largest number it was off, or what stopped it."""

    operation: str
    off: float
    error: str = ""

    def __str__(self) -> str:
        what = self.error or f"differs from plain PyTorch by {self.off:.1e} of the largest number"
        return f"{self.operation}: {what}"


def proven(
    kind: type[Network[Any]], weights: Weights[Any], fast: Operations, *, planes: int
) -> tuple[Operations, list[Difference]]:
    """`fast`, with the plain form in place of every kernel that differs, and what differed.

    Looks at the first and the last layer and the head, in slabs of one row and of several sequences.
    """
    witness = _Witness(fast, ONE_PLANE_WITHIN if planes == 1 else WITHIN)
    watched = Operations(**{name: witness.watched(name) for name in NAMES})
    layers = {0, len(weights.layers) - 1}
    short = replace(weights, layers=tuple(weights.layers[index] for index in sorted(layers)))
    short = replace(short, spec=replace(weights.spec, n_layer=len(short.layers)))
    network = kind(short, _store(short), planes=planes, operations=watched, graphs=False)
    vocab = weights.spec.vocab_size
    for lengths in SLABS:
        passage = network.begin(_parts(lengths, vocab))
        while passage.ahead is not None:
            passage.step()
    chosen = {name: getattr(PLAIN if name in witness.differences else fast, name) for name in NAMES}
    operations = Operations(**chosen)
    differences = list(witness.differences.values())
    for difference in differences:
        log.error("a GPU kernel is switched off, and its slow form used: %s", difference)
    if not differences and not _steady(kind, short, operations, planes):
        log.error("on this GPU the numbers of a sequence depend on what else runs with it: a session may not repeat")
    return operations, differences


def _steady(kind: type[Network[Any]], weights: Weights[Any], operations: Operations, planes: int) -> bool:
    """Whether sequences give the same bits alone, cut otherwise, and together in one slab."""
    together, alone = _store(weights), _store(weights)
    parts = _parts(TOGETHER, weights.spec.vocab_size)
    first, second, third = parts
    cut = [replace(second, ids=second.ids[:1]), replace(second, ids=second.ids[1:])]
    for store, slabs in ((together, [parts]), (alone, [[third], [cut[0], first], [cut[1]]])):
        _run(kind(weights, store, planes=planes, operations=operations, graphs=False), slabs)
    return torch.equal(together.states[1:], alone.states[1:]) and torch.equal(together.logits[1:], alone.logits[1:])


def _run(network: Network[Any], slabs: Sequence[Sequence[Part]]) -> None:
    for parts in slabs:
        passage = network.begin(parts)
        while passage.ahead is not None:
            passage.step()


def _store(weights: Weights[Any]) -> Store:
    """States as a model may leave them, for three sequences and nobody; denominators are positive in all versions."""
    spec, device = weights.spec, weights.embedding.device
    store = Store(4, spec.state_floats, spec.vocab_size, device)
    store.states.copy_(torch.rand(store.states.shape, generator=torch.Generator().manual_seed(2)))
    return store


def _parts(lengths: Sequence[int], vocab_size: int) -> list[Part]:
    rng = np.random.default_rng(len(lengths))
    return [
        Part(slot=slot, ids=rng.integers(0, vocab_size, length, dtype=np.int32), ends=True)
        for slot, length in enumerate(lengths, start=1)
    ]


class _Witness:
    """Runs each operation in both forms on the same numbers; the plain one's results go on."""

    def __init__(self, fast: Operations, within: float) -> None:
        self.differences: dict[str, Difference] = {}
        self._fast = fast
        self._within = within

    def watched(self, name: str) -> Operation:
        def run(*arguments: Any, **options: Any) -> None:
            mine, known = _copies(arguments, options)
            before = [tensor.clone() for tensor in _tensors(arguments, options)]
            error = ""
            try:
                getattr(self._fast, name)(*mine, **known)
                if any(tensor.is_cuda for tensor in before):
                    torch.cuda.synchronize()
            except (RuntimeError, ValueError, _triton_error()) as failure:
                error = f"{type(failure).__name__}: {failure}".splitlines()[0]
            getattr(PLAIN, name)(*arguments, **options)
            off = 0.0
            for plain, fast, old in zip(_tensors(arguments, options), _tensors(mine, known), before, strict=True):
                if not torch.equal(plain, old) or not torch.equal(fast, old):
                    off = max(off, _distance(fast, plain))
            worst = self.differences.get(name)
            if (error or off > self._within) and (worst is None or off > worst.off):
                self.differences[name] = Difference(operation=name, off=off, error=error)

        return run


def _copies(arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The same arguments with tensors of their own; one that is given twice stays one."""
    made: dict[int, Tensor] = {}

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return made.setdefault(id(value), value.clone())

    return [own(value) for value in arguments], {name: own(value) for name, value in options.items()}


def _tensors(arguments: Sequence[Any], options: dict[str, Any]) -> list[Tensor]:
    return [value for value in (*arguments, *options.values()) if isinstance(value, Tensor)]


def _distance(fast: Tensor, plain: Tensor) -> float:
    """The largest difference as a share of the largest number; NaN counts as ∞. Planes are summed first."""
    x, y = (tensor.float() for tensor in (fast, plain))
    if fast.dtype == torch.bfloat16 and fast.ndim >= 3:
        x, y = x.sum(dim=-3), y.sum(dim=-3)
    share = float((x - y).abs().max() / y.abs().max().clamp(min=1e-20))
    return share if share == share else float("inf")


def _triton_error() -> type[Exception]:
    try:
        from triton.errors import TritonError
    except ModuleNotFoundError:
        return RuntimeError
    kind: type[Exception] = TritonError
    return kind
