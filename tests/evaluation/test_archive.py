"""The archive of training music, and what is looked up in it: passages, continuations, copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation.small_calls import VOCABULARY, calls, corpus_of, passage, small_corpus, tune
from training.small_corpus import random_corpus

from antiphon.errors import FileError
from antiphon.evaluation.archive import Archive
from antiphon.evaluation.copying import LONGEST, copied_bars, longest_matches
from antiphon.evaluation.passage import Passage, as_written, laid
from antiphon.evaluation.retrieval import Retrieval
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import COMMON_TIME, Meter
from antiphon.music.normalise import placed
from antiphon.tokens.decoder import decode
from antiphon.tokens.vocabulary import BAR
from antiphon.training.corpus import pack_pieces

WALTZ = Meter(3, 4)


def moved(bars: tuple[Bar, ...], up: int) -> tuple[Bar, ...]:
    return tuple(replace(bar, notes=tuple(replace(n, pitch=n.pitch + up) for n in bar.notes)) for bar in bars)


def test_the_archive_holds_what_the_decoder_reads() -> None:
    corpus = random_corpus(pieces=6, seed=4)
    archive = Archive.of(corpus, VOCABULARY)
    for piece in range(len(corpus)):
        first, end = (int(bar) for bar in archive.piece_first_bar[piece : piece + 2])
        bars = decode(corpus.piece(piece).tolist(), VOCABULARY)
        assert [archive.meters[m] for m in archive.meter[first:end]] == [bar.meter for bar in bars]
        assert (archive.piece[first:end] == piece).all()
        for index, bar in enumerate(bars):
            assert archive.notes(first + index, bars=1) == list(bar.notes)


def test_passages_are_of_one_meter_and_one_piece() -> None:
    rng = np.random.default_rng(0)
    mixed = (*tune(rng, bars=5), *tune(rng, bars=4, meter=WALTZ), *tune(rng, bars=3))
    archive = Archive.of(corpus_of([mixed, tune(rng, bars=3)]), VOCABULARY)
    assert archive.passages(bars=3, meter=COMMON_TIME).tolist() == [0, 1, 2, 9, 12]
    assert archive.passages(bars=4, meter=WALTZ).tolist() == [5]
    assert archive.passages(bars=40, meter=WALTZ).tolist() == []
    starts = archive.passages(bars=2, meter=COMMON_TIME)
    counted = [len(archive.notes(int(first), bars=2)) for first in starts]
    assert archive.notes_in(starts, bars=2).tolist() == counted
    assert [n.step >= 48 for n in archive.notes(0, bars=2)].count(True) == len(mixed[1].notes)


@pytest.mark.parametrize(
    "ids", [[BAR, VOCABULARY.meters.first], [BAR, VOCABULARY.meters.first, VOCABULARY.positions.first, 50]]
)
def test_ids_that_spell_no_music_are_refused(ids: list[int]) -> None:
    with pytest.raises(FileError):
        Archive.of(pack_pieces([ids], ["nothing"]), VOCABULARY)


def test_retrieval_finds_the_prompt_in_another_key_and_plays_what_follows_there() -> None:
    call = calls()[3]
    rng = np.random.default_rng(5)
    follows = as_written(tune(rng, bars=4), VOCABULARY)
    hidden = (*tune(rng, bars=2), *moved(call.prompt, -4), *moved(follows, -4))
    corpus = corpus_of([tune(rng, bars=20), hidden, *(tune(rng, bars=16) for _ in range(6))])
    answer = Retrieval(Archive.of(corpus, VOCABULARY))(call, seed=0)
    assert [(n.step, n.pitch, n.len_steps) for n in placed(answer)] == [
        (n.step, n.pitch, n.len_steps) for n in placed(follows)
    ]


def test_another_seed_takes_the_next_piece_and_blind_retrieval_keeps_to_the_key() -> None:
    retrieval = Retrieval(Archive.of(small_corpus(), VOCABULARY))
    call = calls()[0]
    found = retrieval.shelf(call).nearest(call.heard, count=5)
    pieces = [int(Archive.of(small_corpus(), VOCABULARY).piece[first]) for first, _ in found]
    assert len(set(pieces)) == 5
    assert retrieval(call, seed=0) != retrieval(call, seed=1)
    for each in calls():
        other = Passage.of(retrieval.other_song(each, seed=0))
        assert abs(float(other.pitch.mean() - each.heard.pitch.mean())) < 16
        assert other.bars == each.bars


def test_a_meter_that_the_archive_lacks_is_refused() -> None:
    retrieval = Retrieval(Archive.of(small_corpus(), VOCABULARY))
    rng = np.random.default_rng(1)
    waltz = replace(calls()[0], prompt=tune(rng, bars=4, meter=WALTZ), target=tune(rng, bars=4, meter=WALTZ))
    assert not retrieval.knows(waltz)
    assert retrieval.knows(calls()[0])
    with pytest.raises(FileError, match="3/4"):
        retrieval(waltz, seed=0)


def test_copied_bars_have_the_same_onsets_and_pitches() -> None:
    prompt = passage([(0, 60), (12, 62), (48, 60, 6, 9)])
    same_but_longer = passage([(0, 60, 24, 99), (96, 60), (108, 62), (144, 60), (156, 63)])
    assert copied_bars(prompt, same_but_longer) == pytest.approx(2 / 3)


def longest_by_hand(answer: Passage, pieces: list[list[BarNote]]) -> int:
    """The definition: try every stretch at every place."""
    mine = list(zip(answer.step.tolist(), answer.pitch.tolist(), strict=True))
    best = min(1, len(mine))
    for piece in pieces:
        theirs = [(n.step, n.pitch) for n in piece]
        for i in range(len(mine)):
            for j in range(len(theirs)):
                length = 1
                while (
                    i + length < len(mine)
                    and j + length < len(theirs)
                    and mine[i + length][0] - mine[i + length - 1][0]
                    == theirs[j + length][0] - theirs[j + length - 1][0]
                    and mine[i + length][1] - mine[i + length - 1][1]
                    == theirs[j + length][1] - theirs[j + length - 1][1]
                ):
                    length += 1
                best = max(best, length)
    return best


def test_the_longest_match_is_what_trying_every_stretch_finds() -> None:
    rng = np.random.default_rng(2)
    pieces = [tune(rng, bars=6) for _ in range(5)]
    archive = Archive.of(corpus_of(pieces), VOCABULARY)
    answers = [Passage.of(tune(rng, bars=4)) for _ in range(6)] + [passage([(0, 60)]), passage([])]
    notes = [placed(piece) for piece in pieces]
    assert longest_matches(answers, archive).tolist() == [longest_by_hand(answer, notes) for answer in answers]


def test_a_match_is_found_in_any_key_and_at_any_place_but_not_across_pieces() -> None:
    rng = np.random.default_rng(6)
    first, second = (tune(rng, bars=8) for _ in range(2))
    archive = Archive.of(corpus_of([first, second]), VOCABULARY)
    inside = placed(first)[3:13]
    shifted = [replace(n, step=n.step - inside[0].step + 5, pitch=n.pitch + 3, velocity=1) for n in inside]
    across = [*placed(first)[-4:], *(replace(n, step=n.step + 8 * 48) for n in placed(second)[:4])]
    across = [replace(n, step=n.step - across[0].step) for n in across]
    answers = [Passage.of(laid(notes, meter=COMMON_TIME, bars=8, bpm=100)) for notes in (shifted, across)]
    assert longest_matches(answers[:1], archive).tolist() == [len(inside)]
    assert longest_matches(answers[1:], archive)[0] < len(across)


def test_a_match_is_counted_to_a_limit() -> None:
    notes = [(step, 60 + step % 7) for step in range(0, 48 * 12, 4)]
    piece = laid((BarNote(*n, 4, 64) for n in notes), meter=COMMON_TIME, bars=12, bpm=100)
    archive = Archive.of(corpus_of([piece]), VOCABULARY)
    assert longest_matches([Passage.of(piece)], archive).tolist() == [LONGEST]
