"""A timeline: one sequence that the model remembers in a block of numbers of constant size.

Copying the block is a fork, keeping a copy is a mark to come back to, dropping it is to forget. State and logits lie
in one `Memory` of the model's runner, so each of these is a single copy. A timeline belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Draw, Feed, Floats, Mask, Memory, Running
from antiphon.engine.sampling import Sampling
from antiphon_kernels.sample import numba_cpu as sample_cpu

_NO_END_NS = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A moment of a timeline to come back to, any number of times."""

    model: LoadedModel
    memory: Memory
    count: int


class Timeline:
    """One sequence on `model`, at first empty."""

    __slots__ = ("_count", "_memory", "_model")

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._memory = model.runner.new_memory()
        self._count = 0

    @classmethod
    def restored(cls, model: LoadedModel, *, state: Floats, logits: Floats, count: int) -> Timeline:
        """The timeline on `model` that had been fed `count` ids and held these numbers, [state_len] and [V]."""
        timeline = cls(model)
        timeline._memory.load(state, logits)
        timeline._count = count
        return timeline

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
        """Logits [V] after the last id fed; zeros while nothing was fed.

        On a processor a view that the next feed overwrites, on a GPU a copy.
        """
        return self._memory.logits

    @property
    def state(self) -> Floats:
        """What the model remembers [state_len], for its parts see `engine.slots`; a view or a copy, as `logits`."""
        return self._memory.state

    def feed(self, ids: Sequence[int]) -> None:
        """Append `ids`. ValueError, and nothing is fed, when one is not in the vocabulary."""
        if not len(ids):
            return
        self._model.runner.run((Feed(memory=self._memory, ids=self._checked(ids)),))
        self._count += len(ids)

    def feed_scored(self, ids: Sequence[int]) -> Floats:
        """Append `ids`; gives -log p of each under the logits before it, at temperature 1, unmasked.

        The first id of an empty timeline has no logits before it and costs log V.
        """
        nats = np.empty(len(ids), np.float32)
        if len(ids):
            self._model.runner.run((Feed(memory=self._memory, ids=self._checked(ids), nats=nats),))
            self._count += len(ids)
        return nats

    def fork(self) -> Timeline:
        """A timeline that goes on from here by itself."""
        twin = Timeline.__new__(Timeline)
        twin._model = self._model
        twin._memory = self._memory.copy()
        twin._count = self._count
        return twin

    def copy_from(self, other: Timeline) -> None:
        """Become what `other` is now, in the memory held already."""
        self._require(other._model)
        self._memory.copy_from(other._memory)
        self._count = other._count

    def mark(self) -> Mark:
        """This moment, to `rewind` to."""
        return Mark(self._model, self._memory.copy(), self._count)

    def rewind(self, mark: Mark) -> None:
        """Go back to `mark`, or on to it; it may come from any timeline on the same model."""
        self._require(mark.model)
        self._memory.copy_from(mark.memory)
        self._count = mark.count

    def sample(
        self, mask: Mask | None, sampling: Sampling, rng: np.random.Generator, *, offsets: Floats | None = None
    ) -> int:
        """Draw the next id among those where `mask` [V] is true (None = all), without feeding it.

        offsets: float32 [V], added to the logits for this draw. One number is taken from `rng`, whatever the sampling.
        ValueError when nothing is allowed or nothing was fed.
        """
        self._require_logits()
        return self.draw(
            Draw(
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                uniform=rng.random(),
                mask=mask,
                offsets=offsets,
            )
        )

    def draw(self, draw: Draw) -> int:
        """The next id as `draw` says, without feeding it; ValueError when nothing is allowed or nothing was fed."""
        self._require_draw(draw)
        return self._model.runner.sample(self._memory, draw)

    def nats(self, token: int) -> float:
        """-log p(token) under the logits as they are, unmasked, at temperature 1."""
        self._checked((token,))
        return sample_cpu.nats(self._memory.logits, token)

    def _require_logits(self) -> None:
        if not self._count:
            raise ValueError("nothing was fed to this timeline, so it foretells nothing")

    def _require_draw(self, draw: Draw) -> None:
        self._require_logits()
        vocabulary = (self._model.vocab_size,)
        if draw.mask is not None and draw.mask.shape != vocabulary:
            raise ValueError(f"the mask has shape {draw.mask.shape}, but the vocabulary {vocabulary}")
        if draw.offsets is not None and draw.offsets.shape != vocabulary:
            raise ValueError(f"the offsets have shape {draw.offsets.shape}, but the vocabulary {vocabulary}")

    def _require(self, model: LoadedModel) -> None:
        if model is not self._model:
            raise ValueError("timelines of different models do not mix")

    def _checked(self, ids: Sequence[int]) -> npt.NDArray[np.int32]:
        if len(ids) == 1 and 0 <= ids[0] < self._model.vocab_size:  # one by one is how an answer is written
            return np.array((ids[0],), np.int32)
        array = np.asarray(ids, np.int64)
        if array.min() < 0 or array.max() >= self._model.vocab_size:
            wrong = next(token for token in ids if not 0 <= token < self._model.vocab_size)
            raise ValueError(f"id {wrong} is not in the vocabulary of 0 to {self._model.vocab_size - 1}")
        return array.astype(np.int32)


class FeedingTogether:
    """Ids on their way into several timelines of one model, in slices; a count moves on when all is fed."""

    __slots__ = ("_feeds", "_running")

    def __init__(self, feeds: Sequence[tuple[Timeline, Sequence[int]]]) -> None:
        """ValueError when an id is not in the vocabulary, the models differ, or a timeline comes twice."""
        model = feeds[0][0].model
        if len({id(timeline) for timeline, _ in feeds}) < len(feeds):
            raise ValueError("a timeline cannot be fed twice at once")
        checked = []
        for timeline, ids in feeds:
            timeline._require(model)
            checked.append(Feed(memory=timeline._memory, ids=timeline._checked(ids)))
        self._feeds = feeds
        self._running: Running = model.runner.begin(checked)

    def advance(self, budget_ns: int) -> bool:
        """Work for about `budget_ns`; gives whether all is fed."""
        if not self._running.advance(budget_ns):
            return False
        for timeline, ids in self._feeds:
            timeline._count += len(ids)
        return True


def feed_together(feeds: Sequence[tuple[Timeline, Sequence[int]]]) -> None:
    """Append ids, one at least, to each of several timelines of one model, at once; see `FeedingTogether`."""
    FeedingTogether(feeds).advance(_NO_END_NS)


def draw_together(draws: Sequence[tuple[Timeline, Draw]]) -> list[int]:
    """The next id of each of several timelines of one model, see `Timeline.draw`."""
    for timeline, draw in draws:
        timeline._require_draw(draw)
    return draws[0][0].model.runner.sample_all([timeline._memory for timeline, _ in draws], [draw for _, draw in draws])
