"""A packed corpus is read as it was written, or refused; a folder becomes one, without the files that are no music."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training.small_corpus import VOCABULARY, random_bars, random_corpus

from antiphon.errors import FileError
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.tokens.decoder import decode
from antiphon.tokens.vocabulary import Grid, Vocabulary
from antiphon.training.corpus import read_corpus, write_corpus
from antiphon.training.prepare import midi_files, prepare


def write_midi(path: Path, seed: int) -> None:
    piece = piece_of(random_bars(np.random.default_rng(seed), bars=6))
    write_parts(
        path, parts=[Part("music", piece.notes, 0)], meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    corpus = random_corpus(pieces=5)
    write_corpus(tmp_path / "c.npz", corpus, VOCABULARY)
    found = read_corpus(tmp_path / "c.npz", VOCABULARY)
    np.testing.assert_array_equal(found.ids, corpus.ids)
    assert found.names == corpus.names == tuple(f"piece {i}" for i in range(5))
    assert [found.piece(i).tolist() for i in range(len(found))] == [corpus.piece(i).tolist() for i in range(5)]
    assert found.fingerprint() == corpus.fingerprint() != random_corpus(pieces=5, seed=1).fingerprint()
    assert found.where == str(tmp_path / "c.npz")


def test_where_pieces_begin_is_part_of_the_fingerprint() -> None:
    corpus = random_corpus(pieces=3)
    joined = replace(corpus, piece_starts=corpus.piece_starts[[0, 2, 3]], names=("a", "b"))
    assert joined.fingerprint() != corpus.fingerprint()


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.npz", random_corpus(), Vocabulary(Grid(velocities=8)))
    with pytest.raises(FileError, match="another vocabulary"):
        read_corpus(tmp_path / "c.npz", VOCABULARY)


def changed(**arrays: Any) -> dict[str, Any]:
    corpus = random_corpus(pieces=2)
    whole = {
        "ids": corpus.ids.astype(np.uint16),
        "piece_starts": corpus.piece_starts,
        "names": np.asarray(corpus.names),
        "grid": np.asarray(VOCABULARY.grid.to_json()),
    }
    return {name: value for name, value in {**whole, **arrays}.items() if value is not None}


BROKEN = {
    "no grid": (changed(grid=None), "not a packed corpus"),
    "a grid that is none": (changed(grid=np.asarray("{}")), "another vocabulary"),
    "no names": (changed(names=None), "not a packed corpus"),
    "a name too few": (changed(names=np.asarray(["one"])), "name for each"),
    "ids beyond the vocabulary": (changed(ids=np.full(len(random_corpus(pieces=2).ids), 9999)), "outside"),
    "fractional ids": (changed(ids=np.zeros(10)), "integers"),
    "starts beyond the end": (changed(piece_starts=np.array([0, 5, 10**9])), "does not cut"),
    "starts that go back": (changed(piece_starts=np.array([0, 9, 4])), "does not cut"),
    "a piece that begins in a bar": (changed(piece_starts=changed()["piece_starts"] + [0, 1, 0]), "begin with a bar"),
    "pickles": (changed(names=np.array([{}, {}], dtype=object)), "not a packed corpus"),
}


@pytest.mark.parametrize(("arrays", "word"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_corpus_is_refused(tmp_path: Path, arrays: dict[str, Any], word: str) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(FileError, match=word) as refusal:
        read_corpus(tmp_path / "c.npz", VOCABULARY)
    assert refusal.value.where == str(tmp_path / "c.npz")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez(whole, **changed())
    path = tmp_path / "c.npz"
    for content in (b"", b"PK\x03\x04", b"ids", whole.read_bytes()[:-300]):
        path.write_bytes(content)
        with pytest.raises(FileError, match="not a packed corpus"):
            read_corpus(path, VOCABULARY)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, word in (("array.npy", "not a packed corpus"), ("nowhere.npz", "No such file")):
        with pytest.raises(FileError, match=word):
            read_corpus(tmp_path / name, VOCABULARY)


def test_a_folder_becomes_a_corpus_and_tells_what_it_left_out(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    write_midi(tmp_path / "b.mid", 1)
    write_midi(tmp_path / "deeper" / "a.MIDI", 2)
    (tmp_path / "broken.mid").write_bytes(b"MThd")
    (tmp_path / "notes.txt").write_text("not music")
    seen: list[str] = []
    files = midi_files(tmp_path)
    prepared = prepare(files, VOCABULARY, on_file=lambda path: seen.append(path.name))
    assert seen == [path.name for path in files] == ["b.mid", "broken.mid", "a.MIDI"]
    assert prepared.corpus.names == ("b", "a")
    assert len(prepared.refused) == 1
    assert "broken.mid" in prepared.refused[0]
    expected = random_bars(np.random.default_rng(1), bars=6)
    told = decode(prepared.corpus.piece(0).tolist(), VOCABULARY)
    assert [[(note.step, note.pitch) for note in bar.notes] for bar in told[:6]] == [
        [(note.step, note.pitch) for note in bar.notes] for bar in expected
    ]


def test_a_folder_without_music_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no MIDI file"):
        midi_files(tmp_path)
    (tmp_path / "broken.mid").write_bytes(b"MThd")
    with pytest.raises(FileError, match="not one file"):
        prepare(midi_files(tmp_path), VOCABULARY)
