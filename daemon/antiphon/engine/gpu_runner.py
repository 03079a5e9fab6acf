"""A model on a GPU: every memory a slot of one store, feeds packed into slabs, slices timed by the device's own clock.

It runs on any device of PyTorch's, without Triton in plain PyTorch, which is slow; a CPU serves to test it. All work
goes to one stream, so that a memory may be copied, freed or read as soon as what fills it has been asked for.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from antiphon.engine import gpu_operations, gpu_rwkv456, gpu_weights
from antiphon.engine.gpu_network import MOST_ROWS, PIECE_WEIGHTS, B, Network, Part, Passage, Size, Store, Weights
from antiphon.engine.gpu_proof import Difference, proven
from antiphon.engine.gpu_rwkv7 import Network7
from antiphon.engine.gpu_sampling import sample_on
from antiphon.engine.gpu_weights import Tensors
from antiphon.engine.runner import Draw, Feed, Floats, Memory
from antiphon.model.precision import Precision
from antiphon.model.spec import Version

log = logging.getLogger(__name__)

CHUNK = 64
"""Rows of a slab that reads more than one id of a sequence."""

FIRST_SLOTS = 16
"""Memories that fit before the store grows."""

UNTIMED_NS = 1_500_000.0
"""What a piece is expected to take before it was timed: half of the longest slice."""

WARM = (1, 2, 4, 8, 16)
"""Sequences in the decode slabs that are captured before the first feed comes."""


class GpuMemory:
    """A slot of the store, given back when nobody holds the memory any more."""

    __slots__ = ("__weakref__", "_runner", "slot")

    def __init__(self, runner: GpuRunner, slot: int) -> None:
        self._runner = runner
        self.slot = slot
        weakref.finalize(self, runner.free.append, slot)

    @property
    def state(self) -> Floats:
        return self._runner.numbers(self._runner.store.states[self.slot])

    @property
    def logits(self) -> Floats:
        return self._runner.numbers(self._runner.store.logits[self.slot])

    def copy(self) -> GpuMemory:
        twin = self._runner.take_slot()
        twin.copy_from(self)
        return twin

    def copy_from(self, other: GpuMemory) -> None:
        store = self._runner.store
        with self._runner.at_work():
            store.states[self.slot].copy_(store.states[other.slot])
            store.logits[self.slot].copy_(store.logits[other.slot])

    def load(self, state: Floats, logits: Floats) -> None:
        store = self._runner.store
        with self._runner.at_work():
            store.states[self.slot].copy_(torch.from_numpy(np.ascontiguousarray(state, np.float32)))
            store.logits[self.slot].copy_(torch.from_numpy(np.ascontiguousarray(logits, np.float32)))


class GpuRunner:
    """Runs on one device; everything is called from one thread at a time."""

    def __init__(
        self,
        tensors: Tensors,
        *,
        precision: Precision,
        device: str,
        start_state: Floats | None = None,
        planes: int = 2,
        kernels: bool | None = None,
        graphs: bool = True,
        piece_weights: int = PIECE_WEIGHTS,
    ) -> None:
        """Lay the model out on `device` and prove its kernels.

        planes: how activations of products are rounded, to 8 bits each (float32 weights take them unrounded). kernels:
        whether Triton's are used, None = on a GPU, where Triton is. graphs: whether slabs are captured where they can
        be. piece_weights: how many weights a slice takes at the least.
        """
        self.spec = tensors.spec
        self.precision = precision
        self.differences: list[Difference] = []
        """The kernels that were found to differ from plain PyTorch and are not used."""
        self.free: deque[int] = deque(range(1, FIRST_SLOTS))
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._meter: dict[tuple[Size, int], float] = {}
        self._graphs, self._piece_weights = graphs, piece_weights
        self._start = None if start_state is None else torch.from_numpy(start_state.astype(np.float32))
        with self.at_work():
            self.store = Store(FIRST_SLOTS, self.spec.state_floats, self.spec.vocab_size, self._device)
            operations = self._operations(kernels) or gpu_operations.PLAIN
            planes = 1 if precision is Precision.FP32 else planes
            self._network: Network[Any]
            if self.spec.version is Version.V7:
                self._network = self._made(
                    Network7, gpu_weights.load(tensors, precision, self._device), operations, planes
                )
            else:
                old = gpu_rwkv456.load(tensors, precision, self._device)
                self._network = self._made(gpu_rwkv456.NetworkOld, old, operations, planes)
        self.nbytes = self._network.weights.nbytes

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def vocab_size(self) -> int:
        return self.spec.vocab_size

    @property
    def state_len(self) -> int:
        return self.spec.state_floats

    def new_memory(self) -> GpuMemory:
        memory = self.take_slot()
        with self.at_work():
            state = self.store.states[memory.slot]
            if self._start is not None:
                state.copy_(self._start)
            else:
                state.zero_()
                _begin(state, self.spec.version, self.spec.n_layer, self.spec.n_embd)
            self.store.logits[memory.slot].zero_()
        return memory

    def run(self, feeds: Sequence[Feed]) -> None:
        self.begin(feeds).finish()

    def begin(self, feeds: Sequence[Feed]) -> GpuRunning:
        return GpuRunning(self, feeds)

    def sample(self, memory: Memory, draw: Draw) -> int:
        return self.sample_all([memory], [draw])[0]

    def sample_all(self, memories: Sequence[Memory], draws: Sequence[Draw]) -> list[int]:
        places = [held(memory).slot for memory in memories]
        with self.at_work():
            return sample_on(self.store.logits, places, draws)

    def warm(self) -> None:
        """Compile what decoding a few sequences and reading one needs, and capture it, before anybody waits for it."""
        network = self._network
        with self.at_work():
            if network.captures:
                refused = network.tune(gpu_operations.kernels("linear").tune)
                log.info("%d ways to divide a product gave other bits on this GPU and are not used", refused)
            for count in WARM:
                network.capture(Size(rows=count, sequences=count))
            for rows in (2, 4, 8, 16, 32, CHUNK):
                network.capture(Size(rows=rows, sequences=1))
        memory = self.new_memory()
        self.run([Feed(memory=memory, ids=np.zeros(1, np.int32))])
        self.sample(memory, Draw(temperature=1.0, top_k=3, top_p=0.9, min_p=0.0, uniform=0.5))

    def close(self) -> None:
        self.free.clear()
        if hasattr(self, "_network"):
            del self._network, self.store
        if self._stream is not None:
            self._stream.synchronize()
            torch.cuda.empty_cache()

    def take_slot(self) -> GpuMemory:
        """A memory with whatever its slot held; the store grows when none is free."""
        if not self.free:
            slots = self.store.states.shape[0]
            with self.at_work():
                self.store.grow(2 * slots)
                self._network.forget_graphs()
            self.free.extend(range(slots, 2 * slots))
        return GpuMemory(self, self.free.popleft())

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """On this runner's device and stream."""
        if self._stream is None:
            yield
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def numbers(self, tensor: Tensor) -> Floats:
        """A copy of device memory, when all that was asked for is done."""
        with self.at_work():
            array: Floats = tensor.cpu().numpy().copy()
        return array

    def passage(self, parts: Sequence[Part]) -> Passage:
        return self._network.begin(parts)

    def expected_ns(self, piece: tuple[Size, int]) -> float:
        """What a piece took when last timed, or a guess."""
        return self._meter.get(piece, UNTIMED_NS)

    def took(self, pieces: Sequence[tuple[Size, int]], elapsed_ns: float) -> None:
        """Learn how long pieces take from what a slice of them took."""
        share = elapsed_ns / sum(self.expected_ns(piece) for piece in pieces)
        for piece in set(pieces):
            now = self.expected_ns(piece) * share
            self._meter[piece] = (self._meter.get(piece, now) + now) / 2

    def stopwatch(self) -> _Stopwatch:
        return _Stopwatch(self._stream)

    def _made(
        self, kind: type[Network[B]], weights: Weights[B], operations: gpu_operations.Operations, planes: int
    ) -> Network[B]:
        """The network, of kernels that are proven on these weights."""
        if operations is not gpu_operations.PLAIN:
            operations, self.differences = proven(kind, weights, operations, planes=planes)
        return kind(
            weights,
            self.store,
            planes=planes,
            operations=operations,
            graphs=self._graphs,
            piece_weights=self._piece_weights,
        )

    def _operations(self, kernels: bool | None) -> gpu_operations.Operations | None:
        if kernels is False or (kernels is None and self._device.type != "cuda"):
            return None
        found = gpu_operations.fast(self.spec.head_size)
        if found is None:
            log.error("this model runs in plain PyTorch, slowly: Triton is not installed")
        return found


