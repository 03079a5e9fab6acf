"""A float timeline is a timeline: the definition's numbers, and every way to go on, back and apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.evaluation.float_voice import float_voice
from antiphon.model import rwkv7
from antiphon.session.voice import Voice
from antiphon.tokens.vocabulary import Vocabulary
from tests.small_model import small_checkpoint

IDS = [1, 3, 570, 250, 40, 100, 130, 44, 101, 140]
WITHIN = 1e-4  # of logits near 1: two orders of the same float32 sums


def timeline() -> Timeline:
    voice = Voice(LoadedModel.of(small_checkpoint()), Vocabulary())
    return float_voice(voice, small_checkpoint()).timeline()


def defined(ids: list[int]) -> torch.Tensor:
    checkpoint = small_checkpoint()
    return rwkv7.sequence(checkpoint.tensors, torch.tensor(ids))[0]


def test_fed_whole_or_in_parts_it_gives_the_definitions_logits() -> None:
    whole, parts = timeline(), timeline()
    whole.feed(IDS)
    for token in IDS:
        parts.feed([token])
    expected = defined(IDS)[-1].numpy()
    np.testing.assert_allclose(whole.logits, expected, atol=WITHIN)
    np.testing.assert_allclose(parts.logits, expected, atol=WITHIN)
    assert whole.count == parts.count == len(IDS)


def test_scores_are_those_of_the_definition() -> None:
    scored = timeline()
    scored.feed(IDS[:2])
    nats = scored.feed_scored(IDS[2:])
    expected = torch.nn.functional.cross_entropy(defined(IDS)[1:-1], torch.tensor(IDS[2:]), reduction="none")
    np.testing.assert_allclose(nats, expected.numpy(), atol=WITHIN)
    assert timeline().feed_scored([]).shape == (0,)
    assert timeline().feed_scored([5])[0] == pytest.approx(np.log(Vocabulary().size), rel=1e-5)


def test_a_fork_goes_its_own_way_and_a_mark_leads_back() -> None:
    trunk = timeline()
    trunk.feed(IDS[:5])
    mark, before = trunk.mark(), trunk.logits.copy()
    branch = trunk.fork()
    branch.feed(IDS[5:])
    np.testing.assert_array_equal(trunk.logits, before)
    np.testing.assert_allclose(branch.logits, defined(IDS)[-1].numpy(), atol=WITHIN)
    trunk.feed([9, 9, 9])
    trunk.rewind(mark)
    np.testing.assert_array_equal(trunk.logits, before)
    trunk.feed(IDS[5:])
    np.testing.assert_array_equal(trunk.logits, branch.logits)
