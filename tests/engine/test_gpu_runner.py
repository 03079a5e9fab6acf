"""The GPU's runner: on a GPU compiled; on any other machine in plain PyTorch and with interpreted kernels (S0-083)."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from held_tensors import HeldTensors
from triton_here import DEVICE, INTERPRETED, needs_triton

from antiphon.engine import gpu_operations, gpu_proof, gpu_runner
from antiphon.engine.gpu_network import Size
from antiphon.engine.gpu_operations import PLAIN, Operation
from antiphon.engine.gpu_runner import GpuRunner
from antiphon.engine.gpu_rwkv7 import Network7
from antiphon.engine.gpu_sampling import draw_on_device
from antiphon.engine.identity import Identity
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Draw, Feed, Floats, Memory
from antiphon.engine.timeline import Timeline, feed_together
from antiphon.model import reference
from antiphon.model.precision import Precision, dequantize, quantize
from antiphon.model.random_weights import random_weights
from antiphon.model.spec import ModelSpec, Version
from antiphon_kernels.sample import reference as sampling

SPEC = ModelSpec(
    n_layer=2, n_embd=32, vocab_size=40, head_size=16, ffn_dim=64,
    decay_rank=8, iclr_rank=8, value_rank=4, gate_rank=8,
)  # fmt: skip
TENSORS = random_weights(SPEC, seed=1)
TINY = replace(SPEC, n_embd=16, ffn_dim=32, vocab_size=16) if INTERPRETED else SPEC
"""What interpreted kernels run, a program after the other."""
IDS = np.random.default_rng(3).integers(0, TINY.vocab_size, 90, dtype=np.int32)

# max |Δlogit| / std of a model of two layers with random weights.
WITHIN = {
    Precision.FP32: 1e-5,
    Precision.FP16: 5e-3,
    Precision.BF16: 5e-2,
    Precision.INT8: 0.1,
    Precision.INT8_GROUPS: 0.1,
    Precision.INT4: 1.0,
}


def held(spec: ModelSpec = SPEC, seed: int = 1) -> HeldTensors:
    return HeldTensors(spec=spec, tensors=random_weights(spec, seed=seed), quantized={})


def runner(precision: Precision = Precision.FP32, *, kernels: bool = False) -> GpuRunner:
    return GpuRunner(held(), precision=precision, device=DEVICE, kernels=kernels)


def tiny_runner(precision: Precision, *, planes: int = 2) -> GpuRunner:
    """On Triton's kernels."""
    return GpuRunner(held(TINY), precision=precision, device=DEVICE, kernels=True, planes=planes)


@pytest.fixture(scope="module", autouse=True)
def _short_proofs() -> Iterator[None]:
    """The interpreter takes half a second for a row."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(gpu_proof, "SLABS", ((1,), (2, 1)))
            patch.setattr(gpu_proof, "TOGETHER", (1, 2, 1))
        yield


@pytest.fixture(scope="module")
def plain() -> GpuRunner:
    return runner()


@pytest.fixture(scope="module")
def fast() -> GpuRunner:
    made = tiny_runner(Precision.INT8)
    assert made.differences == []
    return made


def feed(on: GpuRunner, memory: Memory, ids: np.ndarray) -> None:
    on.run([Feed(memory=memory, ids=np.ascontiguousarray(ids, np.int32))])


def defined(spec: ModelSpec, tensors: dict[str, torch.Tensor], ids: np.ndarray) -> tuple[Floats, Floats]:
    """Logits after each id, and the state, by the model's definition."""
    logits, state = reference.sequence(spec, tensors, torch.from_numpy(ids).long())
    return logits.numpy(), reference.pack(state).numpy()


LOW_RANKS = tuple(f"att.{name}{part}" for name in ("w", "a", "v", "g", "time_maa_w", "time_decay_w") for part in (1, 2))


def rounded(tensors: Mapping[str, torch.Tensor], precision: Precision) -> dict[str, torch.Tensor]:
    """The tensors, with every matrix as `precision` has it, and low ranks in 16 bits."""
    floats = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
    made = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name.endswith(".weight") and name != "emb.weight":
            kind = floats.get(precision)
            made[name] = dequantize(quantize(tensor, precision)) if kind is None else tensor.to(kind).float()
        elif name.endswith(LOW_RANKS):
            made[name] = tensor.half().float()
    return made


def off(fast: Floats, exact: Floats) -> float:
    return float(np.abs(fast - exact).max() / exact.std())


