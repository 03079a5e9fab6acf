from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampling import GREEDY, Sampling
from antiphon.engine.timeline import Timeline
from antiphon.model.checkpoint import Checkpoint


def memory(timeline: Timeline) -> np.ndarray:
    return np.concatenate([timeline.state, timeline.logits])


def test_ids_fed_at_once_or_one_by_one_come_to_the_same(model: LoadedModel) -> None:
    ids = list(range(8))
    outcomes = []
    for cuts in ([8], [1] * 8, [3, 5], [0, 8]):
        timeline, at = Timeline(model), 0
        for size in cuts:
            timeline.feed(ids[at : at + size])
            at += size
        assert timeline.count == 8
        outcomes.append(memory(timeline))
    for outcome in outcomes[1:]:
        np.testing.assert_array_equal(outcome, outcomes[0])


def test_a_fork_goes_on_by_itself(model: LoadedModel) -> None:
    trunk = Timeline(model)
    trunk.feed([1, 2, 3])
    kept = memory(trunk)
    branch = trunk.fork()
    np.testing.assert_array_equal(memory(branch), kept)
    branch.feed([4, 5])
    assert (trunk.count, branch.count) == (3, 5)
    np.testing.assert_array_equal(memory(trunk), kept)
    trunk.feed([4, 5])
    np.testing.assert_array_equal(memory(trunk), memory(branch))


def test_rewinding_brings_back_the_moment_of_the_mark_any_number_of_times(model: LoadedModel) -> None:
    timeline = Timeline(model)
    timeline.feed([1, 2, 3])
    kept, mark = memory(timeline), timeline.mark()
    for ids in ([4], [5, 6], [7] * 20):
        timeline.feed(ids)
        assert not np.array_equal(memory(timeline), kept)
        timeline.rewind(mark)
        assert timeline.count == 3
        np.testing.assert_array_equal(memory(timeline), kept)
    other = Timeline(model)
    other.rewind(mark)
    np.testing.assert_array_equal(memory(other), kept)


def test_a_timeline_can_become_another_in_the_memory_it_has(model: LoadedModel) -> None:
    trunk, branch = Timeline(model), Timeline(model)
    trunk.feed([9, 8, 7])
    state = branch.state
    branch.feed([1])
    branch.copy_from(trunk)
    assert branch.count == 3
    np.testing.assert_array_equal(memory(branch), memory(trunk))
    assert state is branch.state


def test_memory_stays_constant_however_much_is_fed(model: LoadedModel) -> None:
    timeline = Timeline(model)
    timeline.feed([1])
    size, place = timeline.state.nbytes, timeline.state.ctypes.data
    assert size == model.state_bytes
    for _ in range(20):
        timeline.feed(list(range(50)) * 10)
    assert timeline.count == 10_001
    assert (timeline.state.nbytes, timeline.state.ctypes.data) == (size, place)
    assert np.isfinite(timeline.state).all()
    assert np.isfinite(timeline.logits).all()


@pytest.mark.parametrize("wrong", [-1, 51, 10**12])
def test_an_id_beyond_the_vocabulary_is_refused_and_nothing_is_fed(model: LoadedModel, wrong: int) -> None:
    timeline = Timeline(model)
    timeline.feed([1, 2])
    kept = memory(timeline)
    for refused in (timeline.feed, timeline.feed_scored):
        with pytest.raises(ValueError, match=f"id {wrong} is not in the vocabulary of 0 to 50"):
            refused([3, wrong])
    with pytest.raises(ValueError, match=str(wrong)):
        timeline.nats(wrong)
    assert timeline.count == 2
    np.testing.assert_array_equal(memory(timeline), kept)


def test_timelines_of_different_models_do_not_mix(model: LoadedModel, float_checkpoint: Checkpoint) -> None:
    mine, other = Timeline(model), Timeline(LoadedModel.of(float_checkpoint))
    with pytest.raises(ValueError, match="different models"):
        mine.copy_from(other)
    with pytest.raises(ValueError, match="different models"):
        mine.rewind(other.mark())


