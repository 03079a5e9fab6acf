from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import numpy.typing as npt
import pytest
import torch
from kernels.random_tensors import Shape, random_tensors

from antiphon.model import rwkv7
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.spec import ModelSpec
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.linear.reference import round_16
from antiphon_kernels.program import rwkv7 as program7
from antiphon_kernels.program.crew import Crew
from antiphon_kernels.program.given import Array, Given
from antiphon_kernels.program.hot import Step, embed_one
from antiphon_kernels.program.ops import Program
from antiphon_kernels.program.reference import Reference
from antiphon_kernels.program.slab import Segment, Slab, embed, feed

USUAL = Shape(layers=3, width=128, heads=2, vocab=37, ffn=512)
SHAPES = {
    "usual": USUAL,
    "odd ffn, ranks and vocabulary": Shape(layers=3, width=128, heads=2, vocab=37, ffn=301, ranks=(30, 33, 5, 50)),
    "small heads": Shape(layers=2, width=96, heads=6, vocab=410, ffn=384, ranks=(16, 16, 8, 16)),
    "one layer": Shape(layers=1, width=64, heads=1, vocab=33, ffn=224),
}
LAYOUTS = [False, *([True] if vnni_bits() else [])]

# Kernel and reference do the same arithmetic, so they part only where a float32 sum taken in another order moves an
# activation over the edge between two of its 65,279 levels. A level is 3e-5 of the vector's peak; random weights carry
# that on through the layers.
LOGITS_WITHIN = 1e-3
STATE_WITHIN = 3e-3
# Against float32 activations: the price of rounding them to 16 bits. These random weights are harsh: they blow the
# float32 definition's own rounding up to 2e-5 against float64.
DEFINITION_WITHIN = 1e-2


def pack(tensors: dict[str, Array], *, interleave: bool = vnni_bits() > 0) -> Program:
    return program7.build(Given(tensors), interleave=interleave)


def feed_all(
    program: Program,
    ids: npt.NDArray[np.int32],
    state: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    nats: npt.NDArray[np.float32] | None = None,
    crew: Crew | None = None,
) -> None:
    feed(program, [Segment(state=state, logits=logits, ids=ids, nats=nats)], crew=crew)


def step(program: Program, token: int, state: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> None:
    feed_all(program, np.array([token], np.int32), state, logits)


def poisoned(size: int) -> npt.NDArray[np.float32]:
    return np.full(size, np.nan, np.float32)


def zero_state(packed: Program) -> npt.NDArray[np.float32]:
    return np.zeros(packed.state_len, np.float32)


def random_ids(vocab: int, count: int, seed: int = 0) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, vocab, count).astype(np.int32)


@pytest.mark.parametrize("interleave", LAYOUTS, ids=lambda on: "interleaved" if on else "rows")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equals_the_reference_over_hundreds_of_tokens_in_logits_and_state(shape: Shape, interleave: bool) -> None:
    tensors = random_tensors(shape)
    packed, reference = pack(tensors, interleave=interleave), Reference(tensors)
    state, expected_state, logits = zero_state(packed), zero_state(packed), poisoned(shape.vocab)
    for token in random_ids(shape.vocab, 300):
        logits[:] = np.nan
        step(packed, int(token), state, logits)
        expected = reference.step(int(token), expected_state)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGITS_WITHIN)
        np.testing.assert_allclose(state, expected_state, rtol=0, atol=STATE_WITHIN)
    assert np.abs(expected_state).max() > 1  # the bound above means something


@pytest.mark.skipif(len(LAYOUTS) < 2, reason="this processor has one layout only")
def test_both_layouts_give_the_same_bits() -> None:
    tensors = random_tensors(SHAPES["odd ffn, ranks and vocabulary"])
    ids = random_ids(37, 50)
    outcomes = []
    for interleave in LAYOUTS:
        packed = pack(tensors, interleave=interleave)
        state, logits = zero_state(packed), poisoned(37)
        feed_all(packed, ids, state, logits)
        outcomes.append((state, logits))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    np.testing.assert_array_equal(outcomes[0][1], outcomes[1][1])