def test_float32_equals_the_definition(plain: GpuRunner) -> None:
    memory = plain.new_memory()
    feed(plain, memory, IDS)
    logits, state = defined(SPEC, TENSORS, IDS)
    assert off(memory.logits, logits[-1]) < WITHIN[Precision.FP32]
    assert off(memory.state, state) < WITHIN[Precision.FP32]


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_is_near_the_definition(precision: Precision) -> None:
    on = runner(precision)
    memory = on.new_memory()
    feed(on, memory, IDS[:20])
    logits, _ = defined(SPEC, TENSORS, IDS[:20])
    assert off(memory.logits, logits[-1]) < WITHIN[precision]


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT8_GROUPS, Precision.INT4])
def test_whole_numbers_are_those_of_the_quantizer(precision: Precision) -> None:
    """The model made of dequantized matrices is the same model but for the rounding of activations."""
    exact = rounded(TENSORS, precision)
    on = runner(precision)
    memory = on.new_memory()
    feed(on, memory, IDS[:12])
    assert off(memory.logits, defined(SPEC, exact, IDS[:12])[0][-1]) < 1e-3


def test_whole_numbers_of_the_file_are_taken_as_they_are() -> None:
    quantized = {
        name: (q.values, q.scale)
        for name, tensor in TENSORS.items()
        if tensor.ndim == 2 and name.endswith(".weight")
        for q in [quantize(tensor, Precision.INT8)]
    }
    missing = {name: tensor for name, tensor in TENSORS.items() if name not in quantized}
    on = GpuRunner(
        HeldTensors(spec=SPEC, tensors=missing, quantized=quantized),
        precision=Precision.INT8, device=DEVICE, kernels=False,
    )  # fmt: skip
    memory = on.new_memory()
    feed(on, memory, IDS[:5])
    logits, _ = defined(SPEC, TENSORS, IDS[:5])
    assert off(memory.logits, logits[-1]) < WITHIN[Precision.INT8]


# The kernels themselves are tested in every form elsewhere; here interpreted ones stand for all.
PROVEN = [Precision.INT4] if INTERPRETED else list(Precision)


@needs_triton
@pytest.mark.parametrize("precision", PROVEN)
@pytest.mark.parametrize("planes", [2] if INTERPRETED else [1, 2])
def test_the_kernels_equal_plain_pytorch_on_the_models_own_weights(precision: Precision, planes: int) -> None:
    on = tiny_runner(precision, planes=planes)
    assert on.differences == []
    memory = on.new_memory()
    feed(on, memory, IDS[:2])
    logits, _ = defined(TINY, random_weights(TINY, seed=1), IDS[:2])
    assert off(memory.logits, logits[-1]) < 2 * WITHIN[precision]


@needs_triton
@pytest.mark.parametrize("cuts", [[1] * 5, [2, 3]])
def test_any_split_gives_the_same_bits(fast: GpuRunner, cuts: list[int]) -> None:
    whole, split = fast.new_memory(), fast.new_memory()
    feed(fast, whole, IDS[:5])
    for part in np.split(IDS[:5], np.cumsum(cuts)[:-1]):
        feed(fast, split, part)
    assert np.array_equal(split.logits, whole.logits)
    assert np.array_equal(split.state, whole.state)


@needs_triton
@pytest.mark.parametrize("others", [2] if INTERPRETED else [2, 15, 63])
def test_a_timelines_bits_do_not_depend_on_its_batch(fast: GpuRunner, others: int) -> None:
    alone, among = fast.new_memory(), fast.new_memory()
    for memory in (alone, among):
        feed(fast, memory, IDS[:3])
    crowd = [fast.new_memory() for _ in range(others)]
    for memory in crowd:
        feed(fast, memory, IDS[5:7])
    feed(fast, alone, IDS[3:4])
    fast.run([Feed(memory=memory, ids=IDS[3:4]) for memory in (*crowd[1:], among, crowd[0])])
    assert np.array_equal(among.logits, alone.logits)
    assert np.array_equal(among.state, alone.state)


def running_order(on: GpuRunner, budget_ns: int) -> tuple[Floats, Floats]:
    """Two feeds in slices, with another memory fed between each two."""
    first, second, between = (on.new_memory() for _ in range(3))
    running = on.begin([Feed(memory=first, ids=IDS[:9]), Feed(memory=second, ids=IDS[:1])])
    while not running.advance(budget_ns):
        feed(on, between, IDS[:2])
    return first.logits, second.logits


