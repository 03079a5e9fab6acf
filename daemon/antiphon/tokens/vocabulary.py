"""The vocabulary: which id means which token, as plain arithmetic.

The table is miditok's own (tokens/remi.py builds it there and a test holds the two equal), stated here without
miditok, so that a daemon that only plays need not load it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

from antiphon.errors import AntiphonError
from antiphon.music.meter import Meter
from antiphon.music.normalise import HIGHEST, LOWEST, MAX_LEN_STEPS
from antiphon.music.time import STEPS_PER_QUARTER

PAD, BOS, EOS, BAR = 0, 1, 2, 3
_FIRST_PITCH = 4


_BEATS = (*range(1, 17), 18, 20, 21, 24)


def _default_meters() -> tuple[Meter, ...]:
    return tuple(Meter(beats, unit) for unit in (4, 8, 16) for beats in _BEATS)


@dataclass(frozen=True, slots=True)
class Grid:
    """What the vocabulary can say. Two models with equal grids share their ids.

    lowest, highest: pitches, MIDI numbers. velocities: how many bins share 1..127.
    longest_quarters: the longest note. tempos: how many bins share slowest_bpm..fastest_bpm, evenly in the logarithm.
    meters: with units of 4, 8 or 16 only; bars counted in halves or wholes are counted in quarters.

    Raises AntiphonError for one that cannot say all that the normaliser writes, or says something twice.
    """

    lowest: int = 21
    highest: int = 108
    velocities: int = 16
    longest_quarters: int = 8
    tempos: int = 32
    slowest_bpm: int = 40
    fastest_bpm: int = 250
    meters: tuple[Meter, ...] = field(default_factory=_default_meters)

    def __post_init__(self) -> None:
        fits = (
            0 <= self.lowest <= LOWEST
            and HIGHEST <= self.highest <= 127
            and 1 <= self.velocities <= 127
            and MAX_LEN_STEPS <= self.longest_quarters * STEPS_PER_QUARTER <= 100 * MAX_LEN_STEPS
            and 2 <= self.tempos <= 128
            and 10 <= self.slowest_bpm <= self.fastest_bpm // 2 <= 1000
            and 1 <= len(set(self.meters)) == len(self.meters)
            and all(meter.unit in (4, 8, 16) for meter in self.meters)
        )
        if not fits:
            raise AntiphonError(f"a vocabulary cannot be made for {self}")

    def to_json(self) -> str:
        """The grid as JSON, as it stands in a checkpoint's metadata."""
        plain = asdict(self) | {"meters": [str(meter) for meter in self.meters]}
        return json.dumps({"kind": "remi-quarter", "steps_per_quarter": STEPS_PER_QUARTER} | plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Grid:
        """The grid that `to_json` wrote. Raises AntiphonError for anything else."""
        try:
            values = json.loads(text)
            kind, steps = values.pop("kind"), values.pop("steps_per_quarter")
            meters = tuple(Meter.parse(meter) for meter in values.pop("meters"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AntiphonError(f"not the parameters of a REMI tokenizer: {error}") from error
        if kind != "remi-quarter" or steps != STEPS_PER_QUARTER:
            raise AntiphonError(f"tokenizer {kind!r} with {steps} steps a quarter is not one this version can read")
        numbers = {each.name for each in fields(cls)} - {"meters"}
        if set(values) != numbers or not all(type(value) is int for value in values.values()):
            raise AntiphonError("not the parameters of a REMI tokenizer: some are missing, unknown or no whole numbers")
        return cls(meters=meters, **values)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of ids with one meaning: `first` up to and without `end`."""

    first: int
    end: int

    def __contains__(self, token: int) -> bool:
        return self.first <= token < self.end

    def __len__(self) -> int:
        return self.end - self.first

    def at(self, index: int) -> int:
        """The id of the span's `index`-th token. Raises IndexError outside it."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is outside a span of {len(self)} tokens")
        return self.first + index


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a grid: PAD 0, BOS 1, EOS 2, Bar 3, then pitches, velocities, durations, positions, tempos, meters."""

    grid: Grid = field(default_factory=Grid)

    @cached_property
    def pitches(self) -> Span:
        return Span(_FIRST_PITCH, _FIRST_PITCH + self.grid.highest - self.grid.lowest + 1)

    @cached_property
    def velocities(self) -> Span:
        return Span(self.pitches.end, self.pitches.end + self.grid.velocities)

    @cached_property
    def durations(self) -> Span:
        """Span index i means i + 1 steps."""
        return Span(self.velocities.end, self.velocities.end + self.longest_steps)

    @cached_property
    def positions(self) -> Span:
        """Span index i means step i of the bar."""
        longest = max(meter.len_steps for meter in self.grid.meters)
        return Span(self.durations.end, self.durations.end + longest)

    @cached_property
    def tempos(self) -> Span:
        return Span(self.positions.end, self.positions.end + self.grid.tempos)

    @cached_property
    def meters(self) -> Span:
        return Span(self.tempos.end, self.tempos.end + len(self.grid.meters))

    @property
    def size(self) -> int:
        return self.meters.end

    @property
    def longest_steps(self) -> int:
        """The longest duration, in steps."""
        return self.grid.longest_quarters * STEPS_PER_QUARTER

    @cached_property
    def _velocities(self) -> tuple[int, ...]:
        # np.linspace(0, 127, n + 1)[1:] cut to integers, as miditok has it.
        return tuple(127 * (i + 1) // self.grid.velocities for i in range(self.grid.velocities))

    @cached_property
    def _bpms(self) -> tuple[float, ...]:
        ratio = self.grid.fastest_bpm / self.grid.slowest_bpm
        steps = self.grid.tempos - 1
        return tuple(round(self.grid.slowest_bpm * ratio ** (i / steps), 2) for i in range(self.grid.tempos))

    @cached_property
    def _meter_index(self) -> dict[Meter, int]:
        return {meter: i for i, meter in enumerate(self.grid.meters)}

    def meter_id(self, meter: Meter) -> int:
        """The id of `meter`, counted in quarters where it is counted in halves. Raises AntiphonError if unknown."""
        index = self._meter_index.get(meter.in_quarters)
        if index is None:
            raise AntiphonError(
                f"the model knows no bars of {meter}",
                fix="it knows 1 to 16, 18, 20, 21 and 24 quarters, eighths or sixteenths a bar",
            )
        return self.meters.at(index)

    def meter_of(self, token: int) -> Meter:
        return self.grid.meters[token - self.meters.first]

    def tempo_id(self, bpm: float) -> int:
        """The id of the tempo nearest to `bpm`; the slowest or fastest one beyond the ends."""
        nearest = min(range(len(self._bpms)), key=lambda i: abs(self._bpms[i] - bpm))
        return self.tempos.at(nearest)

    def bpm_of(self, token: int) -> float:
        return self._bpms[token - self.tempos.first]

    def velocity_id(self, velocity: int) -> int:
        """The id of the bin nearest to `velocity` (1..127); the softer one when two are equally near."""
        nearest = min(range(len(self._velocities)), key=lambda i: abs(self._velocities[i] - velocity))
        return self.velocities.at(nearest)

    def velocity_of(self, token: int) -> int:
        return self._velocities[token - self.velocities.first]

    def pitch_id(self, pitch: int) -> int:
        """The id of `pitch`, which must lie between the grid's lowest and highest. Raises IndexError otherwise."""
        return self.pitches.at(pitch - self.grid.lowest)

    def pitch_of(self, token: int) -> int:
        return self.grid.lowest + token - self.pitches.first

    def duration_id(self, len_steps: int) -> int:
        """The id of a duration of 1..longest_steps steps. Raises IndexError otherwise."""
        return self.durations.at(len_steps - 1)

    def duration_of(self, token: int) -> int:
        return token - self.durations.first + 1

    def position_id(self, step: int) -> int:
        return self.positions.at(step)

    def position_of(self, token: int) -> int:
        return token - self.positions.first

    def name(self, token: int) -> str:
        """The token as miditok writes it, such as "Pitch_60". Raises AntiphonError outside the vocabulary."""
        if token in self.pitches:
            return f"Pitch_{self.pitch_of(token)}"
        if token in self.velocities:
            return f"Velocity_{self.velocity_of(token)}"
        if token in self.durations:
            quarters, rest = divmod(self.duration_of(token), STEPS_PER_QUARTER)
            return f"Duration_{quarters}.{rest}.{STEPS_PER_QUARTER}"
        if token in self.positions:
            return f"Position_{self.position_of(token)}"
        if token in self.tempos:
            return f"Tempo_{self.bpm_of(token)}"
        if token in self.meters:
            return f"TimeSig_{self.meter_of(token)}"
        special = {PAD: "PAD_None", BOS: "BOS_None", EOS: "EOS_None", BAR: "Bar_None"}
        if token not in special:
            raise AntiphonError(f"id {token} is outside the vocabulary of {self.size}")
        return special[token]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token by its miditok name."""
        return {self.name(token): token for token in range(self.size)}