def test_agrees_with_the_definition_on_dequantized_weights() -> None:
    shape = Shape(layers=4, width=128, heads=2, vocab=100, ffn=512)
    tensors = random_tensors(shape)
    packed = pack(tensors)
    spec = ModelSpec.of_tensors({name: tensor.shape for name, tensor in tensors.items()})
    weights = dequantize(
        Checkpoint(spec=spec, tensors={name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    ).tensors
    state, logits = zero_state(packed), poisoned(shape.vocab)
    expected_state = rwkv7.zero_state(spec)
    for token in random_ids(shape.vocab, 200):
        step(packed, int(token), state, logits)
        expected, expected_state = rwkv7.step(weights, int(token), expected_state)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=DEFINITION_WITHIN)
    np.testing.assert_allclose(state, rwkv7.pack(expected_state).numpy(), rtol=0, atol=3 * DEFINITION_WITHIN)


def test_eight_tokens_are_eight_steps_are_three_and_five() -> None:
    packed = pack(random_tensors(USUAL))
    ids = random_ids(37, 8)
    outcomes = []
    for cuts in ([8], [1] * 8, [3, 5]):
        state, logits, at = zero_state(packed), poisoned(37), 0
        for size in cuts:
            feed_all(packed, ids[at : at + size], state, logits)
            at += size
        outcomes.append(np.concatenate([state, logits]))
    np.testing.assert_array_equal(outcomes[0], outcomes[1])
    np.testing.assert_array_equal(outcomes[0], outcomes[2])


def test_writes_every_output_and_nothing_beside_it() -> None:
    shape = SHAPES["odd ffn, ranks and vocabulary"]
    packed = pack(random_tensors(shape))
    guard, mark = 64, np.float32(-12345.5)
    memory = np.full(packed.state_len + shape.vocab + 3 * guard, mark, np.float32)
    state = memory[guard : guard + packed.state_len]
    logits = memory[packed.state_len + 2 * guard : -guard]
    state[:], logits[:] = 0, np.nan
    feed_all(packed, random_ids(shape.vocab, 20), state, logits)
    assert np.isfinite(state).all()
    assert np.isfinite(logits).all()
    assert (state != 0).mean() > 0.99
    for start in (0, guard + packed.state_len, memory.size - guard):
        assert (memory[start : start + guard] == mark).all()


def test_a_nan_in_the_state_shows_in_the_logits() -> None:
    packed = pack(random_tensors(USUAL))
    for place in (0, 128, packed.state_len - 1):
        state, logits = zero_state(packed), np.zeros(37, np.float32)
        state[place] = np.nan
        step(packed, 1, state, logits)
        assert np.isnan(logits).all()


def test_scored_feeding_gives_the_cost_of_each_id_and_the_same_state() -> None:
    packed = pack(random_tensors(USUAL))
    ids = random_ids(37, 30)
    state, logits, nats = zero_state(packed), np.zeros(37, np.float32), poisoned(30)
    feed_all(packed, ids, state, logits, nats)
    stepped, before = zero_state(packed), np.zeros(37, np.float32)
    for token, cost in zip(ids, nats, strict=True):
        wide = before.astype(np.float64)
        assert cost == pytest.approx(np.log(np.exp(wide).sum()) - wide[token], abs=1e-5)
        step(packed, int(token), stepped, before)
    np.testing.assert_array_equal(state, stepped)
    np.testing.assert_array_equal(logits, before)


def test_the_largest_weights_and_activations_do_not_overflow() -> None:
    """Rows of one sign against embeddings of one sign, a thousand wide: the largest totals there can be."""
    shape = Shape(layers=1, width=1024, heads=16, vocab=64, ffn=64)
    tensors = random_tensors(shape)
    for name in ("head.weight", "blocks.0.ffn.key.weight", "blocks.0.att.value.weight"):
        tensors[name] = np.where(np.arange(len(tensors[name]))[:, None] % 2, 127, -127).astype(np.int8)
        tensors[name] = np.broadcast_to(tensors[name], (tensors[name].shape[0], 1024)).copy()
    for name in ("ln_out", "blocks.0.ln1", "blocks.0.ln2"):
        tensors[f"{name}.weight"] = np.full(1024, 1e-3, np.float32)
        tensors[f"{name}.bias"] = np.full(1024, 1.0, np.float32)
    reference = Reference(tensors)
    for interleave in LAYOUTS:
        packed = pack(tensors, interleave=interleave)
        state, logits, expected_state = zero_state(packed), poisoned(64), zero_state(packed)
        step(packed, 5, state, logits)
        expected = reference.step(5, expected_state)
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=0)


def test_rounding_to_sixteen_bits_moves_a_number_by_at_most_half_a_level() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    q, scale = round_16(x)
    assert np.abs(q).max() == 32639
    assert np.abs(q * scale - x).max() <= np.abs(x).max() / 65278 * 1.001
    assert round_16(np.zeros(4, np.float32))[1] == 0
    assert np.isnan(round_16(np.array([1, np.inf], np.float32))[1])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("blocks.1.att.key.weight", lambda tensor: tensor[:-1]),
        ("blocks.0.ffn.key.weight.scale", lambda tensor: tensor[:-1]),
        ("blocks.1.ln1.bias", lambda tensor: tensor[:-1]),
        ("blocks.1.att.w2", lambda tensor: tensor.T),
        ("blocks.0.att.a1", lambda tensor: tensor * np.float16(np.nan)),
    ],
)
def test_packing_refuses_tensors_that_do_not_fit(name: str, change: object) -> None:
    tensors = random_tensors(Shape(layers=2, width=64, heads=1, vocab=33, ffn=224))
    tensors[name] = change(tensors[name])  # type: ignore[operator]
    with pytest.raises(ValueError, match=name):
        pack(tensors)