def test_slices_that_others_run_between_change_nothing(plain: GpuRunner) -> None:
    calm, hurried = running_order(plain, 10**12), running_order(plain, 0)
    for one, other in zip(calm, hurried, strict=True):
        assert np.array_equal(one, other)


def test_a_slice_ends_within_a_model() -> None:
    on = GpuRunner(held(), precision=Precision.FP32, device=DEVICE, kernels=False, piece_weights=1)
    memory = on.new_memory()
    running = on.begin([Feed(memory=memory, ids=IDS[:4])])
    slices = 1
    while not running.advance(0):
        slices += 1
    assert slices == SPEC.n_layer + 1  # one for each layer, one for the head
    assert off(memory.logits, defined(SPEC, TENSORS, IDS[:4])[0][-1]) < 1e-5
    assert running_order(on, 0)[0].std() > 0


def test_a_slice_takes_as_much_as_its_budget_allows(plain: GpuRunner) -> None:
    memory = plain.new_memory()
    assert plain.begin([Feed(memory=memory, ids=IDS[:70])]).advance(2**62)
    assert off(memory.logits, defined(SPEC, TENSORS, IDS[:70])[0][-1]) < 1e-5
    size = Size(rows=4, sequences=1)
    for elapsed_ns in (4e6, 2e6):
        plain.took([(size, 0), (size, 1)], elapsed_ns)
    assert plain.expected_ns((size, 0)) == 1.5e6
    assert plain.expected_ns((size, 2)) == gpu_runner.UNTIMED_NS


def test_costs_are_those_of_the_logits_before(plain: GpuRunner) -> None:
    memory, other = plain.new_memory(), plain.new_memory()
    nats, few = np.full(80, np.nan, np.float32), np.full(1, np.nan, np.float32)
    plain.run([Feed(memory=memory, ids=IDS[:80], nats=nats), Feed(memory=other, ids=IDS[:1], nats=few)])
    logits = torch.from_numpy(np.concatenate([np.zeros((1, 40), np.float32), defined(SPEC, TENSORS, IDS[:80])[0]]))
    wanted = torch.nn.functional.cross_entropy(logits[:80], torch.from_numpy(IDS[:80]).long(), reduction="none")
    assert np.allclose(nats, wanted.numpy(), atol=1e-4)
    assert few[0] == pytest.approx(np.log(40))
    assert off(memory.logits, logits[80].numpy()) < 1e-5


