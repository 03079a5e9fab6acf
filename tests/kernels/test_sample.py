from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_kernels.sample import numba_cpu, reference

FORMS = [reference.sample, numba_cpu.sample]
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 2, 37, 410]),
    temperature=st.sampled_from([0.0, 0.1, 0.95, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 1000]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    uniform=st.floats(0, 1, exclude_max=True),
    allowed=st.sampled_from([None, 0.1, 0.7]),
    ties=st.booleans(),
)
def test_the_fast_form_draws_what_the_reference_draws(
    seed: int, size: int, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float,
    allowed: float | None, ties: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal(size)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    mask = None if allowed is None else rng.random(size) < allowed
    if mask is not None:
        mask[rng.integers(size)] = True
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "uniform": uniform}
    chosen = numba_cpu.sample(logits, mask, **cuts)
    assert chosen == reference.sample(logits, mask, **cuts)
    assert mask is None or mask[chosen]


@pytest.mark.parametrize("sample", FORMS)
def test_draws_as_often_as_the_probabilities_say(sample: object) -> None:
    assert callable(sample)
    logits = np.array([1.0, 0.0, 2.0, -1.0, 5.0], np.float32)
    mask = np.array([True, True, True, True, False])
    rng = np.random.default_rng(0)
    draws = [sample(logits, mask, **PLAIN | {"temperature": 0.7}, uniform=rng.random()) for _ in range(20_000)]
    weights = np.where(mask, np.exp(logits / 0.7), 0)
    expected = weights / weights.sum() * len(draws)
    counts = np.bincount(draws, minlength=5)
    assert counts[4] == 0
    chi2 = ((counts - expected)[mask] ** 2 / expected[mask]).sum()
    assert chi2 < 16.3  # 3 degrees of freedom, p = 0.001; the seed makes it one draw for good


@pytest.mark.parametrize("sample", FORMS)
def test_cuts_come_in_the_order_temperature_top_k_min_p_top_p(sample: object) -> None:
    assert callable(sample)
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))

    def reachable(**cuts: float) -> set[int]:
        return {sample(logits, None, **PLAIN | cuts, uniform=u) for u in np.linspace(0, 0.999, 200)}

    assert reachable() == {0, 1, 2, 3}
    assert reachable(top_k=3) == {0, 1, 2}
    assert reachable(top_p=0.39) == {0}
    assert reachable(top_p=0.41) == {0, 1}  # the first above the threshold stays
    assert reachable(top_p=0.0) == {0}
    assert reachable(min_p=0.6) == {0, 1}
    assert reachable(top_k=2, top_p=0.5) == {0}  # of what top-k left, 0 has 4/7: 0.571 > 0.5
    assert reachable(top_k=3, top_p=0.5) == {0, 1}  # 4/9 is not above 0.5 yet
    assert reachable(min_p=0.6, top_p=0.5) == {0}
    assert reachable(temperature=0.25, top_p=0.7) == {0}  # (0.4/0.3)^4: 0 has 0.716, so temperature came first
    assert reachable(temperature=0) == {0}


@pytest.mark.parametrize("sample", FORMS)
def test_refuses_what_cannot_be_drawn_from(sample: object) -> None:
    assert callable(sample)
    logits = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="allows no id"):
        sample(logits, np.zeros(4, np.bool_), **PLAIN, uniform=0.5)
    with pytest.raises(ValueError, match="allows no id"):
        sample(np.full(4, -np.inf, np.float32), None, **PLAIN, uniform=0.5)
    for bad in (np.nan, np.inf):
        logits[2] = bad
        with pytest.raises(ValueError, match="not finite"):
            sample(logits, None, **PLAIN, uniform=0.5)
        only = np.array([True, True, False, False])
        assert sample(logits, only, **PLAIN, uniform=0.9) == 1


def test_a_read_only_or_strided_mask_serves_as_well() -> None:
    logits = np.arange(6, dtype=np.float32)
    wide = np.array([True, False] * 6)
    frozen = np.array([True, True, False, False, False, False])
    frozen.flags.writeable = False
    assert numba_cpu.sample(logits, frozen, **PLAIN | {"temperature": 0}, uniform=0) == 1
    assert numba_cpu.sample(logits, wide[::2], **PLAIN | {"temperature": 0}, uniform=0) == 5


def test_nats_are_the_negative_log_of_the_softmax() -> None:
    rng = np.random.default_rng(3)
    for size in (1, 7, 410):
        logits = (10 * rng.standard_normal(size)).astype(np.float32)
        for chosen in (0, size - 1):
            expected = reference.nats(logits, chosen)
            assert numba_cpu.nats(logits, chosen) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(numba_cpu.nats(np.array([0, np.nan], np.float32), 0))
