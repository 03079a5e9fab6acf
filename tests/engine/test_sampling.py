from __future__ import annotations

import math
from typing import Any

import pytest

from antiphon.engine.sampling import GREEDY, Sampling


def test_plain_sampling_cuts_nothing() -> None:
    assert Sampling() == Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    assert GREEDY.temperature == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 1.01},
        {"top_p": math.nan},
        {"top_k": -1},
        {"top_k": 2.5},
        {"top_k": True},
        {"min_p": -0.01},
    ],
)
def test_what_no_sampler_can_mean_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