def test_memories_are_copied_loaded_and_given_back(plain: GpuRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = plain.new_memory()
    feed(plain, memory, IDS[:3])
    twin = memory.copy()
    feed(plain, memory, IDS[3:4])
    back = plain.new_memory()
    back.load(twin.state, twin.logits)
    feed(plain, back, IDS[3:4])
    assert np.array_equal(back.logits, memory.logits)
    twin.copy_from(memory)
    assert np.array_equal(twin.state, memory.state)
    free = len(plain.free)
    del twin, back
    gc.collect()
    assert len(plain.free) == free + 2


def test_the_store_grows_and_what_lies_there_stays(plain: GpuRunner) -> None:
    first = plain.new_memory()
    feed(plain, first, IDS[:3])
    logits = first.logits
    many = [plain.new_memory() for _ in range(2 * gpu_runner.FIRST_SLOTS)]
    assert np.array_equal(first.logits, logits)
    assert not many[-1].state.any()
    feed(plain, many[-1], IDS[:3])
    assert np.array_equal(many[-1].logits, logits)


def test_the_store_may_grow_between_slices() -> None:
    on = GpuRunner(held(), precision=Precision.FP32, device=DEVICE, kernels=False, piece_weights=1)
    memory, crowd = on.new_memory(), []
    running = on.begin([Feed(memory=memory, ids=IDS[:5])])
    slots = on.store.states.shape[0]
    assert not running.advance(0)
    while on.store.states.shape[0] == slots:
        crowd.append(on.new_memory())
    while not running.advance(0):
        pass
    assert off(memory.logits, defined(SPEC, TENSORS, IDS[:5])[0][-1]) < 1e-5


def test_a_memory_cannot_come_twice_nor_from_elsewhere(plain: GpuRunner) -> None:
    memory = plain.new_memory()
    with pytest.raises(ValueError, match="twice"):
        plain.run([Feed(memory=memory, ids=IDS[:1]), Feed(memory=memory, ids=IDS[:1])])
    with pytest.raises(TypeError, match="another device"):
        plain.run([Feed(memory=object(), ids=IDS[:1])])  # type: ignore[arg-type]


def identify() -> Identity:
    return Identity(model="", precision="fp32", tokenizer="", adapters=(), start_state="")


def test_timelines_fork_go_back_and_read_together_on_it(plain: GpuRunner) -> None:
    model = LoadedModel(runner=plain, metadata={}, identify=identify)
    first, second = Timeline(model), Timeline(model)
    feed_together([(first, IDS[:5].tolist()), (second, IDS[:3].tolist())])
    mark, fork = first.mark(), first.fork()
    first.feed(IDS[5:7].tolist())
    second.feed(IDS[3:7].tolist())
    assert off(second.logits, first.logits) < 1e-5
    first.rewind(mark)
    assert np.array_equal(first.logits, fork.logits)
    assert first.count == 5


def test_a_start_state_is_where_memories_begin() -> None:
    """S0-087."""
    _, state = defined(SPEC, TENSORS, IDS[:4])
    on = GpuRunner(held(), precision=Precision.FP32, device=DEVICE, kernels=False, start_state=state)
    memory = on.new_memory()
    feed(on, memory, IDS[4:6])
    assert off(memory.logits, defined(SPEC, TENSORS, IDS[:6])[0][-1]) < 1e-5


TINY_OLD = {"n_layer": 1, "n_embd": 16, "ffn_dim": 16, "vocab_size": 16} if INTERPRETED else {}


@needs_triton
@pytest.mark.parametrize("version", [Version.V4, Version.V6] if INTERPRETED else list(Version)[:-1])
def test_the_kernels_of_older_versions_equal_plain_pytorch_too(version: Version) -> None:
    spec = replace(small(version), **TINY_OLD)
    on = GpuRunner(held(spec), precision=Precision.BF16, device=DEVICE, kernels=True)
    assert on.differences == []
    memory, other = on.new_memory(), on.new_memory()
    feed(on, memory, IDS[:2])
    for token in IDS[:2]:
        feed(on, other, np.array([token]))
    assert np.array_equal(memory.logits, other.logits)
    logits, _ = defined(spec, random_weights(spec, seed=1), IDS[:2])
    assert off(memory.logits, logits[-1]) < 0.2


def replaced(monkeypatch: pytest.MonkeyPatch, operation: str, by: Operation) -> None:
    """Let the kernels be plain PyTorch under other names, but for one."""
    monkeypatch.setattr(gpu_operations, "fast", lambda _: replace(PLAIN, **{operation: by}))


@pytest.mark.parametrize("operation", Network7.uses(SPEC))
def test_a_kernel_that_differs_is_switched_off_aloud(
    operation: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """S0-086, S1-071: the model then runs in plain PyTorch where the kernel is wrong, and says so."""

    def wrong(*arguments: Any, **options: Any) -> None:
        getattr(PLAIN, operation)(*arguments, **options)
        (arguments[2] if operation == "multiply" else arguments[-1]).mul_(1.01)

    replaced(monkeypatch, operation, wrong)
    with caplog.at_level(logging.ERROR):
        on = runner(Precision.INT8, kernels=True)
    assert [difference.operation for difference in on.differences] == [operation]
    assert operation in caplog.text
    memory = on.new_memory()
    feed(on, memory, IDS[:3])
    assert off(memory.logits, defined(SPEC, TENSORS, IDS[:3])[0][-1]) < WITHIN[Precision.INT8]


def test_a_kernel_that_does_not_run_is_switched_off_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available for this device")

    replaced(monkeypatch, "finish", broken)
    with caplog.at_level(logging.ERROR):
        on = runner(Precision.INT8, kernels=True)
    assert [difference.operation for difference in on.differences] == ["finish"]
    assert "no kernel image" in caplog.text


def test_a_kernel_that_leaves_something_out_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "norm", lambda *_: None)
    assert [difference.operation for difference in runner(Precision.INT8, kernels=True).differences] == ["norm"]


def test_without_triton_all_runs_in_plain_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu_operations, "kernels", lambda _: None)
    with caplog.at_level(logging.ERROR):
        on = runner(Precision.INT8, kernels=True)
    assert "Triton" in caplog.text
    memory = on.new_memory()
    feed(on, memory, IDS[:3])
    assert memory.logits.std() > 0


def small(version: Version) -> ModelSpec:
    return ModelSpec.of_width(n_layer=2, n_embd=32, vocab_size=40, head_size=16, version=version)


