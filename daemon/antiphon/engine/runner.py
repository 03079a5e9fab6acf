"""What a timeline runs on: a model on one device, the memories it keeps, and how it is told to move them on.

A `Runner` owns the weights and never changes what it computes: the result for one memory depends on its own ids alone,
to the bit, whoever shares the call. A `Memory` is what the model knows of one sequence: its state, and the logits of
what comes next. Everything is called from one thread at a time per runner, except where a runner says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from antiphon.model.spec import ModelSpec

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Memory(Protocol):
    """One sequence as the model remembers it; it belongs to the runner that made it."""

    @property
    def state(self) -> Floats:
        """float32 [state_len] in the layout of the model's version. On a CPU a view, on a GPU a copy."""
        ...

    @property
    def logits(self) -> Floats:
        """float32 [V] after the last id; zeros while nothing was fed. On a CPU a view, on a GPU a copy."""
        ...

    def copy(self) -> Self:
        """Another memory, equal to this one and from here on its own."""
        ...

    def copy_from(self, other: Self) -> None:
        """Become what `other` is, in the place held already. `other` is of the same runner."""
        ...

    def load(self, state: Floats, logits: Floats) -> None:
        """Become what these say: float32 [state_len] and [V]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feed:
    """Ids to append to one memory.

    ids: int32 [T], T >= 1, all within the vocabulary. nats: None, or float32 [T] to be filled with -log p of each id
    under the logits before it, at temperature 1, unmasked.
    """

    memory: Memory
    ids: Ids
    nats: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """How one id is to be drawn, with nothing left to chance: `antiphon_kernels.sample.reference` is the definition.

    temperature, top_k, top_p, min_p: as in `Sampling`. uniform: the number in [0, 1) that decides. mask: bool [V],
    true = allowed, None = all. offsets: float32 [V] to add to the logits, or None. seen, shifts: int32 [K] ids, each
    at most once, and float32 [K] to add to their logits (penalties and biases); both None, or neither.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    uniform: float
    mask: Mask | None = None
    offsets: Floats | None = None
    seen: Ids | None = None
    shifts: Floats | None = None


class Running(Protocol):
    """Feeds on their way. Until it is done their memories belong to it; other memories may move on between slices."""

    def advance(self, budget_ns: int) -> bool:
        """Work for about `budget_ns`, one slice at the least; gives whether all is done. Not called again after."""
        ...


class Runner(Protocol):
    """A model on one device."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, `cuda:0`, …"""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""
        ...

    @property
    def state_len(self) -> int:
        """float32 numbers in one state."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the weights hold on the device."""
        ...

    def new_memory(self) -> Memory:
        """A memory that has heard nothing: the model's start state, logits zero."""
        ...

    def run(self, feeds: Sequence[Feed]) -> None:
        """Append to every feed's memory; no memory comes twice."""
        ...

    def begin(self, feeds: Sequence[Feed]) -> Running:
        """The same in slices. It holds a workspace of its own, so `run` and other `Running`s may come in between."""
        ...

    def sample(self, memory: Memory, draw: Draw) -> int:
        """The id that `draw` takes from the memory's logits; ValueError when none is allowed or one is not finite."""
        ...

    def sample_all(self, memories: Sequence[Memory], draws: Sequence[Draw]) -> list[int]:
        """`sample` of each pair, in one go where the device can."""
        ...

    def warm(self) -> None:
        """Compile the kernels, or load them from disk, so that no timeline has to wait for that."""
        ...

    def close(self) -> None:
        """Let go of the device; the runner and its memories are not used again. May be called again."""
        ...
