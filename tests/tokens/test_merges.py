"""Merges: shorter ids for the same music, there and back exactly, group by group."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError, FileError
from antiphon.music.bar import Bar
from antiphon.music.meter import Meter
from antiphon.tokens.encoder import encode
from antiphon.tokens.merges import LONGEST_MERGE, Merges, groups, read_merges, write_merges
from antiphon.tokens.vocabulary import BAR, BOS, EOS, PAD, Grid, Vocabulary
from tests.music.material import VOCABULARY, bars

SIZE = VOCABULARY.size
C, D, E = (VOCABULARY.pitch_id(pitch) for pitch in (60, 62, 64))
SOFT, LOUD = VOCABULARY.velocities.at(3), VOCABULARY.velocities.at(9)
SHORT, LONG = VOCABULARY.duration_id(6), VOCABULARY.duration_id(12)
HERE, THERE = VOCABULARY.position_id(0), VOCABULARY.position_id(12)
FOUR = VOCABULARY.meter_id(Meter(4, 4))
TEMPO = VOCABULARY.tempo_id(120)

MERGES = Merges(
    VOCABULARY,
    (
        (BAR, FOUR),
        (SOFT, SHORT),
        (C, SIZE + 1),  # a whole note
        (HERE, C),
        (HERE, TEMPO),
        (SIZE + 2, SIZE + 2),  # two of them
        (SHORT, E),
        (SIZE + 2, E),
    ),
)
PIECE = [BOS, BAR, FOUR, HERE, TEMPO, C, SOFT, SHORT, E, LOUD, LONG, THERE, C, SOFT, SHORT, BAR, FOUR, BAR, FOUR, EOS]


def test_earlier_merges_come_first_and_ids_that_no_merge_holds_stay() -> None:
    bar, soft, note, at_c, start, _, _, with_e = range(SIZE, MERGES.size)
    assert MERGES.encode([D, LOUD, LONG]) == [D, LOUD, LONG]
    assert MERGES.encode([SOFT, SHORT, E]) == [soft, E], "an earlier merge took the duration away from the pitch"
    # The whole note was learnt before the position with its pitch.
    assert MERGES.encode([HERE, C, SOFT, SHORT]) == [HERE, note]
    assert MERGES.encode([HERE, C, LOUD, SHORT]) == [at_c, LOUD, SHORT]
    assert MERGES.encode(PIECE) == [BOS, bar, start, with_e, LOUD, LONG, THERE, note, bar, bar, EOS]


def test_of_three_alike_the_left_two_are_merged() -> None:
    two = SIZE + 5
    assert MERGES.encode([C, SOFT, SHORT] * 3) == [two, SIZE + 2]


def test_two_ways_to_spell_one_thing_share_an_id() -> None:
    merges = Merges(VOCABULARY, ((SOFT, SHORT), (C, SOFT), (C, SIZE), (SIZE + 1, SHORT), (SIZE + 2, D)))
    assert merges.size == SIZE + 4
    assert merges.spelt[SIZE + 2] == (C, SOFT, SHORT)
    assert merges.encode([C, SOFT, SHORT, D]) == [SIZE + 3]


@given(bars())
def test_music_comes_back_exactly(music: list[Bar]) -> None:
    ids = [BOS, *encode(music, VOCABULARY), EOS]
    merged = MERGES.encode(ids)
    assert MERGES.decode(merged) == ids
    assert len(merged) < len(ids) or not any(pair in MERGES.pairs for pair in pairwise(ids))


@given(st.lists(st.sampled_from(sorted({*PIECE, PAD, D})) | st.integers(0, SIZE - 1), max_size=60))
def test_any_ids_come_back_exactly(ids: list[int]) -> None:
    merged = MERGES.encode(ids)
    assert MERGES.decode(merged) == ids
    assert [token for group in groups(ids, VOCABULARY) for token in group] == ids


def test_groups_are_bars_tempos_and_onsets() -> None:
    assert list(groups(PIECE, VOCABULARY)) == [
        (BOS,),
        (BAR, FOUR),
        (HERE, TEMPO),
        (C, SOFT, SHORT, E, LOUD, LONG),
        (THERE, C, SOFT, SHORT),
        (BAR, FOUR),
        (BAR, FOUR),
        (EOS,),
    ]
    assert list(groups([PAD, PAD, BAR, FOUR, HERE], VOCABULARY)) == [(PAD,), (PAD,), (BAR, FOUR), (HERE,)]
    assert list(groups([], VOCABULARY)) == []


@given(bars(), bars())
def test_a_group_is_encoded_the_same_whatever_stands_around_it(before: list[Bar], after: list[Bar]) -> None:
    first, second = encode(before, VOCABULARY), encode(after, VOCABULARY)
    assert MERGES.encode(first + second) == MERGES.encode(first) + MERGES.encode(second)
    fresh = Merges(VOCABULARY, MERGES.pairs)  # remembers no group yet; the last one comes first
    backwards = [fresh.encode(group) for group in reversed(list(groups(first, VOCABULARY)))]
    assert MERGES.encode(first) == [token for group in reversed(backwards) for token in group]


def test_a_group_that_never_ends_is_cut() -> None:
    endless = [C, SOFT, SHORT] * 400
    assert max(map(len, groups(endless, VOCABULARY))) == 512
    assert MERGES.decode(MERGES.encode(endless)) == endless


def test_no_merges_leave_ids_as_they_are() -> None:
    assert Merges(VOCABULARY, ()).size == SIZE
    assert Merges(VOCABULARY, ()).encode(PIECE) == PIECE


@pytest.mark.parametrize("token", [-1, SIZE, SIZE + 3, 1 << 40])
def test_only_ids_of_the_vocabulary_can_be_encoded(token: int) -> None:
    with pytest.raises(AntiphonError, match=f"id {token} is outside the vocabulary"):
        MERGES.encode([BAR, FOUR, HERE, token])


@pytest.mark.parametrize("token", [-1, MERGES.size])
def test_only_merged_ids_can_be_decoded(token: int) -> None:
    with pytest.raises(AntiphonError, match=f"id {token} at 1 is outside"):
        MERGES.decode([BAR, token])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (((C, SIZE),), "merge 0 joins an id that is not there yet"),
        (((C, SOFT), (SIZE + 1, SHORT)), "merge 1 joins an id that is not there yet"),
        (((-1, SOFT),), "merge 0 joins an id that is not there yet"),
        (((C, SOFT), (C, SOFT)), "merge 1 repeats an earlier one"),
        (((SHORT, THERE),), "reaches over the border of a group"),
        (((SHORT, BAR),), "reaches over the border of a group"),
        (((BOS, BAR),), "reaches over the border of a group"),
        (((PAD, C),), "reaches over the border of a group"),
        (((C, EOS),), "reaches over the border of a group"),
        (((HERE, TEMPO), (SIZE, C)), "reaches over the border of a group"),
        (((THERE, C), (C, SIZE)), "reaches over the border of a group"),
    ],
)
def test_merges_that_cannot_be_are_refused(pairs: tuple[tuple[int, int], ...], message: str) -> None:
    with pytest.raises(AntiphonError, match=message):
        Merges(VOCABULARY, pairs)


def test_merges_cannot_grow_without_end() -> None:
    """Each doubles the one before: sixty of them would stand for more ids than there is memory."""
    doubling = ((C, C), *((SIZE + i, SIZE + i) for i in range(60)))
    with pytest.raises(AntiphonError, match=f"more than {LONGEST_MERGE} ids"):
        Merges(VOCABULARY, doubling)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "merges.json"
    write_merges(path, MERGES)
    read = read_merges(path, VOCABULARY)
    assert read == MERGES
    assert read.spelt == MERGES.spelt
    assert read.encode(PIECE) == MERGES.encode(PIECE)


def test_merges_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "merges.json"
    write_merges(path, MERGES)
    with pytest.raises(FileError, match="another vocabulary") as caught:
        read_merges(path, Vocabulary(Grid(velocities=32)))
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file") as caught:
        read_merges(tmp_path / "none.json", VOCABULARY)
    assert caught.value.where == str(tmp_path / "none.json")


def changed(**values: object) -> bytes:
    return json.dumps(json.loads(MERGES.to_json()) | values).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 200_000,
        b"9" * 10_000,
        changed(kind="words"),
        changed(kind=["remi-merges"]),
        changed(grid={}),
        changed(grid=3),
        changed(pairs=None),
        changed(pairs={"0": [4, 5]}),
        changed(pairs=[4, 5]),
        changed(pairs=[[C, SOFT, SHORT]]),
        changed(pairs=[[C, 100.0]]),
        changed(pairs=[[True, SOFT]]),
        changed(pairs=[["4", "5"]]),
        changed(pairs=[[C, 10**30]]),
        b" " * (5 << 20),
        MERGES.to_json().encode()[:-9],
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_broken_file_is_refused_with_its_name_and_what_to_do(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        read_merges(path, VOCABULARY)
    assert caught.value.where == str(path)
    assert caught.value.fix