@dataclass(slots=True)
class _Reading:
    """How far a feed has been taken."""

    feed: Feed
    at: int = 0


@dataclass(slots=True)
class _Scored:
    """Costs on their way from the device, and the arrays they are for."""

    scores: Tensor
    nats: list[Floats] = field(default_factory=list)


class GpuRunning:
    """Feeds on their way, slab by slab: sequences that want one id first, then chunks of the others."""

    def __init__(self, runner: GpuRunner, feeds: Sequence[Feed]) -> None:
        self._runner = runner
        self._memories = [held(feed.memory) for feed in feeds]  # or a slot could be free before all is read
        self._readings = [_Reading(feed) for feed in feeds]
        self._passage: Passage | None = None
        self._targets: list[Floats | None] = []
        self._scored: list[_Scored] = []
        if len({memory.slot for memory in self._memories}) < len(feeds):
            raise ValueError("a memory comes twice among feeds that run together")

    def advance(self, budget_ns: int) -> bool:
        runner = self._runner
        with runner.at_work():
            watch = runner.stopwatch()
            pieces: list[tuple[Size, int]] = []
            planned = 0.0
            while (piece := self._ahead()) is not None:
                expected = runner.expected_ns(piece)
                if pieces and planned + expected > budget_ns:
                    break
                self._step()
                pieces.append(piece)
                planned += expected
            if pieces:
                runner.took(pieces, watch.elapsed_ns())
            return self._done()

    def finish(self) -> None:
        """All that is left, without waiting for the device, unless costs are wanted."""
        with self._runner.at_work():
            while self._ahead() is not None:
                self._step()
            self._done()

    def _done(self) -> bool:
        if self._ahead() is not None:
            return False
        for scored in self._scored:
            nats = scored.scores.cpu().numpy()
            for target in scored.nats:
                np.copyto(target, nats[: target.size])
                nats = nats[target.size :]
        self._scored.clear()
        return True

    def _ahead(self) -> tuple[Size, int] | None:
        """What the next piece is; begins the next slab when the last one is through."""
        if self._passage is not None and self._passage.ahead is None:
            if self._passage.scores is not None:
                self._settle(self._passage.scores)
            self._passage = None
        if self._passage is None and self._readings:
            self._passage = self._runner.passage(self._slab())
        return None if self._passage is None else self._passage.ahead

    def _step(self) -> None:
        assert self._passage is not None
        self._passage.step()

    def _settle(self, scores: Tensor) -> None:
        """Keep costs until all is read, so that nothing waits for the device in between."""
        assert self._passage is not None
        row = 0
        for part, target in zip(self._passage.parts, self._targets, strict=True):
            if target is not None:
                self._scored.append(_Scored(scores[row : row + part.ids.size], [target]))
            row += part.ids.size

    def _slab(self) -> list[Part]:
        """The next slab: all sequences with one id left, or chunks of those with more."""
        parts: list[Part] = []
        self._targets = []
        single = [reading for reading in self._readings if reading.feed.ids.size - reading.at == 1]
        taken = single[:MOST_ROWS] or self._readings
        room = MOST_ROWS if single else CHUNK
        for reading in taken:
            if not room:
                break
            feed, at = reading.feed, reading.at
            count = min(room, feed.ids.size - at)
            reading.at += count
            room -= count
            parts.append(
                Part(
                    slot=held(feed.memory).slot,
                    ids=feed.ids[at : at + count],
                    ends=reading.at == feed.ids.size,
                    scored=feed.nats is not None,
                )
            )
            self._targets.append(None if feed.nats is None else feed.nats[at : at + count])
        self._readings = [reading for reading in self._readings if reading.at < reading.feed.ids.size]
        return parts


class _Stopwatch:
    """Time on the device: of what was asked for since it was made."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self._began_ns = time.perf_counter_ns()
        if stream is not None:
            self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._begin.record(stream)

    def elapsed_ns(self) -> float:
        """Waits for the device."""
        if self._stream is None:
            return float(time.perf_counter_ns() - self._began_ns)
        self._end.record(self._stream)
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end) * 1e6)


def held(memory: Memory) -> GpuMemory:
    """`memory` as one of a GPU; TypeError for another's."""
    if not isinstance(memory, GpuMemory):
        raise TypeError(f"a memory of another device: {type(memory).__name__}")
    return memory


def _begin(state: Tensor, version: Version, layers: int, width: int) -> None:
    """An RWKV-4 keeps the largest exponent so far, which begins below all others."""
    if version is Version.V4:
        state.view(layers, 5, width)[:, 3] = -1e30
