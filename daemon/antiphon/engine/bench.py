"""How fast a model decodes on this machine, beside the plain PyTorch step: contenders take turns in one run.

Other work on the machine slows whoever happens to run, so every contender runs in every round, and both the median
and the best round are told.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampling import Sampling
from antiphon.engine.timeline import Timeline
from antiphon.model import checkpoint as checkpoints
from antiphon.model import rwkv7
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize

OUR_TOKENS = 256  # per round: some 60 ms
PLAIN_TOKENS = 16  # per round: some 100 ms
REPEATS = 300  # of what takes microseconds
USUAL = Sampling(temperature=1.0, top_p=0.98)
_SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to decode: `decode(tokens)` takes `tokens` steps on each of `timelines` timelines."""

    name: str
    threads: int
    timelines: int
    tokens: int
    decode: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A contender's tokens a second, over all of its timelines, one figure per round."""

    name: str
    threads: int
    timelines: int
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        return max(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `measure` found; times in their units are medians."""

    speeds: tuple[Speed, ...]
    open_s: float
    fork_us: float
    sample_us: float
    state_bytes: int
    packed_bytes: int


def measure(path: Path, *, rounds: int = 9, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Open the model at `path` and race the ways to decode it; `progress` hears of every round done."""
    began = time.perf_counter()
    model = LoadedModel.open(path)
    open_s = time.perf_counter() - began
    ids = drawn_ids(model, OUR_TOKENS)
    contenders = contenders_of(model, checkpoints.read(path), ids)
    for contender in contenders:
        contender.decode(2)
    speeds: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds):
        for contender, figures in zip(contenders, speeds, strict=True):
            began = time.perf_counter()
            contender.decode(contender.tokens)
            figures.append(contender.tokens * contender.timelines / (time.perf_counter() - began))
        progress(number + 1)
    timeline, rng = Timeline(model), np.random.default_rng(_SEED)
    timeline.feed(ids)
    return Report(
        speeds=tuple(
            Speed(name=c.name, threads=c.threads, timelines=c.timelines, rounds=tuple(figures))
            for c, figures in zip(contenders, speeds, strict=True)
        ),
        open_s=open_s,
        fork_us=_median_us(timeline.fork),
        sample_us=_median_us(lambda: timeline.sample(None, USUAL, rng)),
        state_bytes=model.state_bytes,
        packed_bytes=model.packed.nbytes,
    )


def drawn_ids(model: LoadedModel, count: int) -> list[int]:
    """Ids that the model drew itself: on others, its hidden units would be zero less often than in real use."""
    timeline, rng, ids = Timeline(model), np.random.default_rng(_SEED), [0]
    while len(ids) < count:
        timeline.feed(ids[-1:])
        ids.append(timeline.sample(None, USUAL, rng))
    return ids


def contenders_of(model: LoadedModel, checkpoint: Checkpoint, ids: Sequence[int]) -> list[Contender]:
    """Our step and the definition, each on one thread and on two, all fed with the first of `ids`."""
    ours, plain, weights = "fast step", "PyTorch step", dequantize(checkpoint).tensors
    return [
        Contender(name=ours, threads=1, timelines=1, tokens=OUR_TOKENS, decode=_ours(model, ids, threads=1)),
        Contender(name=ours, threads=2, timelines=2, tokens=OUR_TOKENS, decode=_ours(model, ids, threads=2)),
        Contender(name=plain, threads=1, timelines=1, tokens=PLAIN_TOKENS, decode=_plain(weights, ids, threads=1)),
        Contender(name=plain, threads=2, timelines=1, tokens=PLAIN_TOKENS, decode=_plain(weights, ids, threads=2)),
    ]


def _ours(model: LoadedModel, ids: Sequence[int], *, threads: int) -> Callable[[int], None]:
    """One id a call, as an answer is written; each thread on a timeline of its own."""
    timelines = [Timeline(model) for _ in range(threads)]

    def decode_on(timeline: Timeline, tokens: int) -> None:
        for token in ids[:tokens]:
            timeline.feed((token,))

    def decode(tokens: int) -> None:
        others = [threading.Thread(target=decode_on, args=(timeline, tokens)) for timeline in timelines[1:]]
        for other in others:
            other.start()
        decode_on(timelines[0], tokens)
        for other in others:
            other.join()

    return decode


def _plain(weights: rwkv7.Weights, ids: Sequence[int], *, threads: int) -> Callable[[int], None]:
    state: rwkv7.State | None = None

    def decode(tokens: int) -> None:
        nonlocal state
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                for token in ids[:tokens]:
                    _, state = rwkv7.step(weights, token, state)
        finally:
            torch.set_num_threads(before)

    return decode


def _median_us(call: Callable[[], object]) -> float:
    figures = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        figures.append(time.perf_counter() - began)
    return statistics.median(figures) * 1e6
