"""A model on the processor: weights packed once, every memory one array, feeds run as slabs through one program."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from antiphon.engine.runner import Draw, Feed, Floats, Memory
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.held import HeldWeights
from antiphon.model.precision import Precision
from antiphon.model.quantize import quantize_int8
from antiphon.model.source import Source
from antiphon.model.spec import ModelSpec
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.program import any_version
from antiphon_kernels.program.crew import Crew
from antiphon_kernels.program.given import Given
from antiphon_kernels.program.hot import Step
from antiphon_kernels.program.ops import MAX_ROWS, Program
from antiphon_kernels.program.slab import Scratch, Segment, Slab, cut, feed
from antiphon_kernels.sample import numba_cpu as sample_cpu

SHARED_BYTES = 16 << 20
"""Weights above this, which no core keeps in a cache of its own, are by default read by more than one thread: a smaller
model is soon done on one, and leaves the other cores to the ports and the rest."""

_TRUST = 0.3  # how much the newest slice counts in what its operations are expected to take
_MOST_OFF = 4.0  # by how much one slice may be slower or faster than expected and be believed
_EXACT_ROWS = 8  # up to here slabs are timed by their number of rows, above by eights
_MOST_SPARES = 4

Costs = npt.NDArray[np.float64]


class CpuMemory:
    """State and logits in one array, so that a copy is one copy."""

    __slots__ = ("_numbers", "logits", "logits_at", "state", "state_at")

    def __init__(self, numbers: Floats, state_len: int) -> None:
        self._numbers = numbers
        self.state = numbers[:state_len]
        self.logits = numbers[state_len:]
        self.state_at = numbers.ctypes.data
        self.logits_at = self.state_at + 4 * state_len

    def copy(self) -> CpuMemory:
        return CpuMemory(self._numbers.copy(), self.state.size)

    def copy_from(self, other: CpuMemory) -> None:
        np.copyto(self._numbers, other._numbers)

    def load(self, state: Floats, logits: Floats) -> None:
        np.copyto(self.state, state)
        np.copyto(self.logits, logits)


class CpuRunner:
    """Runs on the caller's thread, and on `threads` - 1 more where that pays.

    Different memories may be run from different threads at the same time; the other threads then help whoever came
    first. No bit depends on it.
    """

    def __init__(
        self, *, spec: ModelSpec, program: Program, start_state: Floats | None = None, threads: int | None = None
    ) -> None:
        self.spec = spec
        self.device = "cpu"
        self.vocab_size = program.vocab_size
        self.state_len = program.state_len
        self.nbytes = program.nbytes
        self.program = program
        self._start = program.start if start_state is None else start_state
        if threads is None:
            threads = torch.get_num_threads() if program.bytes_per_token > SHARED_BYTES else 1
        self._crew = Crew(threads)
        self._together = Step(program, threads=threads) if threads > 1 else None
        self._crew_lock = threading.Lock()
        self._own = threading.local()
        self._op_ns: dict[int, Costs] = {}  # what each operation takes, by the rows of a slab, as far as it is known
        self._spares: dict[int, Scratch] = {}  # by their rows

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, start_state: Floats | None = None, threads: int | None = None) -> CpuRunner:
        """Pack a checkpoint; one that is not in int8 is quantized first."""
        if checkpoint.tensors["emb.weight"].dtype != torch.int8:
            checkpoint = quantize_int8(checkpoint)
        tensors = {
            name: (tensor if tensor.dtype == torch.int8 else tensor.float()).numpy()
            for name, tensor in checkpoint.tensors.items()
        }
        program = any_version.build(Given(tensors), interleave=vnni_bits() > 0)
        return cls(spec=checkpoint.spec, program=program, start_state=start_state, threads=threads)

    @classmethod
    def of_source(
        cls,
        source: Source,
        precision: Precision,
        *,
        start_state: Floats | None = None,
        threads: int | None = None,
        interleave: bool | None = None,
    ) -> CpuRunner:
        """Lay an opened model out in `precision`, one tensor after another. Raises FileError.

        interleave: whether for the byte products of this processor, None = where it has them.
        """
        interleave = vnni_bits() > 0 if interleave is None else interleave
        program = any_version.build(HeldWeights(source, precision), interleave=interleave, ln_x_eps=source.ln_x_eps)
        return cls(spec=source.spec, program=program, start_state=start_state, threads=threads)

    @property
    def threads(self) -> int:
        """Threads that share a slab, the caller's included."""
        return self._crew.threads

    def new_memory(self) -> CpuMemory:
        numbers = np.zeros(self.state_len + self.vocab_size, np.float32)
        numbers[: self.state_len] = self._start
        return CpuMemory(numbers, self.state_len)

    def run(self, feeds: Sequence[Feed]) -> None:
        if len(feeds) == 1 and feeds[0].nats is None and feeds[0].ids.size == 1:
            self._step(int(feeds[0].ids[0]), held(feeds[0].memory))
            return
        segments = [segment_of(feed) for feed in feeds]
        if self._crew.threads > 1 and self._crew_lock.acquire(blocking=False):
            try:
                feed(self.program, segments, crew=self._crew)
            finally:
                self._crew_lock.release()
        else:
            feed(self.program, segments)

    def begin(self, feeds: Sequence[Feed]) -> CpuRunning:
        return CpuRunning(self, [segment_of(feed) for feed in feeds])

    def slab(self, segments: Sequence[Segment]) -> Slab:
        """A slab of `segments`, in the scratch memory of an earlier one of as many rows where there is one."""
        rows = sum(segment.ids.size for segment in segments)
        return Slab(self.program, segments, threads=self.threads, scratch=self._spares.pop(rows, None))

    def give_back(self, scratch: Scratch) -> None:
        """Keep the memory of a slab that is done for the next one: new memory costs milliseconds to touch.

        Of more kinds than are kept, the one that was used longest ago goes.
        """
        self._spares.pop(scratch.rows, None)
        while len(self._spares) >= _MOST_SPARES:
            self._spares.pop(next(iter(self._spares)), None)
        self._spares[scratch.rows] = scratch

    def advance(self, slab: Slab, budget_ns: int) -> None:
        """Run `slab` on for `budget_ns` by what its operations took before, one operation at the least.

        Returns early before an operation that was never timed, which then runs alone.
        """
        expected = self._expected_ns(slab.rows)[slab.at :]
        # From the first operation that is not known on, sums are no numbers, and those count as beyond any budget.
        count = max(1, int(np.searchsorted(np.cumsum(expected), budget_ns, side="right")))
        began_ns = time.perf_counter_ns()
        # A slab of one row is never handed from one thread to more, nor back.
        if self._crew.threads > 1 and self._crew_lock.acquire(blocking=slab.rows == 1):
            try:
                slab.run(slab.at + count, crew=self._crew)
            finally:
                self._crew_lock.release()
        else:
            slab.run(slab.at + count)
        took_ns = time.perf_counter_ns() - began_ns
        ran = expected[:count]
        if np.isnan(ran[0]):
            ran[0] = took_ns
        else:  # all of it was known: also what was held up when it was first timed comes right in time
            off = min(max(took_ns / ran.sum(), 1 / _MOST_OFF), _MOST_OFF)
            ran *= 1 + _TRUST * (off - 1)

    def sample(self, memory: Memory, draw: Draw) -> int:
        return draw_from(memory.logits, draw)

    def sample_all(self, memories: Sequence[Memory], draws: Sequence[Draw]) -> list[int]:
        return [self.sample(memory, draw) for memory, draw in zip(memories, draws, strict=True)]

    def warm(self) -> None:
        """Compile the kernels, or load them from disk, so that no timeline has to wait for that."""
        memory = self.new_memory()
        self.run([Feed(memory=memory, ids=np.zeros(1, np.int32))])
        self.run([Feed(memory=memory, ids=np.zeros(3, np.int32))])
        full = self.begin([Feed(memory=memory, ids=np.zeros(MAX_ROWS, np.int32))])
        while not full.advance(0):  # an operation at a time, so that the first real slices are as short as later ones
            pass
        sample_cpu.warm(memory.logits)

    def close(self) -> None:
        """End the other threads; the weights go with the runner."""
        self._crew.close()
        if self._together is not None:
            self._together.close()

    def _step(self, token: int, memory: CpuMemory) -> None:
        if self._together is not None and self._crew_lock.acquire(blocking=False):
            try:
                self._together.run(token, memory.state_at, memory.logits_at)
            finally:
                self._crew_lock.release()
            return
        step: Step | None = getattr(self._own, "step", None)
        if step is None:
            step = self._own.step = Step(self.program)
        step.run(token, memory.state_at, memory.logits_at)

    def _expected_ns(self, rows: int) -> Costs:
        """What each operation takes in a slab of about so many rows; NaN where none was timed yet."""
        kind = rows if rows <= _EXACT_ROWS else -(-rows // _EXACT_ROWS) * _EXACT_ROWS
        return self._op_ns.setdefault(kind, np.full(len(self.program.ops), np.nan))


class CpuRunning:
    """Feeds on their way, a slab after another."""

    def __init__(self, runner: CpuRunner, segments: Sequence[Segment]) -> None:
        self._runner = runner
        self._waiting = list(segments)
        self._slab: Slab | None = None

    def advance(self, budget_ns: int) -> bool:
        until_ns = time.perf_counter_ns() + budget_ns
        while True:
            if self._slab is None:
                taken, self._waiting = cut(self._waiting)
                self._slab = self._runner.slab(taken)
            self._runner.advance(self._slab, until_ns - time.perf_counter_ns())
            if self._slab.done:
                self._runner.give_back(self._slab.scratch)
                self._slab = None
                if not self._waiting:
                    return True
            if time.perf_counter_ns() >= until_ns:
                return False


def segment_of(feed: Feed) -> Segment:
    """A feed as the program takes it."""
    memory = held(feed.memory)
    return Segment(state=memory.state, logits=memory.logits, ids=feed.ids, nats=feed.nats)


def draw_from(logits: Floats, draw: Draw) -> int:
    """The id that `draw` takes from `logits` [V]; ValueError when none is allowed or one is not finite."""
    return sample_cpu.sample(
        logits,
        draw.mask,
        temperature=draw.temperature,
        top_k=draw.top_k,
        top_p=draw.top_p,
        min_p=draw.min_p,
        uniform=draw.uniform,
        offsets=draw.offsets,
        seen=draw.seen,
        shifts=draw.shifts,
    )


def held(memory: Memory) -> CpuMemory:
    """`memory` as one of this device; TypeError for another's."""
    if not isinstance(memory, CpuMemory):
        raise TypeError(f"a memory of another device: {type(memory).__name__}")
    return memory
