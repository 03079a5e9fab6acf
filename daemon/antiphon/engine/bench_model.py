"""What a model does in a race: decode one timeline, prefill one, decode a batch; and how many bytes a token costs it.

Every time begins on empty timelines. Ids are fed and logits come out; nothing is sampled, as with other engines' own
benchmarks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.runner import Draw, Feed, Floats, Ids, Runner
from antiphon.model import rwkv7
from antiphon.model.spec import ModelSpec, Version

Run = Callable[[], Sequence[float]]

SLAB = 64
"""Rows that share a reading of the weights, at most (antiphon_kernels.program.ops.MAX_ROWS)."""

_SEED = 1
_TEMPERATURE, _TOP_P = 1.0, 0.98
_LOOKED_AT = 32  # ids by which the share of idle hidden units is judged
_TIMES = 300  # of what takes microseconds
_LEVELS = 127 * 256 + 127  # see antiphon_kernels.linear


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
        return timelines * ids.size / (time.perf_counter() - began)

    return lambda: [once() for _ in range(repeats)]


def prefilling(runner: Runner, ids: Ids, *, repeats: int) -> Run:
    """Tokens a second of all `ids` fed at once."""

    def once() -> float:
        memory = runner.new_memory()
        began = time.perf_counter()
        runner.run([Feed(memory=memory, ids=ids)])
        return ids.size / (time.perf_counter() - began)

    return lambda: [once() for _ in range(repeats)]


def plain(weights: Mapping[str, Tensor], ids: Ids, *, at_once: int, threads: int) -> Run:
    """Tokens a second of the definition in PyTorch on float32 `weights` of an RWKV-7, `at_once` ids a call."""

    def run() -> list[float]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                tokens, state = torch.from_numpy(ids.astype(np.int64)), None
                began = time.perf_counter()
                for part in tokens.split(at_once):
                    _, state = rwkv7.sequence(weights, part, state)
                return [ids.size / (time.perf_counter() - began)]
        finally:
            torch.set_num_threads(before)

    return run


def idle_share(runner: Runner, tensors: Mapping[str, Tensor], ids: Ids) -> float:
    """Share of the channel mix's hidden units that are zero on `ids`, so that the step skips their weights.

    `tensors` are those that the runner was made of. Only for RWKV-7, where the state tells what the hidden units saw.
    """
    spec, memory = runner.spec, runner.new_memory()
    idle = units = 0
    for at in range(min(ids.size, _LOOKED_AT)):
        before = _channel_inputs(spec, memory.state)
        runner.run([Feed(memory=memory, ids=ids[at : at + 1])])
        for layer, (last, now) in enumerate(zip(before, _channel_inputs(spec, memory.state), strict=True)):
            ffn = f"blocks.{layer}.ffn"
            x = now + (last - now) * tensors[f"{ffn}.x_k"].float().flatten()
            hidden = torch.relu(_times(tensors, f"{ffn}.key.weight", x)) ** 2
            idle += int((hidden / hidden.max() * _LEVELS < 0.5).sum())  # these round to zero
            units += spec.ffn_dim
    return idle / units


def token_bytes(runner: Runner, *, idle: float, rows: int) -> int:
    """Bytes that a token reads when `rows` share a reading: its part of the weights, and a state of its own.

    The embedding is left out: a token reads one row of it. idle: share of the hidden units whose weights are skipped,
    which happens only to one row alone.
    """
    spec = runner.spec
    weights = runner.nbytes - spec.vocab_size * spec.n_embd
    if rows == 1:
        weights -= round(idle * weights * spec.ffn_dim * spec.n_embd * spec.n_layer / _multiplied(spec))
    return weights // rows + 4 * runner.state_len


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


def _channel_inputs(spec: ModelSpec, state: Floats) -> list[Tensor]:
    """What the channel mix of each layer was last fed."""
    if spec.version is not Version.V7:
        raise ValueError(f"the hidden units of an RWKV-{spec.version} cannot be told from its state")
    return [layer.ffn_x for layer in rwkv7.unpack(spec, torch.from_numpy(state.copy()))]


def _times(tensors: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    scale = tensors.get(f"{name}.scale")
    outputs = tensors[name].float() @ x
    return outputs if scale is None else outputs * scale
