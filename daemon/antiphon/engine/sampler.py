"""Chooses the ids of one text or piece, and remembers what that takes: the seed, how many were drawn, what occurred.

Everything that the next draw depends on, besides the logits, lies in `Sampler.seed`, `drawn`, `step` and `counts`; a
sampler that is made anew from these goes on exactly as the first would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from antiphon.engine.runner import Draw, Floats, Mask
from antiphon.engine.sampling import Sampling
from antiphon_kernels.sample import numba_cpu
from antiphon_kernels.sample.reference import uniform

SEEDS = 1 << 64
MAX_SHIFT = 1e6
"""Larger than any logit: a bias beyond it would only serve to overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """What an id is made to pay for having occurred: presence + frequency * its count.

    presence, frequency: -2 .. 2 is usual. decay: in (0, 1]; by how much every count fades with each id chosen. weight:
    what an id adds to its own count; `light_weight` is that of ids below `light_below`. Raises ValueError for anything
    else. Sources: RWKV-Runner (presence, frequency, decay); ChatRWKV's music demo, which counts waits and controls as
    0.3 and notes as 1.
    """

    presence: float = 0.0
    frequency: float = 0.0
    decay: float = 1.0
    light_below: int = 0
    light_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("presence", "frequency", "light_weight"):
            _require_number(name, getattr(self, name))
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}, but must be above 0 and at most 1")
        if isinstance(self.light_below, bool) or not isinstance(self.light_below, int) or self.light_below < 0:
            raise ValueError(f"light_below is {self.light_below}, but must be a whole number, 0 or more")

    @property
    def cost_nothing(self) -> bool:
        """Whether no id ever pays."""
        return self.presence == 0 and self.frequency == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A bias that moves: `first` at step 0, `per_step` more with each id chosen, within `least` .. `most`.

    The published MIDI models are sampled with one on their end id, from -4 up by 1/500 an id: discourages an early end
    and forces a late one. Raises ValueError for numbers that are not finite.
    """

    token: int
    first: float
    per_step: float
    least: float = -MAX_SHIFT
    most: float = MAX_SHIFT

    def __post_init__(self) -> None:
        if isinstance(self.token, bool) or not isinstance(self.token, int) or self.token < 0:
            raise ValueError(f"token is {self.token}, but must be an id")
        for name in ("first", "per_step", "least", "most"):
            _require_number(name, getattr(self, name))

    def at(self, step: int) -> float:
        """The bias of the id chosen at `step`."""
        return min(max(self.first + self.per_step * step, self.least), self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Everything that is decided about a sampler before it begins.

    biases: what is added to the logits of ids, at most `MAX_SHIFT` either way. seed: 0 .. 2**64 - 1. Raises ValueError
    for anything else.
    """

    sampling: Sampling = field(default_factory=Sampling)
    penalties: Penalties = field(default_factory=Penalties)
    biases: Mapping[int, float] = field(default_factory=dict)
    drift: Drift | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed is {self.seed}, but must be a whole number from 0 to 2**64 - 1")
        for token, bias in self.biases.items():
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise ValueError(f"a bias is for {token!r}, which is no id")
            _require_number(f"the bias of id {token}", bias)


class Sampler:
    """Draws ids in one `style` from a vocabulary of `vocab_size`; at first nothing has occurred."""

    __slots__ = ("_biases", "_counts", "drawn", "step", "style", "vocab_size")

    def __init__(self, *, vocab_size: int, style: Style) -> None:
        self.style = style
        self.vocab_size = vocab_size
        self.drawn = 0
        """Numbers taken from the seed so far."""
        self.step = 0
        """Ids taken since the drift began."""
        tokens = [*style.biases, *([] if style.drift is None else [style.drift.token])]
        if any(token >= vocab_size for token in tokens):
            raise ValueError(f"id {max(tokens)} has a bias, but is not in the vocabulary of 0 to {vocab_size - 1}")
        self._counts: Floats | None = None
        self._biases: Floats | None = None
        if not style.penalties.cost_nothing:
            self._counts = np.zeros(vocab_size, np.float32)
        if tokens or self._counts is not None:
            self._biases = np.zeros(vocab_size, np.float32)
            for token, bias in style.biases.items():
                self._biases[token] = bias

    @property
    def counts(self) -> Floats | None:
        """How often each id [V] has occurred, faded; None where that costs nothing. The caller may not change it."""
        return self._counts

    def draw(self, mask: Mask | None = None, *, offsets: Floats | None = None) -> Draw:
        """How the next id is to be drawn; takes one number from the seed."""
        sampling = self.style.sampling
        seen, shifts = self._shifts()
        number = uniform(self.style.seed, self.drawn)
        self.drawn += 1
        return Draw(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            uniform=number,
            mask=mask,
            offsets=offsets,
            seen=seen,
            shifts=shifts,
        )

    def take(self, token: int) -> None:
        """`token` was chosen: it counts, and the drift moves on."""
        self.count((token,))
        self.step += 1

    def count(self, tokens: Iterable[int]) -> None:
        """`tokens` occurred without having been chosen, for example in a prompt."""
        if self._counts is None:
            return
        rule = self.style.penalties
        for token in tokens:
            weight = rule.light_weight if token < rule.light_below else 1.0
            numba_cpu.tally(self._counts, token, weight=weight, decay=rule.decay)

    def restart_drift(self) -> None:
        """Begin the drift again: without that, one that forces an end would end every piece from some step on."""
        self.step = 0

    def fork(self) -> Sampler:
        """A sampler that goes on from here by itself."""
        return Sampler.restored(
            vocab_size=self.vocab_size, style=self.style, drawn=self.drawn, step=self.step, counts=self._counts
        )

    @classmethod
    def restored(cls, *, vocab_size: int, style: Style, drawn: int, step: int, counts: npt.ArrayLike | None) -> Sampler:
        """The sampler of `style` that had drawn `drawn` numbers, stood at `step` and had counted `counts` [V].

        ValueError when these do not belong to the style.
        """
        sampler = cls(vocab_size=vocab_size, style=style)
        if (counts is None) != (sampler._counts is None):
            raise ValueError("counts belong to a sampler with penalties, and to no other")
        if not (0 <= drawn < SEEDS and step >= 0):
            raise ValueError(f"{drawn} numbers drawn and step {step} cannot be")
        sampler.drawn, sampler.step = drawn, step
        if counts is not None and sampler._counts is not None:
            given = np.asarray(counts, np.float32)
            if given.shape != sampler._counts.shape or not (np.isfinite(given) & (given >= 0)).all():
                raise ValueError(f"the counts must be {vocab_size} finite numbers, none below 0")
            np.copyto(sampler._counts, given)
        return sampler

    def _shifts(self) -> tuple[npt.NDArray[np.int32] | None, Floats | None]:
        if self._biases is None:
            return None, None
        if self.style.drift is not None:
            drift = self.style.drift
            self._biases[drift.token] = self.style.biases.get(drift.token, 0.0) + drift.at(self.step)
        if self._counts is None:
            seen = np.flatnonzero(self._biases).astype(np.int32)
            return seen, self._biases[seen]
        rule = self.style.penalties
        return numba_cpu.shifts_of(self._counts, self._biases, presence=rule.presence, frequency=rule.frequency)


def _require_number(name: str, value: float) -> None:
    if not (math.isfinite(value) and abs(value) <= MAX_SHIFT):
        raise ValueError(f"{name} is {value}, but must be a number from {-MAX_SHIFT:g} to {MAX_SHIFT:g}")
