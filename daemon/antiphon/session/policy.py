"""Call and response: when a call begins, when it is answered, and when the box gives way."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.engine.sampling import Sampling
from antiphon.music.meter import Meter
from antiphon.session.leaning import Likeness
from antiphon.tokens.grammar import Bounds


@dataclass(frozen=True, slots=True)
class Policy:
    """How one player is answered.

    listen_bars, answer_bars: bars heard, then bars answered. commit_ms: onsets dated this near to now are frozen.
    ahead_ms: how much earlier than it is due an onset is sent off, for a synthesizer that sounds late.
    yield_after_beats: an onset this late into an answer is the player coming back in; earlier ones end the phrase.
    pickup_beats: an onset this near before a bar line is an upbeat: the call's bars count from that line.
    remember_answers: whether the conversation that the model knows holds the answers, or the player's bars alone.
    likeness, closes, copies: how near to the call an answer stays and how it ends, see `Ask`.
    """

    listen_bars: int = 4
    answer_bars: int = 4
    commit_ms: int = 60
    ahead_ms: int = 0
    yield_after_beats: float = 1.0
    pickup_beats: float = 0.5
    remember_answers: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    bounds: Bounds = field(default_factory=Bounds)
    likeness: Likeness = field(default_factory=Likeness)
    closes: bool = True
    copies: bool = False
    seed: int | None = None

    @property
    def ahead_ns(self) -> int:
        return self.ahead_ms * 1_000_000

    @property
    def commit_ns(self) -> int:
        """How far ahead of now onsets are frozen, the way to the synthesizer included."""
        return self.commit_ms * 1_000_000 + self.ahead_ns

    def yield_after_ticks(self, meter: Meter) -> int:
        return round(self.yield_after_beats * meter.beat_ticks)

    def is_pickup(self, tick: int, *, bar_end_tick: int, meter: Meter) -> bool:
        """Whether an onset at `tick` leads into the bar at `bar_end_tick` rather than belonging to its own."""
        return bar_end_tick - tick <= self.pickup_beats * meter.beat_ticks
