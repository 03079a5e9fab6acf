"""Copy guards: how much of an answer stands so in its prompt, and how long a stretch of it in the training music."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from antiphon.evaluation.archive import Archive
from antiphon.evaluation.measures import bar_sets
from antiphon.evaluation.passage import Passage

LONGEST = 96
"""Longer matches are not told apart: a match of so many notes is a copy."""

_FURTHEST = 1023
"""Steps between two onsets beyond which all silences count alike."""

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def copied_bars(prompt: Passage, answer: Passage) -> float:
    """Share of the answer's bars that the prompt has exactly so: the same onsets with the same pitches, 0..1.

    Bars without a note are left out; durations and velocities may differ.
    """
    theirs = set(bar_sets(prompt))
    mine = bar_sets(answer)
    return sum(bar in theirs for bar in mine) / len(mine) if mine else 0.0


def longest_matches(answers: Sequence[Passage], archive: Archive) -> npt.NDArray[np.int64]:
    """For each answer, the notes of its longest stretch that stands in one training piece as well, `LONGEST` at most.

    Notes follow each other by onset and pitch. Two stretches match when they have the same intervals between
    successive pitches and the same steps between successive onsets: in any key, at any place of the bar; durations
    and velocities do not count.
    """
    trained = _moves(archive.pitch, _absolute(archive))
    asked = [_moves(answer.pitch, answer.step) for answer in answers]
    starts = np.cumsum([0, *map(len, asked)])
    moves = np.concatenate([*asked, np.zeros(0, np.uint64)])
    owner = np.repeat(np.arange(len(answers)), np.diff(starts))
    mine, mine_end = np.arange(len(moves)), starts[1:][owner]
    last_of_piece = (
        archive.first_note[archive.piece_first_bar[1:]] - 1
    )  # a move leads from each note but a piece's last
    piece = archive.piece[archive.bar]
    theirs = np.arange(len(trained))
    theirs_end = last_of_piece[piece[:-1]] if len(trained) else np.zeros(0, np.int64)
    longest = np.array([min(1, len(answer)) for answer in answers], np.int64)
    my_hash, their_hash = np.zeros(len(mine), np.uint64), np.zeros(len(theirs), np.uint64)
    for length in range(1, LONGEST):
        mine, my_hash = _longer(mine, mine_end, my_hash, moves, length)
        theirs, their_hash = _longer(theirs, theirs_end, their_hash, trained, length)
        known = np.unique(my_hash)
        kept = _among(their_hash, known)
        theirs, their_hash = theirs[kept], their_hash[kept]
        kept = _among(my_hash, np.unique(their_hash))
        mine, my_hash = mine[kept], my_hash[kept]
        if not len(mine):
            break
        longest[owner[mine]] = length + 1
    return longest


def _longer(at: Places, end: Places, hashes: Hashes, moves: Hashes, length: int) -> tuple[Places, Hashes]:
    """The stretches that have a `length`-th move, with it taken into their hashes."""
    room = at + length <= end[at]
    at, hashes = at[room], hashes[room]
    return at, _mixed(hashes * np.uint64(0x9E3779B97F4A7C15) + moves[at + length - 1])


def _among(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
    return found


def _moves(pitch: npt.NDArray[np.signedinteger], step: npt.NDArray[np.signedinteger]) -> Hashes:
    """A number for each way from one note to the next: its interval, and the steps between the onsets."""
    apart = np.clip(np.diff(step.astype(np.int64)), -1, _FURTHEST) + 1
    return _mixed((apart * 256 + np.diff(pitch.astype(np.int64)) + 128).astype(np.uint64))


def _absolute(archive: Archive) -> Places:
    """Onsets counted through the whole archive."""
    line = np.cumsum(archive.bar_steps, dtype=np.int64) - archive.bar_steps
    steps: Places = line[archive.bar] + archive.step
    return steps


def _mixed(numbers: Hashes) -> Hashes:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014): unequal numbers become unlike ones."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    done: Hashes = mixed ^ (mixed >> np.uint64(31))
    return done