@pytest.mark.parametrize("version", [version for version in Version if version is not Version.V7])
def test_older_versions_run_too(version: Version) -> None:
    spec = small(version)
    tensors = held(spec)
    on = GpuRunner(tensors, precision=Precision.FP32, device=DEVICE)
    memory, other = on.new_memory(), on.new_memory()
    nats = np.empty(70, np.float32)
    on.run([Feed(memory=memory, ids=IDS[:70], nats=nats), Feed(memory=other, ids=IDS[:1])])
    feed(on, other, IDS[1:70])
    logits, state = defined(spec, dict(tensors.tensors), IDS[:70])
    assert off(memory.logits, logits[-1]) < 1e-5
    assert off(memory.state, state) < 1e-5
    assert off(other.logits, logits[-1]) < 1e-5
    assert np.isfinite(nats).all()


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.FP16])
def test_older_versions_run_in_every_precision(precision: Precision) -> None:
    """They are the definition on the weights as they lie there."""
    spec = small(Version.V6)
    tensors = held(spec)
    on = GpuRunner(tensors, precision=precision, device=DEVICE)
    memory = on.new_memory()
    feed(on, memory, IDS[:5])
    logits, _ = defined(spec, rounded(tensors.tensors, precision), IDS[:5])
    assert off(memory.logits, logits[-1]) < 1e-3
    assert on.nbytes < sum(tensor.nbytes for tensor in tensors.tensors.values())


MASK = np.arange(40) % 3 > 0
DRAWS = [
    Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.5),
    Draw(temperature=1.0, top_k=5, top_p=0.8, min_p=0.0, uniform=0.7),
    Draw(temperature=0.7, top_k=0, top_p=0.9, min_p=0.1, uniform=0.2, mask=MASK),
    Draw(
        temperature=1.2, top_k=9, top_p=1.0, min_p=0.0, uniform=0.9, mask=MASK,
        offsets=np.linspace(-1, 1, 40, dtype=np.float32),
        seen=np.array([4, 7], np.int32), shifts=np.array([3.0, -2.0], np.float32),
    ),
]  # fmt: skip


def wanted(logits: Floats, draw: Draw) -> int:
    return sampling.sample(
        logits, draw.mask, temperature=draw.temperature, top_k=draw.top_k, top_p=draw.top_p, min_p=draw.min_p,
        uniform=draw.uniform, offsets=draw.offsets, seen=draw.seen, shifts=draw.shifts,
    )  # fmt: skip


def test_ids_are_drawn_as_the_definition_draws_them(plain: GpuRunner) -> None:
    memories = [plain.new_memory() for _ in DRAWS]
    for length, memory in enumerate(memories, start=1):
        feed(plain, memory, IDS[:length])
    drawn = plain.sample_all(memories, DRAWS)
    assert drawn == [wanted(memory.logits, draw) for memory, draw in zip(memories, DRAWS, strict=True)]
    with pytest.raises(ValueError, match="mask"):
        plain.sample(memories[0], replace(DRAWS[0], mask=np.zeros(40, np.bool_)))


@needs_triton
@pytest.mark.parametrize("draws", [DRAWS[:2], DRAWS], ids=["as they lie", "adjusted"])
def test_the_kernel_draws_the_same(draws: list[Draw]) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (6, 40)).astype(np.float32)
    places = [5, 1, 5, 2][: len(draws)]
    drawn = draw_on_device(gpu_operations.kernels("sample"), torch.from_numpy(logits).to(DEVICE), places, draws)
    assert drawn == [wanted(logits[place], draw) for place, draw in zip(places, draws, strict=True)]


@pytest.mark.skipif(DEVICE == "cpu", reason="graphs are a GPU's")
def test_captured_slabs_give_the_bits_of_slabs_that_are_not() -> None:
    captured = tiny_runner(Precision.INT8)
    captured.warm()
    launched = GpuRunner(held(TINY), precision=Precision.INT8, device=DEVICE, kernels=True, graphs=False)
    for on in (captured, launched):
        assert on.differences == []
    for cut in (1, 7, 64):
        memories = [on.new_memory() for on in (captured, launched)]
        for on, memory in zip((captured, launched), memories, strict=True):
            feed(on, memory, IDS[:cut])
            feed(on, memory, IDS[cut:])
        assert np.array_equal(memories[0].logits, memories[1].logits)
        assert np.array_equal(memories[0].state, memories[1].state)
