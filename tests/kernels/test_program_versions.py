"""The programs of RWKV-4 to 7 give what the definitions give, and the same bits however they are fed (S0-086)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model.any_version import SMALL, SPECS, random_ids, random_weights

from antiphon.model import reference
from antiphon.model.spec import ModelSpec, Version
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.program.any_version import build
from antiphon_kernels.program.crew import Crew
from antiphon_kernels.program.exponential import exp
from antiphon_kernels.program.given import Array, Given
from antiphon_kernels.program.hot import Step
from antiphon_kernels.program.ops import Program
from antiphon_kernels.program.slab import Segment, Slab, feed

Floats = npt.NDArray[np.float32]

NAMES = [name for name in SPECS if not name.startswith("7")]
LAYOUTS = [False, *([True] if vnni_bits() else [])]

# In standard deviations: the price of rounding activations and weights to 16 bits, on random weights, which are harsh.
WITHIN = 2e-3


def floats(spec: ModelSpec) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in random_weights(spec).items()}


def rounded(spec: ModelSpec) -> tuple[dict[str, Array], dict[str, torch.Tensor]]:
    """Big matrices in int8 with a scale for a row, and float64 weights that are the same numbers."""
    held: dict[str, Array] = {}
    same: dict[str, torch.Tensor] = {}
    for name, tensor in floats(spec).items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            scale = np.abs(tensor).max(axis=1) / 127
            held[name] = np.rint(tensor / scale[:, None]).astype(np.int8)
            held[f"{name}.scale"] = scale.astype(np.float32)
            same[name] = torch.from_numpy(held[name].astype(np.float64) * held[f"{name}.scale"][:, None])
        else:
            held[name], same[name] = tensor, torch.from_numpy(tensor.astype(np.float64))
    return held, same


def program(tensors: dict[str, Array], *, interleave: bool = vnni_bits() > 0, eps: float = 64e-5) -> Program:
    return build(Given(tensors), interleave=interleave, ln_x_eps=eps)


def memory(of: Program) -> tuple[Floats, Floats]:
    return of.start.copy(), np.full(of.vocab_size, np.nan, np.float32)


def ids_of(spec: ModelSpec, count: int, seed: int = 0) -> npt.NDArray[np.int32]:
    return random_ids(spec, count, seed=seed).numpy().astype(np.int32)


def fed(of: Program, ids: npt.NDArray[np.int32], cuts: list[int]) -> tuple[Floats, Floats]:
    state, logits, at = *memory(of), 0
    for size in cuts:
        feed(of, [Segment(state=state, logits=logits, ids=ids[at : at + size])])
        at += size
    assert at == ids.size
    return state, logits


def apart(one: Floats, other: torch.Tensor) -> float:
    return float(np.abs(one - other.numpy()).max() / other.std())


def assert_as_defined(
    of: Program, spec: ModelSpec, weights: dict[str, torch.Tensor], *, count: int = 60, eps: float = 64e-5
) -> None:
    ids = ids_of(spec, count)
    state, logits = memory(of)
    defined: reference.State | None = None
    for at in range(0, count, 20):
        several = ids[at : at + 20]
        feed(of, [Segment(state=state, logits=logits, ids=several)])
        expected, defined = reference.sequence(
            spec, weights, torch.from_numpy(several.astype(np.int64)), defined, ln_x_eps=eps
        )
        assert apart(logits, expected[-1]) < WITHIN
    assert defined is not None
    packed = reference.pack(defined)
    assert state.size == spec.state_floats
    d = spec.n_embd
    parts = [d] * 5 if spec.version is Version.V4 else [d, d * spec.head_size, d]
    at = 0
    for part in packed.split(parts * spec.n_layer):
        assert apart(state[at : at + part.numel()], part) < WITHIN
        at += part.numel()


@pytest.mark.parametrize("interleave", LAYOUTS, ids=lambda on: "interleaved" if on else "rows")
@pytest.mark.parametrize("name", NAMES)
def test_gives_what_the_definition_gives_for_the_same_whole_numbers(name: str, interleave: bool) -> None:
    spec = SPECS[name]
    held, same = rounded(spec)
    assert_as_defined(program(held, interleave=interleave), spec, same)


@pytest.mark.parametrize("name", SMALL)
def test_gives_what_the_definition_gives_for_floats_but_for_their_rounding(name: str) -> None:
    spec = SPECS[name]
    assert_as_defined(program(floats(spec)), spec, random_weights(spec, dtype=torch.float64))


@pytest.mark.parametrize("name", ["5.0", "5.1", "5.2"])
def test_the_constant_in_the_norm_over_heads_is_the_one_asked_for(name: str) -> None:
    spec = SPECS[name]
    # Faint values, so that the constant counts.
    faint = {n: t * (0.02 if n.endswith("att.value.weight") else 1) for n, t in floats(spec).items()}
    exact = {n: torch.from_numpy(t.astype(np.float64)) for n, t in faint.items()}
    assert_as_defined(program(faint, eps=1e-5), spec, exact, count=20, eps=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_any_split_and_any_layout_give_the_same_bits(name: str) -> None:
    spec = SPECS[name]
    held, _ = rounded(spec)
    ids = ids_of(spec, 70)
    whole = fed(program(held), ids, [70])
    for interleave in LAYOUTS:
        of = program(held, interleave=interleave)
        for cuts in ([1] * 70, [3, 5, 62], [64, 6]):
            state, logits = fed(of, ids, cuts)
            np.testing.assert_array_equal(state, whole[0])
            np.testing.assert_array_equal(logits, whole[1])


@pytest.mark.parametrize("name", [name for name in SMALL if name != "7"])
def test_neither_company_nor_threads_nor_pauses_change_a_bit(name: str) -> None:
    spec = SPECS[name]
    of = program(rounded(spec)[0])
    ids = ids_of(spec, 24)
    alone = fed(of, ids, [24])
    state, logits = memory(of)
    company = [Segment(state=s, logits=lo, ids=ids_of(spec, 1 + n, seed=n)) for n in range(5) for s, lo in [memory(of)]]
    slab = Slab(of, [*company[:2], Segment(state=state, logits=logits, ids=ids), *company[2:]], threads=3)
    crew = Crew(3)
    while not slab.done:
        slab.run(slab.at + 1, crew=crew)
    crew.close()
    np.testing.assert_array_equal(state, alone[0])
    np.testing.assert_array_equal(logits, alone[1])


@pytest.mark.parametrize("name", [name for name in NAMES if "wide" in name])
def test_threads_that_share_one_row_do_not_change_a_bit(name: str) -> None:
    of = program(rounded(SPECS[name])[0])
    outcomes = []
    for threads in (1, 3):
        step, (state, logits) = Step(of, threads=threads), memory(of)
        for token in ids_of(SPECS[name], 40):
            step.run(int(token), state.ctypes.data, logits.ctypes.data)
        step.close()
        outcomes.append(np.concatenate([state, logits]))
    np.testing.assert_array_equal(outcomes[1], outcomes[0])


@pytest.mark.parametrize("name", [name for name in SMALL if name != "7"])
def test_writes_every_output_and_nothing_beside_it(name: str) -> None:
    spec = SPECS[name]
    of = program(rounded(spec)[0])
    guard, mark = 64, np.float32(-12345.5)
    whole = np.full(of.state_len + spec.vocab_size + 3 * guard, mark, np.float32)
    state, logits = whole[guard : guard + of.state_len], whole[of.state_len + 2 * guard : -guard]
    state[:], logits[:] = of.start, np.nan
    feed(of, [Segment(state=state, logits=logits, ids=ids_of(spec, 10))])
    assert np.isfinite(state).all()
    assert np.isfinite(logits).all()
    assert (state != of.start).mean() > 0.99
    for start in (0, guard + of.state_len, whole.size - guard):
        assert (whole[start : start + guard] == mark).all()


@pytest.mark.parametrize("name", [name for name in SMALL if name != "7"])
def test_a_nan_in_the_state_shows_in_the_logits(name: str) -> None:
    spec = SPECS[name]
    of = program(rounded(spec)[0])
    for place in (0, spec.n_embd, of.state_len - spec.n_embd - 1, of.state_len - 1):
        state, logits = memory(of)
        state[place] = np.nan
        feed(of, [Segment(state=state, logits=logits, ids=ids_of(spec, 1))])
        assert np.isnan(logits).all()


@pytest.mark.parametrize(
    ("version", "name", "change"),
    [
        ("4", "blocks.1.att.time_decay", lambda tensor: tensor[:-1]),
        ("4", "blocks.0.ffn.receptance.weight", lambda tensor: tensor[:-1]),
        ("5.0", "blocks.1.att.time_decay", lambda tensor: tensor[:-1]),
        ("5.2", "blocks.1.att.time_faaaa", lambda tensor: tensor[:, :-1]),
        ("6", "blocks.0.att.time_maa_w2", lambda tensor: tensor[:-1]),
        ("6", "blocks.1.att.time_maa_w1", lambda tensor: tensor[:, :-1]),
        ("6", "blocks.1.att.time_maa_w1", lambda tensor: tensor * np.float32(np.nan)),
        ("6", "blocks.2.att.time_decay_w2", lambda tensor: tensor.T),
    ],
)
def test_tensors_that_do_not_fit_are_refused(version: str, name: str, change: object) -> None:
    tensors = floats(SPECS[version])
    tensors[name] = change(tensors[name])  # type: ignore[operator]
    with pytest.raises(ValueError, match=name):
        program(tensors)


@pytest.mark.parametrize("name", ["4", "6", "7"])
def test_versions_of_one_constant_refuse_another(name: str) -> None:
    with pytest.raises(ValueError, match="only RWKV-5"):
        program(floats(SPECS[name]), eps=1e-5)


def test_the_exponential_of_the_decays_is_the_exponential() -> None:
    x = np.concatenate([np.linspace(-700, 700, 4001), np.linspace(-1, 1, 999)])
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=4e-16)
    assert exp(np.array([-1e30, -708.0]))[0] == exp(np.array([-708.0]))[0]
    assert np.isnan(exp(np.array([np.nan])))[0]
