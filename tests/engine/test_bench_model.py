"""What a model does in a race, and what a token costs it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from antiphon.engine import bench_model
from antiphon.engine.cpu_runner import CpuRunner
from antiphon.engine.runner import Feed
from antiphon.model import reference
from antiphon.model.precision import Precision
from antiphon.model.published import parsed
from antiphon.model.random_weights import RandomSource


@pytest.fixture(scope="module")
def source() -> RandomSource:
    return RandomSource(spec=parsed("2x64x40"), seed=1, dtype=torch.float32)


@pytest.fixture(scope="module")
def weights(source: RandomSource) -> dict[str, torch.Tensor]:
    return {name: source.read(name) for name in source.shapes}


@pytest.fixture(scope="module")
def runner(source: RandomSource) -> Iterator[CpuRunner]:
    runner = CpuRunner.of_source(source, Precision.INT8, threads=1)
    yield runner
    runner.close()


def test_the_ids_to_decode_are_the_models_own_and_the_same_every_time(runner: CpuRunner) -> None:
    ids = bench_model.drawn_ids(runner, 40)
    assert ids.shape == (40,)
    assert list(ids) == list(bench_model.drawn_ids(runner, 40))
    assert len(set(ids.tolist())) > 5
    assert 0 <= ids.min() <= ids.max() < 40


@pytest.mark.parametrize("timelines", [1, 3])
def test_every_time_gives_a_figure(runner: CpuRunner, timelines: int) -> None:
    ids = bench_model.random_ids(runner, 8)
    for run in (
        bench_model.decoding(runner, ids, timelines=timelines, repeats=3),
        bench_model.prefilling(runner, ids, repeats=3),
    ):
        figures = run()
        assert len(figures) == 3
        assert min(figures) > 0


def test_the_definition_leaves_pytorchs_threads_as_they_were(
    runner: CpuRunner, weights: dict[str, torch.Tensor]
) -> None:
    before = torch.get_num_threads()
    ids = bench_model.random_ids(runner, 4)
    run = bench_model.plain(runner.spec, weights, ids, at_once=2, threads=before + 1)
    assert len(run()) == 1
    assert torch.get_num_threads() == before


def test_the_share_of_idle_hidden_units_is_what_the_definition_says(
    runner: CpuRunner, source: RandomSource, weights: dict[str, torch.Tensor]
) -> None:
    ids = bench_model.random_ids(runner, 20)
    units: list[torch.Tensor] = []
    state = reference.pack(reference.zero_state(runner.spec))
    for token in ids:
        _, after = reference.step(runner.spec, weights, int(token), reference.unpack(runner.spec, state))
        last, now = (s.view(2, -1)[:, -64:] for s in (state, reference.pack(after)))
        for layer in range(2):
            mix = weights[f"blocks.{layer}.ffn.x_k"].flatten()
            x = now[layer] + (last[layer] - now[layer]) * mix
            units.append((weights[f"blocks.{layer}.ffn.key.weight"] @ x <= 0).float().mean())
        state = reference.pack(after)
    idle = bench_model.idle_share(runner, source, ids)
    assert idle == pytest.approx(float(torch.stack(units).mean()), abs=0.02)
    assert 0.3 < idle < 0.7


def test_a_token_of_a_larger_batch_reads_a_smaller_share_of_the_weights(runner: CpuRunner) -> None:
    spec = runner.spec
    one, idle, four = (
        bench_model.token_bytes(runner, idle=share, rows=rows) for share, rows in ((0.0, 1), (1.0, 1), (1.0, 4))
    )
    state = 4 * runner.state_len
    assert one > state + spec.n_layer * 12 * spec.n_embd**2
    assert one - idle == pytest.approx(spec.n_layer * 4 * spec.n_embd**2, rel=0.02)
    assert four - state == pytest.approx((one - state) / 4, abs=1)


def test_operations_are_two_for_every_weight_that_is_multiplied() -> None:
    spec = parsed("0.1B")
    # engines.md's figure for the body: 2 x 90 million, and the head.
    body = bench_model.operations(spec) - 2 * spec.vocab_size * spec.n_embd
    assert body / 2e6 == pytest.approx(90, abs=1)


def test_costs_are_told_for_one_timeline(runner: CpuRunner) -> None:
    costs = bench_model.costs(runner)
    assert costs.fork_us > 0
    assert costs.sample_us > 0
    assert costs.state_bytes == 4 * runner.spec.state_floats
    assert costs.weights_bytes == runner.nbytes
    memory = runner.new_memory()
    runner.run([Feed(memory=memory, ids=np.zeros(1, np.int32))])
    assert np.isfinite(memory.logits).all()
