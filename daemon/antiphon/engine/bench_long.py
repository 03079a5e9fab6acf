"""Whether a long session costs more than a short one: resident memory and time a token, stretch after stretch.

A timeline writes on and on, drawn with penalties, with a fork and a way back now and then, as a session has them.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampler import Penalties, Sampler, Style
from antiphon.engine.sampling import Sampling
from antiphon.engine.timeline import Timeline

_STYLE = Style(sampling=Sampling(temperature=1.0, top_p=0.98), penalties=Penalties(frequency=0.1, decay=0.996), seed=1)
_FORK_EVERY = 64
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The session after `tokens`: what the process holds in memory, and what a token of this stretch took."""

    tokens: int
    resident_bytes: int
    us_per_token: float


def resident_bytes() -> int:
    """What this process holds in memory (Linux)."""
    return os.sysconf("SC_PAGE_SIZE") * int(_STATM.read_text().split()[1])


def write_long(model: LoadedModel, *, tokens: int, stretches: int) -> Iterator[Stretch]:
    """Write `tokens` in so many stretches; a first one that is not told of lets everything get going."""
    timeline, sampler = Timeline(model), Sampler(vocab_size=model.vocab_size, style=_STYLE)
    timeline.feed((0,))
    each = max(1, tokens // stretches)
    _write(timeline, sampler, min(each, 1000))
    for number in range(stretches):
        began = time.perf_counter()
        _write(timeline, sampler, each)
        took = time.perf_counter() - began
        gc.collect()
        yield Stretch(tokens=(number + 1) * each, resident_bytes=resident_bytes(), us_per_token=1e6 * took / each)


def _write(timeline: Timeline, sampler: Sampler, count: int) -> None:
    for at in range(count):
        token = timeline.draw(sampler.draw())
        sampler.take(token)
        timeline.feed((token,))
        if at % _FORK_EVERY == 0:
            branch = timeline.fork()
            mark = branch.mark()
            branch.feed((token, token))
            branch.rewind(mark)
