"""An answer in the making: a branch of the conversation, sampled under the grammar, note by note."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from antiphon.engine.sampling import Sampling
from antiphon.engine.timeline import Timeline
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.session.leaning import Leaning, Likeness
from antiphon.session.moving_on import keep_moving_on, moves_of
from antiphon.session.portrait import Portrait
from antiphon.session.trunk import MOST_HEARD
from antiphon.tokens.copies import tree_of
from antiphon.tokens.decoder import BarDecoder
from antiphon.tokens.encoder import BarEncoder
from antiphon.tokens.grammar import AnswerGrammar, Bounds
from antiphon.tokens.vocabulary import BAR, Vocabulary


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for: how many bars, in which meter, within which bounds, sampled how and from which seed.

    heard: the bars that are answered, up to the answer's bar line; the last `MOST_HEARD` count. likeness: how closely
    the answer keeps to them. closes: the last onset falls on a strong beat of the last bar. copies: whether a bar that
    was heard may come again, pitch for pitch and step for step.
    """

    meter: Meter
    bars: int
    bounds: Bounds = field(default_factory=Bounds)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    heard: tuple[Bar, ...] = ()
    likeness: Likeness = field(default_factory=Likeness)
    closes: bool = True
    copies: bool = False


@dataclass(slots=True)
class Answer:
    """Writes one answer on `timeline`, which must stand at the answer's first bar line and belongs to it from here on.

    notes: what has been written so far, steps counted from the answer's first bar line, in order of onset.
    nats, tokens: what the writing cost the model, by its own unmasked probabilities.
    """

    timeline: Timeline
    vocabulary: Vocabulary
    ask: Ask
    notes: list[BarNote] = field(default_factory=list)
    nats: float = 0.0
    tokens: int = 0
    _grammar: AnswerGrammar = field(init=False)
    _leaning: Leaning | None = field(init=False, default=None)
    _decoder: BarDecoder = field(init=False)
    _random: np.random.Generator = field(init=False)
    _moves: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        heard = self.ask.heard[-MOST_HEARD:]
        self._grammar = AnswerGrammar(
            vocabulary=self.vocabulary,
            meter=self.ask.meter,
            bars=self.ask.bars,
            bounds=self.ask.bounds,
            closes=self.ask.closes,
            copies=None if self.ask.copies else tree_of(heard),
        )
        portrait = Portrait.of(heard)
        if portrait is not None:
            self._leaning = Leaning(vocabulary=self.vocabulary, portrait=portrait, likeness=self.ask.likeness)
        self._decoder = BarDecoder(self.vocabulary)
        self._random = np.random.default_rng(self.ask.seed)
        self._moves = moves_of(self.vocabulary)

    @property
    def done(self) -> bool:
        """Whether the last bar is whole."""
        return self._grammar.done

    @property
    def written_until(self) -> int:
        """Every onset before this step is written; the answer's whole length when it is done."""
        return self._grammar.total_steps if self.done else self._grammar.here

    def begin_with(self, given: Sequence[BarNote], *, until_step: int) -> None:
        """Take `given` (steps from the first bar line, all before `until_step`) as already sounding.

        They are the answer's own frozen onsets, planned before. Nothing else will be written
        before `until_step`. Call it once, before anything is written.
        """
        bar_steps = self.ask.meter.in_quarters.len_steps
        for index in range(min(until_step, self._grammar.total_steps - 1) // bar_steps + 1):
            start = index * bar_steps
            inside = tuple(replace(n, step=n.step - start) for n in given if start <= n.step < start + bar_steps)
            bar = Bar(self.ask.meter, inside)
            self._feed(BarEncoder(self.vocabulary, self.vocabulary.tempo_id(bar.bpm)).bar(bar))
        self._grammar.hold_back(until_step=until_step)

    def write(self, *, until_step: int, max_tokens: int) -> list[BarNote]:
        """Write on until every onset before `until_step` is there, or `max_tokens` are spent; gives the new notes."""
        new: list[BarNote] = []
        for _ in range(max_tokens):
            if self.written_until >= until_step or self.done:
                break
            token = self._drawn()
            self.nats += self.timeline.nats(token)
            self.tokens += 1
            note = self._take(token)
            if not self.done:
                self.timeline.feed([token])
            if note is not None:
                new.append(note)
        self.notes += new
        return new

    def _drawn(self) -> int:
        mask = self._grammar.mask()
        offsets = None if self._leaning is None else self._leaning.offsets(self._grammar)
        if self._grammar.last_token in self.vocabulary.durations:
            if offsets is None:
                offsets = np.zeros(self.vocabulary.size, dtype=np.float32)
            keep_moving_on(offsets, logits=self.timeline.logits, mask=mask, moves=self._moves)
        return self.timeline.sample(mask, self.ask.sampling, self._random, offsets=offsets)

    def write_all(self) -> list[BarNote]:
        """Write to the end."""
        while not self.done:
            self.write(until_step=self._grammar.total_steps + 1, max_tokens=256)
        return self.notes

    @property
    def nats_per_note(self) -> float:
        return self.nats / len(self.notes) if self.notes else math.nan

    def _feed(self, ids: Sequence[int]) -> None:
        for token in ids:
            self._take(token)
        self.timeline.feed(ids)

    def _take(self, token: int) -> BarNote | None:
        self._grammar.feed(token)
        if token == BAR and self.done:
            return None
        note = self._decoder.feed(token)
        if note is None:
            return None
        return replace(note, step=self._decoder.bar * self.ask.meter.in_quarters.len_steps + note.step)
