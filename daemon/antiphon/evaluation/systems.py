"""The systems that answer calls: the model, and every baseline that it must be set beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from antiphon.engine.sampling import Sampling
from antiphon.evaluation import simple_answers
from antiphon.evaluation.call import Call
from antiphon.evaluation.ngram_answers import CACHE_SHARE, Counted, NgramAnswers
from antiphon.evaluation.retrieval import Retrieval
from antiphon.music.bar import Bar, BarNote
from antiphon.music.normalise import piece_of
from antiphon.music.time import TICKS_PER_STEP
from antiphon.session.answer import Ask
from antiphon.session.offline import continue_piece
from antiphon.session.voice import Voice
from antiphon.tokens.vocabulary import Vocabulary
from antiphon.training.corpus import Corpus

NGRAM_ORDERS = (3, 8)
HUMAN, RETRIEVAL, MODEL = "human", "retrieval", "model"


class Answerer(Protocol):
    """Answers a call: as many bars as its target has, in its meter. Equal seeds give equal answers."""

    def __call__(self, call: Call, *, seed: int) -> tuple[Bar, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One that answers. chance: whether another seed gives another answer."""

    name: str
    answer: Answerer
    chance: bool = True


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """The answers of `antiphon answer`: the same path, from the prompt alone."""

    voice: Voice
    sampling: Sampling

    def __call__(self, call: Call, *, seed: int) -> tuple[Bar, ...]:
        ask = Ask(meter=call.meter, bars=call.bars, sampling=self.sampling, seed=seed * 1_000_003 + call.number)
        given = continue_piece(piece_of(call.prompt), voice=self.voice, ask=ask, context_bars=len(call.prompt))
        bar_steps = call.meter.in_quarters.len_steps
        bars: list[list[BarNote]] = [[] for _ in range(call.bars)]
        for note in given.notes:
            # Nothing is mended on the way: a note beyond the last bar would be seen to lie there.
            step = (note.start_tick - given.line.tick) // TICKS_PER_STEP
            bar = min(step // bar_steps, call.bars - 1)
            length = note.len_ticks // TICKS_PER_STEP
            bars[bar].append(BarNote(step - bar * bar_steps, note.pitch, length, note.velocity))
        return tuple(Bar(call.meter, tuple(sorted(inside)), call.bpm) for inside in bars)


def simple_systems() -> list[System]:
    """The systems that need no training music, the human first."""
    return [
        System(name=HUMAN, answer=simple_answers.human, chance=False),
        System(name="same song elsewhere", answer=simple_answers.elsewhere, chance=False),
        System(name="repeat the prompt", answer=simple_answers.repeat_prompt, chance=False),
        System(name="repeat the last bar", answer=simple_answers.repeat_last_bar, chance=False),
        System(name="random in the scale", answer=simple_answers.random_in_scale),
    ]


def trained_systems(corpus: Corpus, retrieval: Retrieval, vocabulary: Vocabulary) -> list[System]:
    """The systems that look up or count training music."""
    systems = [
        System(name=RETRIEVAL, answer=retrieval),
        System(name="other song, in key", answer=retrieval.other_song),
    ]
    for order in NGRAM_ORDERS:
        counted = Counted(corpus, size=vocabulary.size, order=order)
        systems.append(System(name=f"n-gram, order {order}", answer=NgramAnswers(counted, vocabulary)))
    cached = NgramAnswers(counted, vocabulary, CACHE_SHARE)
    return [*systems, System(name=f"n-gram, order {NGRAM_ORDERS[-1]}, cache", answer=cached)]
