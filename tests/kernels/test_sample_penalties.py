"""Penalties, biases and where chance comes from: the fast forms equal the definition to the bit (S0-041)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon_kernels.sample import numba_cpu, reference

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
FORMS = [reference, numba_cpu]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 37, 410]),
    decay=st.sampled_from([0.5, 0.99, 0.996, 1.0]),
    presence=st.sampled_from([-2.0, 0.0, 0.3, 2.0]),
    frequency=st.sampled_from([-2.0, 0.0, 0.5]),
)
def test_counts_and_shifts_equal_the_definition_to_the_bit(
    seed: int, size: int, decay: float, presence: float, frequency: float
) -> None:
    rng = np.random.default_rng(seed)
    mine, defined = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for token in rng.integers(size, size=20):
        weight = float(rng.choice([0.3, 1.0]))
        numba_cpu.tally(mine, token, weight=weight, decay=decay)
        reference.tally(defined, token, weight=weight, decay=decay)
    np.testing.assert_array_equal(mine, defined)
    biases = np.where(rng.random(size) < 0.2, rng.standard_normal(size), 0).astype(np.float32)
    ids, shifts = numba_cpu.shifts_of(mine, biases, presence=presence, frequency=frequency)
    expected_ids, expected = reference.shifts_of(defined, biases, presence=presence, frequency=frequency)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(shifts, expected)


@pytest.mark.parametrize("form", FORMS)
def test_an_id_counts_in_full_until_the_next_one_and_fades_from_then_on(form: object) -> None:
    counts = np.zeros(4, np.float32)
    form.tally(counts, 2, weight=1.0, decay=0.5)  # type: ignore[attr-defined]
    assert counts.tolist() == [0, 0, 1, 0]
    form.tally(counts, 1, weight=0.25, decay=0.5)  # type: ignore[attr-defined]
    assert counts.tolist() == [0, 0.25, 0.5, 0]
    form.tally(counts, 2, weight=1.0, decay=0.5)  # type: ignore[attr-defined]
    assert counts.tolist() == [0, 0.125, 1.25, 0]


@pytest.mark.parametrize("form", FORMS)
def test_what_occurred_too_long_ago_has_not_occurred(form: object) -> None:
    counts = np.zeros(3, np.float32)
    counts[1] = 2 * np.finfo(np.float32).tiny
    none = np.zeros(3, np.float32)
    form.tally(counts, 0, weight=1.0, decay=0.6)  # type: ignore[attr-defined]
    assert form.shifts_of(counts, none, presence=1.0, frequency=0.0)[0].tolist() == [0, 1]  # type: ignore[attr-defined]
    form.tally(counts, 0, weight=1.0, decay=0.6)  # type: ignore[attr-defined]
    assert counts[1] == 0
    assert form.shifts_of(counts, none, presence=1.0, frequency=0.0)[0].tolist() == [0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", FORMS)
def test_presence_is_paid_once_and_frequency_by_the_count_beside_the_bias(form: object) -> None:
    counts = np.array([0, 2, 0, 1], np.float32)
    biases = np.array([0, 10, 5, 0], np.float32)
    ids, shifts = form.shifts_of(counts, biases, presence=0.5, frequency=0.25)  # type: ignore[attr-defined]
    assert ids.tolist() == [1, 2, 3]
    assert shifts.tolist() == [10 - 1.0, 5, -0.75]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 37, 410]),
    uniform=st.floats(0, 1, exclude_max=True),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([0.5, 1.0]),
    dense=st.booleans(),
    sparse=st.booleans(),
)
def test_shifted_draws_are_those_of_logits_shifted_beforehand(
    seed: int, size: int, uniform: float, top_k: int, top_p: float, dense: bool, sparse: bool
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(size).astype(np.float32)
    before = logits.copy()
    offsets = rng.standard_normal(size).astype(np.float32) if dense else None
    seen = rng.permutation(size)[: size // 2].astype(np.int32) if sparse else None
    shifts = None if seen is None else rng.standard_normal(seen.size).astype(np.float32)
    expected = logits.copy()
    if offsets is not None:
        expected += offsets
    if seen is not None:
        expected[seen] += shifts
    cuts = PLAIN | {"top_k": top_k, "top_p": top_p, "uniform": uniform}
    chosen = reference.sample(expected, None, **cuts)  # type: ignore[arg-type]
    for form in FORMS:
        drawn = form.sample(logits, None, **cuts, offsets=offsets, seen=seen, shifts=shifts)  # type: ignore[arg-type]
        assert drawn == chosen
    np.testing.assert_array_equal(logits, before)


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 0.01, 1.0, 4.0, 30.0]))
def test_a_large_vocabulary_is_cut_as_the_definition_cuts_it(seed: int, spread: float) -> None:
    """Only the likeliest are sorted, however many that turn out to be."""
    rng = np.random.default_rng(seed)
    logits = (spread * rng.standard_normal(5000)).astype(np.float32)
    for top_k, top_p, min_p in [
        (0, 0.9, 0.0),
        (40, 1.0, 0.0),
        (40, 0.8, 0.01),
        (0, 0.999999, 0.0),
        (4999, 0.9999, 0.0),
    ]:
        cuts = {"temperature": 0.9, "top_k": top_k, "top_p": top_p, "min_p": min_p, "uniform": rng.random()}
        assert numba_cpu.sample(logits, None, **cuts) == reference.sample(logits, None, **cuts)  # type: ignore[arg-type]


def test_philox_gives_the_words_of_its_authors() -> None:
    """Known answers of Random123 (kat_vectors), Philox4x32-10."""
    assert reference.philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert reference.philox((ones,) * 4, (ones, ones)) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert reference.philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_numbers_are_uniform_and_depend_on_seed_and_place_alone() -> None:
    numbers = np.array([reference.uniform(5, at) for at in range(4000)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert (
        (counts - 400) ** 2 / 400
    ).sum() < 27.9  # 9 degrees of freedom, p = 0.001; the seed makes it one draw for good
    assert len(set(numbers)) == 4000
    assert reference.uniform(5, 17) == numbers[17]
    assert reference.uniform(6, 17) != numbers[17]
    assert 0 <= reference.uniform(2**64 - 1, 2**64 - 1) < 1
