"""A call to be answered: the prompt, the bars that a human wrote after it, and which song they are of."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.evaluation.passage import Passage
from antiphon.music.bar import Bar
from antiphon.music.meter import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`prompt` and `target` bars, all of one meter, each with notes and ended on its last bar line (`as_written`).

    number: the call's place among those that are answered, from 0; seeds are drawn from it. elsewhere: bars from
    another place of the same song, as many as the target has, or none.
    """

    number: int
    name: str
    song: str
    prompt: tuple[Bar, ...]
    target: tuple[Bar, ...]
    elsewhere: tuple[Bar, ...] = ()

    @property
    def meter(self) -> Meter:
        return self.prompt[0].meter

    @property
    def bpm(self) -> float:
        return self.prompt[-1].bpm

    @property
    def bars(self) -> int:
        """How many bars are asked for."""
        return len(self.target)

    @property
    def heard(self) -> Passage:
        """The prompt as arrays."""
        return Passage.of(self.prompt)
