"""What a sampler decides besides chance: S0-041's fields, and the rule of the published music models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampler import Drift, Penalties, Sampler, Style
from antiphon.engine.sampling import GREEDY, Sampling
from antiphon.engine.timeline import Timeline
from antiphon_kernels.sample import reference

SIZE = 200


def write(model: LoadedModel, sampler: Sampler, count: int) -> list[int]:
    timeline, ids = Timeline(model), [1]
    for _ in range(count):
        timeline.feed(ids[-1:])
        ids.append(timeline.draw(sampler.draw()))
        sampler.take(ids[-1])
    return ids[1:]


def test_the_same_seed_writes_the_same_and_another_seed_something_else(model: LoadedModel) -> None:
    def written(seed: int) -> list[int]:
        return write(model, Sampler(vocab_size=51, style=Style(seed=seed)), 40)

    assert written(1) == written(1)
    assert written(1) != written(2)


def test_a_fork_goes_on_as_the_sampler_would_and_leaves_it_alone(model: LoadedModel) -> None:
    style = Style(penalties=Penalties(frequency=0.5, decay=0.99), drift=Drift(token=0, first=-1, per_step=0.1), seed=4)
    sampler = Sampler(vocab_size=51, style=style)
    write(model, sampler, 20)
    fork, other = sampler.fork(), sampler.fork()
    following = write(model, fork, 20)
    assert write(model, other, 20) == following
    assert (sampler.drawn, sampler.step) == (20, 20)
    assert write(model, sampler, 20) == following


def test_what_occurred_is_avoided_and_without_penalties_is_not(model: LoadedModel) -> None:
    plain = write(model, Sampler(vocab_size=51, style=Style(sampling=GREEDY)), 200)
    strict = Style(sampling=GREEDY, penalties=Penalties(presence=100.0))
    penalised = write(model, Sampler(vocab_size=51, style=strict), 51)
    assert sorted(penalised) == list(range(51))
    assert len(set(plain)) < 51
    assert penalised[0] == plain[0]


def test_a_bias_forbids_or_forces_an_id(model: LoadedModel) -> None:
    assert set(write(model, Sampler(vocab_size=51, style=Style(biases={7: 1000.0})), 20)) == {7}
    first = write(model, Sampler(vocab_size=51, style=Style(sampling=GREEDY)), 1)[0]
    assert write(model, Sampler(vocab_size=51, style=Style(sampling=GREEDY, biases={first: -1000.0})), 1) != [first]


def test_the_rule_of_the_published_music_models_can_be_said() -> None:
    """Formats 4.6: 0.5 * occurrence less, id 0 drifts from -4 by 1/500 an id, id 127 has -1, counts fade by 0.997."""
    style = Style(
        sampling=Sampling(temperature=1.0, top_k=8, top_p=0.8),
        penalties=Penalties(frequency=0.5, decay=0.997, light_below=127, light_weight=0.3),
        biases={127: -1.0},
        drift=Drift(token=0, first=-4.0, per_step=1 / 500),
        seed=3,
    )
    sampler, rng = Sampler(vocab_size=SIZE, style=style), np.random.default_rng(0)
    occurrence: dict[int, float] = {}
    for step in range(300):
        logits = (3 * rng.standard_normal(SIZE)).astype(np.float32)
        wanted = logits.astype(np.float64)
        for token, count in occurrence.items():
            wanted[token] -= 0.5 * count
        wanted[0] += (step - 2000) / 500
        wanted[127] -= 1
        draw = sampler.draw()
        shifted = logits.copy()
        if draw.seen is not None:
            assert draw.shifts is not None
            shifted[draw.seen] += draw.shifts
        np.testing.assert_allclose(shifted, wanted, atol=1e-4)
        token = reference.sample(
            shifted, None, temperature=1.0, top_k=8, top_p=0.8, min_p=0.0, uniform=reference.uniform(3, step)
        )
        sampler.take(token)
        for seen in occurrence:
            occurrence[seen] *= 0.997
        occurrence[token] = occurrence.get(token, 0.0) + (1 if token >= 127 else 0.3)


def test_a_drift_stays_within_its_bounds_and_can_begin_again() -> None:
    """A live piece has no end: the drift that forces one restarts (formats 4.6)."""
    drift = Drift(token=0, first=-1.0, per_step=0.5, most=2.0)
    assert [drift.at(step) for step in (0, 1, 4, 6, 100)] == [-1.0, -0.5, 1.0, 2.0, 2.0]
    sampler = Sampler(vocab_size=4, style=Style(drift=drift))
    for _ in range(10):
        sampler.take(1)
    shifts = sampler.draw().shifts
    assert shifts is not None
    assert shifts.tolist() == [2.0]
    sampler.restart_drift()
    shifts = sampler.draw().shifts
    assert shifts is not None
    assert shifts.tolist() == [-1.0]


def test_a_prompt_may_count_without_moving_anything_else() -> None:
    """S0-041's global_penalty."""
    sampler = Sampler(vocab_size=5, style=Style(penalties=Penalties(presence=1.0)))
    sampler.count([3, 3])
    draw = sampler.draw()
    assert draw.seen is not None
    assert draw.seen.tolist() == [3]
    assert (sampler.step, sampler.drawn) == (0, 1)


def test_a_sampler_is_only_restored_from_what_belongs_to_its_style() -> None:
    plain, strict = Style(), Style(penalties=Penalties(presence=1.0))
    counts = np.ones(4, np.float32)
    restored = Sampler.restored(vocab_size=4, style=strict, drawn=3, step=2, counts=counts)
    assert (restored.drawn, restored.step) == (3, 2)
    np.testing.assert_array_equal(restored.counts, counts)
    for style, wrong in [(plain, counts), (strict, None), (strict, np.ones(3)), (strict, np.full(4, np.nan))]:
        with pytest.raises(ValueError, match="counts"):
            Sampler.restored(vocab_size=4, style=style, drawn=3, step=2, counts=wrong)
    with pytest.raises(ValueError, match="drawn"):
        Sampler.restored(vocab_size=4, style=plain, drawn=-1, step=0, counts=None)


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        (Penalties, {"presence": math.nan}, "presence"),
        (Penalties, {"frequency": math.inf}, "frequency"),
        (Penalties, {"decay": 0.0}, "decay"),
        (Penalties, {"decay": 1.1}, "decay"),
        (Penalties, {"light_below": -1}, "light_below"),
        (Drift, {"token": -1, "first": 0.0, "per_step": 0.0}, "token"),
        (Drift, {"token": 0, "first": math.nan, "per_step": 0.0}, "first"),
        (Style, {"seed": -1}, "seed"),
        (Style, {"seed": 2**64}, "seed"),
        (Style, {"biases": {-1: 1.0}}, "no id"),
        (Style, {"biases": {1: math.inf}}, "id 1"),
    ],
)
def test_what_no_sampler_can_mean_is_refused_by_name(kind: Any, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind(**wrong)


def test_a_bias_on_what_is_not_in_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="id 9 has a bias"):
        Sampler(vocab_size=9, style=Style(biases={9: 1.0}))
