"""What a model does in a race: decode one timeline, prefill one, decode a batch; and how many bytes a token costs it.

Every time begins on empty timelines. Ids are fed and logits come out; nothing is sampled, as with other engines' own
benchmarks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.cpu_runner import CpuRunner
from antiphon.engine.runner import Draw, Feed, Floats, Ids, Runner
from antiphon.model import reference
from antiphon.model.spec import ModelSpec, Version
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.format import LEVELS
from antiphon_kernels.linear.layout import sizes_of

Run = Callable[[], Sequence[float]]

SLAB = 64
"""Rows that share a reading of the weights, at most (antiphon_kernels.program.ops.MAX_ROWS)."""

_SEED = 1
_TEMPERATURE, _TOP_P = 1.0, 0.98
_LOOKED_AT = 32  # ids by which the share of idle hidden units is judged
_TIMES = 300  # of what takes microseconds


class Tensors(Protocol):
    """Where a runner's weights came from, as far as it is looked at here."""

    @property
    def spec(self) -> ModelSpec: ...

    def read(self, name: str) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What else a model costs; times are medians."""

    fork_us: float
    sample_us: float
    state_bytes: int
    weights_bytes: int


def costs(runner: Runner) -> Costs:
    """Copy a memory that has heard something, and draw from it, many times over."""
    memory, draw = runner.new_memory(), _draw(0.5)
    runner.run([Feed(memory=memory, ids=random_ids(runner, 16))])
    return Costs(
        fork_us=_median_us(memory.copy),
        sample_us=_median_us(lambda: runner.sample(memory, draw)),
        state_bytes=4 * runner.state_len,
        weights_bytes=runner.nbytes,
    )


def _draw(uniform: float) -> Draw:
    return Draw(temperature=_TEMPERATURE, top_k=0, top_p=_TOP_P, min_p=0.0, uniform=uniform)


def _median_us(call: Callable[[], object]) -> float:
    figures = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        call()
        figures.append(time.perf_counter() - began)
    return round(statistics.median(figures) * 1e6, 1)


def drawn_ids(runner: Runner, count: int) -> Ids:
    """Ids that the model drew itself: on others, its hidden units would be zero less often than in real use."""
    memory, rng, ids = runner.new_memory(), np.random.default_rng(_SEED), np.zeros(count, np.int32)
    for at in range(1, count):
        runner.run([Feed(memory=memory, ids=ids[at - 1 : at])])
        ids[at] = runner.sample(memory, _draw(rng.random()))
    return ids


def random_ids(runner: Runner, count: int) -> Ids:
    """Any ids: to random weights they are as good as others."""
    return np.random.default_rng(_SEED).integers(0, runner.vocab_size, count, np.int32)


def decoding(runner: Runner, ids: Ids, *, timelines: int, repeats: int) -> Run:
    """Tokens a second, of all together, when `timelines` are fed `ids` side by side, one id each at a time."""

    def once() -> float:
        memories = [runner.new_memory() for _ in range(timelines)]
        began = time.perf_counter()
        for at in range(ids.size):
            runner.run([Feed(memory=memory, ids=ids[at : at + 1]) for memory in memories])
        _ = memories[-1].logits  # waits for a GPU
        return timelines * ids.size / (time.perf_counter() - began)

    return lambda: [once() for _ in range(repeats)]


def prefilling(runner: Runner, ids: Ids, *, repeats: int) -> Run:
    """Tokens a second of all `ids` fed at once."""

    def once() -> float:
        memory = runner.new_memory()
        began = time.perf_counter()
        runner.run([Feed(memory=memory, ids=ids)])
        _ = memory.logits  # waits for a GPU
        return ids.size / (time.perf_counter() - began)

    return lambda: [once() for _ in range(repeats)]


def plain(spec: ModelSpec, weights: Mapping[str, Tensor], ids: Ids, *, at_once: int, threads: int) -> Run:
    """Tokens a second of the definition in PyTorch on float32 `weights`, `at_once` ids a call."""

    def run() -> list[float]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                tokens, state = torch.from_numpy(ids.astype(np.int64)), None
                began = time.perf_counter()
                for part in tokens.split(at_once):
                    _, state = reference.sequence(spec, weights, part, state)
                return [ids.size / (time.perf_counter() - began)]
        finally:
            torch.set_num_threads(before)

    return run


def idle_share(runner: Runner, source: Tensors, ids: Ids) -> float:
    """Share of the channel mix's hidden units that are zero on `ids`, whose weights a step may skip.

    `source` is what the runner was made of. The state tells what the hidden units saw: its last numbers for a layer.
    """
    spec, memory = runner.spec, runner.new_memory()
    inputs = []
    for at in range(min(ids.size, _LOOKED_AT)):
        inputs.append(_channel_inputs(spec, memory.state))
        runner.run([Feed(memory=memory, ids=ids[at : at + 1])])
    seen = torch.from_numpy(np.stack([*inputs, _channel_inputs(spec, memory.state)]))
    last, now, idle = seen[:-1], seen[1:], 0.0
    for layer in range(spec.n_layer):
        x = _shifted(source, f"blocks.{layer}.ffn", last[:, layer], now[:, layer])
        hidden = torch.relu(x @ source.read(f"blocks.{layer}.ffn.key.weight").float().T) ** 2
        peak = hidden.amax(dim=1, keepdim=True).clamp(min=1e-30)
        idle += float((hidden / peak * LEVELS < 0.5).float().mean())  # these round to zero
    return idle / spec.n_layer


def token_bytes(runner: Runner, *, idle: float, rows: int) -> int:
    """Bytes that a token reads when `rows` share a reading: its part of the weights, and a state of its own.

    idle: share of the hidden units whose weights are skipped, which happens only to one row alone, and only where the
    weights lie so that they can be.
    """
    weights, skippable = _weights_bytes(runner)
    if rows == 1:
        weights -= round(idle * skippable)
    return weights // rows + 4 * runner.state_len


def _weights_bytes(runner: Runner) -> tuple[int, int]:
    """(bytes of weights that a token reads, how many of them belong to hidden units)."""
    spec = runner.spec
    if not isinstance(runner, CpuRunner):
        return runner.nbytes - spec.vocab_size * spec.n_embd, 0
    program = runner.program
    by_input = [row for row in program.matrices if row[fmt.ORDER] == fmt.BY_INPUT]
    skippable = sum(
        sizes_of(int(row[fmt.FORMAT]), int(row[fmt.OUTPUTS]), int(row[fmt.INPUTS]), order=fmt.BY_INPUT)[0]
        for row in by_input
    )
    return program.bytes_per_token + program.floats.nbytes, skippable


def operations(spec: ModelSpec) -> int:
    """Multiplications and additions in the matrices that one token goes through, the head included."""
    return 2 * _multiplied(spec)


def _multiplied(spec: ModelSpec) -> int:
    """Weights of all matrices but the embedding."""
    return sum(
        shape[0] * shape[1]
        for name, shape in spec.shapes().items()
        if len(shape) == 2 and name != "emb.weight" and not name.endswith("r_k")
    )


def _channel_inputs(spec: ModelSpec, state: Floats) -> Floats:
    """What the channel mix of each layer was last fed [L, D]."""
    return state.reshape(spec.n_layer, -1)[:, -spec.n_embd :].copy()


def _shifted(source: Tensors, ffn: str, last: Tensor, now: Tensor) -> Tensor:
    """What the hidden units see of two tokens: RWKV-4 and 5 say how much of the present one, others of the last."""
    version = source.spec.version
    name = {Version.V7: "x_k", Version.V6: "time_maa_k"}.get(version, "time_mix_k")
    mix = source.read(f"{ffn}.{name}").float().flatten()
    return now + (last - now) * (1 - mix if name == "time_mix_k" else mix)