def test_scored_feeding_gives_what_each_id_cost(model: LoadedModel) -> None:
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    scored, stepped = Timeline(model), Timeline(model)
    nats = scored.feed_scored(ids)
    expected = []
    for token in ids:
        expected.append(stepped.nats(token))
        stepped.feed([token])
    np.testing.assert_allclose(nats, expected, atol=1e-6)
    assert nats[0] == pytest.approx(np.log(51))
    assert scored.count == len(ids)
    np.testing.assert_array_equal(memory(scored), memory(stepped))
    assert scored.feed_scored([]).size == 0


def test_the_probabilities_of_all_ids_sum_to_one(model: LoadedModel) -> None:
    timeline = Timeline(model)
    timeline.feed([1, 2, 3])
    assert sum(np.exp(-timeline.nats(token)) for token in range(51)) == pytest.approx(1, abs=1e-5)


def test_sampling_obeys_the_mask_and_feeds_nothing(model: LoadedModel) -> None:
    timeline = Timeline(model)
    timeline.feed([1, 2, 3])
    kept = memory(timeline)
    mask = np.zeros(51, np.bool_)
    mask[[4, 17, 30]] = True
    rng = np.random.default_rng(0)
    drawn = {timeline.sample(mask, Sampling(temperature=3.0), rng) for _ in range(200)}
    assert drawn == {4, 17, 30}
    assert timeline.sample(None, GREEDY, rng) == int(timeline.logits.argmax())
    np.testing.assert_array_equal(memory(timeline), kept)
    with pytest.raises(ValueError, match="allows no id"):
        timeline.sample(np.zeros(51, np.bool_), Sampling(), rng)
    with pytest.raises(ValueError, match="mask has shape"):
        timeline.sample(np.ones(50, np.bool_), Sampling(), rng)


def test_an_empty_timeline_foretells_nothing(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="nothing was fed"):
        Timeline(model).sample(None, Sampling(), np.random.default_rng(0))


def test_the_same_seed_writes_the_same_and_each_draw_takes_one_number(model: LoadedModel) -> None:
    def write(seed: int, sampling: Sampling) -> list[int]:
        timeline, rng, ids = Timeline(model), np.random.default_rng(seed), [1]
        for _ in range(50):
            timeline.feed(ids[-1:])
            ids.append(timeline.sample(None, sampling, rng))
        assert rng.random() == np.random.default_rng(seed).random(51)[50]
        return ids

    bold = Sampling(temperature=1.2, top_p=0.95)
    assert write(1, bold) == write(1, bold)
    assert write(1, bold) != write(2, bold)
    assert write(1, GREEDY) == write(2, GREEDY)


def test_feeding_lets_other_threads_run(model: LoadedModel) -> None:
    """The kernel releases the interpreter lock: with switching all but forbidden, another thread gets on meanwhile."""
    timeline, ticks, done = Timeline(model), [0], threading.Event()
    timeline.feed([0])
    interval = sys.getswitchinterval()
    ids = np.zeros(20_000, np.int32)

    def count() -> None:
        while not done.is_set():
            ticks[0] += 1
            done.wait(0.001)

    other = threading.Thread(target=count)
    sys.setswitchinterval(1000)
    try:
        other.start()
        before = ticks[0]
        timeline.feed(ids)  # type: ignore[arg-type]  # an array is a sequence of ids as well, made without a loop
        after = ticks[0]
    finally:
        sys.setswitchinterval(interval)
        done.set()
        other.join()
    assert after > before + 3


def test_two_threads_may_use_two_timelines_of_one_model(model: LoadedModel) -> None:
    ids = [i % 51 for i in range(2000)]
    alone = Timeline(model)
    alone.feed(ids)
    together = [Timeline(model), Timeline(model)]
    threads = [threading.Thread(target=timeline.feed, args=(ids,)) for timeline in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for timeline in together:
        np.testing.assert_array_equal(memory(timeline), memory(alone))