def test_packed_weights_cannot_be_changed() -> None:
    packed = pack(random_tensors(SHAPES["one layer"]))
    with pytest.raises(ValueError, match="read-only"):
        packed.weights[0] = 0


def test_a_timeline_does_not_know_who_shares_its_slab() -> None:
    """The same bits alone, among 3 and among 16, whatever the others are fed and wherever they are cut."""
    program = pack(random_tensors(SHAPES["odd ffn, ranks and vocabulary"]))
    ids = random_ids(37, 40)
    alone = zero_state(program), poisoned(37)
    feed_all(program, ids, *alone)
    for others in (2, 15):
        state, logits, at = zero_state(program), poisoned(37), 0
        company = [(zero_state(program), poisoned(37)) for _ in range(others)]
        for size in (1, 17, 22):
            feed(
                program,
                [
                    Segment(state=s, logits=lo, ids=random_ids(37, 1 + number % 7, seed=number + at))
                    for number, (s, lo) in enumerate(company[: others // 2])
                ]
                + [Segment(state=state, logits=logits, ids=ids[at : at + size])]
                + [
                    Segment(state=s, logits=lo, ids=random_ids(37, 1 + number % 5, seed=number + at))
                    for number, (s, lo) in enumerate(company[others // 2 :])
                ],
            )
            at += size
        np.testing.assert_array_equal(state, alone[0])
        np.testing.assert_array_equal(logits, alone[1])


def test_a_slab_can_be_left_between_any_two_operations() -> None:
    program = pack(random_tensors(USUAL))
    ids = random_ids(37, 9)
    whole, parted = (zero_state(program), poisoned(37)), (zero_state(program), poisoned(37))
    feed_all(program, ids, *whole)
    slab = Slab(program, [Segment(state=parted[0], logits=parted[1], ids=ids)])
    while not slab.done:
        slab.run(slab.at + 1)
        other = zero_state(program), poisoned(37)
        if slab.at % 20 == 0:
            step(program, 3, *other)  # somebody else goes first
    np.testing.assert_array_equal(parted[0], whole[0])
    np.testing.assert_array_equal(parted[1], whole[1])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    program = pack(random_tensors(SHAPES["odd ffn, ranks and vocabulary"]))
    outcomes = []
    for crew in (Crew(1), Crew(threads)):
        state, logits, nats = zero_state(program), np.zeros(37, np.float32), poisoned(70)
        feed_all(program, random_ids(37, 70), state, logits, nats, crew)
        for token in random_ids(37, 5, seed=1):
            feed_all(program, np.array([token], np.int32), state, logits, None, crew)
        crew.close()
        outcomes.append(np.concatenate([state, logits, nats]))
    np.testing.assert_array_equal(outcomes[0], outcomes[1])


def test_an_error_on_another_thread_comes_to_the_caller_and_the_crew_works_on() -> None:
    crew, seen = Crew(3), []

    def job(thread: int) -> None:
        if thread == 2:
            raise ValueError("thread two")
        seen.append(thread)

    with pytest.raises(ValueError, match="thread two"):
        crew.run(job)
    crew.run(seen.append)
    assert sorted(seen) == [0, 0, 1, 1, 2]
    crew.close()
    crew.close()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_stay_awake_fall_asleep_and_are_woken_again(threads: int) -> None:
    program = pack(random_tensors(SHAPES["odd ffn, ranks and vocabulary"]))
    ids = random_ids(37, 60)
    outcomes = []
    for step in (Step(program), Step(program, threads=threads)):
        state, logits = zero_state(program), poisoned(37)
        for number, token in enumerate(ids):
            if number % 20 == 10:
                time.sleep(0.02)  # far longer than they wait
            step.run(int(token), state.ctypes.data, logits.ctypes.data)
        step.close()
        outcomes.append(np.concatenate([state, logits]))
    np.testing.assert_array_equal(outcomes[0], outcomes[1])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("step-")]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_embedding_is_read_in_any_type_and_one_row_as_many(dtype: str) -> None:
    program = pack(random_tensors(USUAL))
    table = torch.randn(37, 128).to(getattr(torch, dtype))
    rows = (table.view(torch.uint16) if dtype == "bfloat16" else table).numpy()
    program = dataclasses.replace(program, embedding=rows, embedding_scale=None)
    ids = random_ids(37, 9)
    many, one = poisoned(9 * 128), poisoned(128)
    embed(program, ids, many)
    np.testing.assert_array_equal(many.reshape(9, 128), table.float().numpy()[ids])
    for number, token in enumerate(ids):
        embed_one(program, int(token), one)
        np.testing.assert_array_equal(one, many[number * 128 :][:128])
