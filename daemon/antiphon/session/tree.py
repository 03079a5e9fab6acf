"""The worker's side of a co-pilot: the trunk timeline, and the branch on which an answer is written.

Every method runs as a job on the one thread that owns the model. Jobs may arrive out of turn (an earlier deadline goes
first) or after their reason is gone, so each names the take it belongs to, and feeding says where its ids begin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from antiphon.engine.timeline import Timeline
from antiphon.music.bar import BarNote
from antiphon.session.answer import Answer, Ask
from antiphon.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Settled:
    """Ids of the trunk that may not have been fed yet: `ids` begin at the `start`-th of the take."""

    take: int
    start: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What a job wrote: the answer as it stands, its new notes, how far it is, how many ids the trunk has been fed.

    tokens, spent_ns: how many tokens the job fed or sampled, and how long that took.
    """

    answer: Answer
    new: tuple[BarNote, ...]
    until_step: int
    done: bool
    trunk_count: int
    tokens: int
    spent_ns: int


class Tree:
    """Two timelines of one model: `trunk` is the conversation, `branch` an answer to it.

    clock_ns: a clock to measure the model by; nothing that is played depends on it.
    """

    def __init__(
        self,
        *,
        trunk: Timeline,
        branch: Timeline,
        vocabulary: Vocabulary,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.trunk = trunk
        self._branch = branch
        self._root = trunk.fork()  # the model before it has heard anything
        self._vocabulary = vocabulary
        self._clock_ns = clock_ns
        self._take = 0
        self._owner: Answer | None = None

    def reset(self, take: int) -> None:
        """Forget everything; from here on only jobs of `take` count."""
        self._take = take
        self._owner = None
        self.trunk.copy_from(self._root)

    def feed(self, settled: Settled) -> int:
        """Bring the trunk up to `settled`; gives how many ids it has been fed. Doing it twice does no harm."""
        if settled.take != self._take:
            return 0
        self.trunk.feed(settled.ids[max(0, self.trunk.count - settled.start) :])
        return self.trunk.count

    def begin(
        self,
        settled: Settled,
        *,
        rest: Sequence[int],
        ask: Ask,
        given: Sequence[BarNote],
        held_back: int,
        until_step: int,
        max_tokens: int,
    ) -> Written | None:
        """Fork the trunk, feed it `rest`, and begin an answer; None if the take is over.

        given, held_back: what sounds already before step `held_back`, see `Answer.begin_with`.
        """
        began_ns, fed = self._clock_ns(), self.trunk.count
        count = self.feed(settled)
        if settled.take != self._take:
            return None
        self._branch.copy_from(self.trunk)
        self._branch.feed(rest)
        answer = Answer(self._branch, self._vocabulary, ask)
        if held_back:
            answer.begin_with(given, until_step=held_back)
        self._owner = answer
        return self._write(answer, until_step, max_tokens, began_ns=began_ns, tokens=count - fed + len(rest))

    def go_on(self, answer: Answer, *, until_step: int, max_tokens: int) -> Written | None:
        """Write on; None if another answer has taken the branch."""
        if self._owner is not answer:
            return None
        return self._write(answer, until_step, max_tokens, began_ns=self._clock_ns(), tokens=0)

    def _write(self, answer: Answer, until_step: int, max_tokens: int, *, began_ns: int, tokens: int) -> Written:
        before = answer.tokens
        new = answer.write(until_step=until_step, max_tokens=max_tokens)
        return Written(
            answer=answer,
            new=tuple(new),
            until_step=answer.written_until,
            done=answer.done,
            trunk_count=self.trunk.count,
            tokens=tokens + answer.tokens - before,
            spent_ns=self._clock_ns() - began_ns,
        )
