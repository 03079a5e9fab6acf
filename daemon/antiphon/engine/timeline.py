"""A timeline: one sequence that the model remembers in a block of numbers of constant size.

Copying the block is a fork, keeping a copy is a mark to come back to, dropping it is to forget. State and logits lie
in one array, so each of these is a single copy. A timeline belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampling import Sampling
from antiphon_kernels.rwkv7_step import numba_cpu
from antiphon_kernels.sample import numba_cpu as sample_cpu

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A moment of a timeline to come back to, any number of times."""

    model: LoadedModel
    memory: Floats
    count: int


class Timeline:
    """One sequence on `model`, at first empty."""

    __slots__ = ("_count", "_logits", "_memory", "_model", "_state")

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._hold(np.zeros(model.packed.state_len + model.vocab_size, np.float32))
        self._count = 0

    @property
    def model(self) -> LoadedModel:
        """The model that this timeline runs on."""
        return self._model

    @property
    def count(self) -> int:
        """Ids fed so far."""
        return self._count

    @property
    def logits(self) -> Floats:
        """Logits [V] after the last id fed: a view that the next feed overwrites. Zeros while nothing was fed."""
        return self._logits

    @property
    def state(self) -> Floats:
        """What the model remembers: per layer att_x [D], wkv [H, N (value), N (key)], ffn_x [D]; a view."""
        return self._state

    def feed(self, ids: Sequence[int]) -> None:
        """Append `ids`. ValueError, and nothing is fed, when one is not in the vocabulary."""
        if not len(ids):
            return
        numba_cpu.feed(self._model.packed, self._checked(ids), self._state, self._logits)
        self._count += len(ids)

    def feed_scored(self, ids: Sequence[int]) -> Floats:
        """Append `ids`; gives -log p of each under the logits before it, at temperature 1, unmasked.

        The first id of an empty timeline has no logits before it and costs log V.
        """
        nats = np.empty(len(ids), np.float32)
        if len(ids):
            numba_cpu.feed_scored(self._model.packed, self._checked(ids), self._state, self._logits, nats)
            self._count += len(ids)
        return nats

    def fork(self) -> Timeline:
        """A timeline that goes on from here by itself."""
        twin = Timeline.__new__(Timeline)
        twin._model = self._model
        twin._hold(self._memory.copy())
        twin._count = self._count
        return twin

    def copy_from(self, other: Timeline) -> None:
        """Become what `other` is now, in the memory held already."""
        self._require(other._model)
        np.copyto(self._memory, other._memory)
        self._count = other._count

    def mark(self) -> Mark:
        """This moment, to `rewind` to."""
        return Mark(self._model, self._memory.copy(), self._count)

    def rewind(self, mark: Mark) -> None:
        """Go back to `mark`, or on to it; it may come from any timeline on the same model."""
        self._require(mark.model)
        np.copyto(self._memory, mark.memory)
        self._count = mark.count

    def sample(
        self, mask: Mask | None, sampling: Sampling, rng: np.random.Generator, *, offsets: Floats | None = None
    ) -> int:
        """Draw the next id among those where `mask` [V] is true (None = all), without feeding it.

        offsets: float32 [V], added to the logits for this draw. One number is taken from `rng`, whatever the sampling.
        ValueError when nothing is allowed or nothing was fed.
        """
        if not self._count:
            raise ValueError("nothing was fed to this timeline, so it foretells nothing")
        if mask is not None and mask.shape != self._logits.shape:
            raise ValueError(f"the mask has shape {mask.shape}, but the vocabulary {self._logits.shape}")
        if offsets is not None and offsets.shape != self._logits.shape:
            raise ValueError(f"the offsets have shape {offsets.shape}, but the vocabulary {self._logits.shape}")
        return sample_cpu.sample(
            self._logits if offsets is None else self._logits + offsets,
            mask,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            uniform=rng.random(),
        )

    def nats(self, token: int) -> float:
        """-log p(token) under the logits as they are, unmasked, at temperature 1."""
        self._checked((token,))
        return sample_cpu.nats(self._logits, token)

    def _hold(self, memory: Floats) -> None:
        self._memory = memory
        self._state = memory[: self._model.packed.state_len]
        self._logits = memory[self._model.packed.state_len :]

    def _require(self, model: LoadedModel) -> None:
        if model is not self._model:
            raise ValueError("timelines of different models do not mix")

    def _checked(self, ids: Sequence[int]) -> npt.NDArray[np.int32]:
        array = np.asarray(ids, np.int64)
        if array.min() < 0 or array.max() >= self._model.vocab_size:
            wrong = next(token for token in ids if not 0 <= token < self._model.vocab_size)
            raise ValueError(f"id {wrong} is not in the vocabulary of 0 to {self._model.vocab_size - 1}")
        return array.astype(np.int32)
