"""A model on the processor: weights packed once, every memory one array, feeds run by the compiled step."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from antiphon.engine.runner import Draw, Feed, Floats, Memory
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec
from antiphon_kernels.rwkv7_step import numba_cpu
from antiphon_kernels.rwkv7_step.pack import Packed, pack
from antiphon_kernels.sample import numba_cpu as sample_cpu

_UNSCORED = np.zeros(0, np.float32)


class CpuMemory:
    """State and logits in one array, so that a copy is one copy."""

    __slots__ = ("_numbers", "logits", "state")

    def __init__(self, numbers: Floats, state_len: int) -> None:
        self._numbers = numbers
        self.state = numbers[:state_len]
        self.logits = numbers[state_len:]

    @classmethod
    def zeros(cls, state_len: int, vocab_size: int) -> CpuMemory:
        return cls(np.zeros(state_len + vocab_size, np.float32), state_len)

    def copy(self) -> CpuMemory:
        return CpuMemory(self._numbers.copy(), self.state.size)

    def copy_from(self, other: CpuMemory) -> None:
        np.copyto(self._numbers, other._numbers)

    def load(self, state: Floats, logits: Floats) -> None:
        np.copyto(self.state, state)
        np.copyto(self.logits, logits)


class CpuRunner:
    """Runs on one thread, the caller's; different memories may be run from different threads at the same time."""

    def __init__(self, *, spec: ModelSpec, packed: Packed, start_state: Floats | None = None) -> None:
        self.spec = spec
        self.device = "cpu"
        self.vocab_size = spec.vocab_size
        self.state_len = packed.state_len
        self.nbytes = packed.nbytes
        self._packed = packed
        self._start = start_state

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, start_state: Floats | None = None) -> CpuRunner:
        """Pack a checkpoint; one that is not in int8 is quantized first."""
        if checkpoint.tensors["emb.weight"].dtype != torch.int8:
            checkpoint = quantize_int8(checkpoint)
        tensors = {
            name: (tensor if tensor.dtype == torch.int8 else tensor.float()).numpy()
            for name, tensor in checkpoint.tensors.items()
        }
        return cls(spec=checkpoint.spec, packed=pack(tensors), start_state=start_state)

    def new_memory(self) -> CpuMemory:
        memory = CpuMemory.zeros(self.state_len, self.vocab_size)
        if self._start is not None:
            np.copyto(memory.state, self._start)
        return memory

    def run(self, feeds: Sequence[Feed]) -> None:
        for feed in feeds:
            memory = held(feed.memory)
            nats = _UNSCORED if feed.nats is None else feed.nats
            numba_cpu.feed_scored(self._packed, feed.ids, memory.state, memory.logits, nats)

    def begin(self, feeds: Sequence[Feed]) -> CpuRunning:
        return CpuRunning(self, feeds)

    def sample(self, memory: Memory, draw: Draw) -> int:
        return draw_from(memory.logits, draw)

    def sample_all(self, memories: Sequence[Memory], draws: Sequence[Draw]) -> list[int]:
        return [self.sample(memory, draw) for memory, draw in zip(memories, draws, strict=True)]

    def warm(self) -> None:
        """Compile the kernels, or load them from disk, so that no timeline has to wait for that."""
        memory = self.new_memory()
        self.run([Feed(memory=memory, ids=np.zeros(1, np.int32))])
        sample_cpu.warm(memory.logits)

    def close(self) -> None:
        """Nothing to let go of: the weights go with the runner."""


class CpuRunning:
    """Feeds run one id at a time, all of one memory before the next."""

    def __init__(self, runner: CpuRunner, feeds: Sequence[Feed]) -> None:
        self._runner = runner
        self._feeds = list(feeds)
        self._at = 0

    def advance(self, budget_ns: int) -> bool:
        until = time.perf_counter_ns() + budget_ns
        while self._feeds:
            feed, at = self._feeds[0], self._at
            part = slice(at, at + 1)
            nats = None if feed.nats is None else feed.nats[part]
            self._runner.run([Feed(memory=feed.memory, ids=feed.ids[part], nats=nats)])
            self._at += 1
            if self._at == feed.ids.size:
                self._feeds.pop(0)
                self._at = 0
            if time.perf_counter_ns() >= until:
                break
        return not self._feeds


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
