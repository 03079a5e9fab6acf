"""PianoTokenizer on both vocabularies (S2-001 to S2-007)."""

from __future__ import annotations

from pathlib import Path

import pretty_midi
import pytest
from hypothesis import given

from antiphon.errors import AntiphonError, FileError
from antiphon.music.bar import Bar
from antiphon.music.midi_file import Part, read_piece, write_parts
from antiphon.music.normalise import bars_of, cut, piece_of
from antiphon.tokens.encoder import encode
from antiphon.tokens.piano import PianoTokenizer, Preset
from antiphon.tokens.remi import encode_with_miditok
from tests.music.material import END, VOCABULARY, bars, played, smf, tempo, time_signature

PRESETS: tuple[Preset, ...] = ("antiphon", "pianomuse")


@pytest.fixture(scope="module", params=PRESETS)
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return PianoTokenizer(preset=request.param)


@pytest.fixture(scope="module")
def pianomuse() -> PianoTokenizer:
    return PianoTokenizer(preset="pianomuse")


@pytest.fixture(scope="module")
def antiphon() -> PianoTokenizer:
    return PianoTokenizer(preset="antiphon")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("piano") / "a.mid"


def tune() -> bytes:
    """Two hands on two tracks and a drum: 4/4, then a bar of 3/4; 121.29 and then 60.32 quarters a minute."""
    conductor = tempo(121.29) + time_signature(4, 2) + time_signature(3, 2, wait=1920) + tempo(60.32) + END
    right = b"".join(played(60 + i, len_ticks=480, velocity=64) for i in range(7))
    left = played(36, len_ticks=1920) + played(43, len_ticks=1440, velocity=127)
    return smf(conductor, right + END, left + END, played(38, channel=9) + END)


def names(tokenizer: PianoTokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.id_to_token(token) for token in ids]


# --- the vocabularies ---------------------------------------------------------------------------------------


def test_pianomuse_is_stock_remi_as_pianomuse_models_were_trained() -> None:
    tokenizer = PianoTokenizer(vocab_size=65536, max_bar_embedding=300)
    found = {
        kind: sum(tokenizer.id_to_token(token).startswith(kind) for token in range(tokenizer.get_vocab_size()))
        for kind in ("Bar_", "Velocity_", "Tempo_", "Pitch_", "Program_", "Chord_", "Rest_", "TimeSig_")
    }
    assert found["Bar_"] == 300
    assert found["Velocity_"] == 32
    assert found["Tempo_"] == 32
    assert found["Pitch_"] == 89  # miditok's own range, 21 to 109
    assert (found["Program_"], found["Chord_"]) == (0, 0)
    assert found["Rest_"] > 0
    assert found["TimeSig_"] > 0
    tempos = [float(t.removeprefix("Tempo_")) for t in map(tokenizer.id_to_token, range(720)) if t.startswith("Tempo_")]
    assert (tempos[0], tempos[-1]) == (40.0, 250.0)
    for token in ("Duration_0.1.8", "Duration_3.7.8", "Duration_4.0.4", "Duration_4.1.4", "Duration_12.0.4"):
        assert tokenizer.id_to_token(tokenizer.token_to_id(token)) == token
    for token in ("Duration_4.1.8", "Duration_12.1.4"):
        with pytest.raises(AntiphonError, match="has no token"):
            tokenizer.token_to_id(token)


def test_every_id_has_a_token_and_back(tokenizer: PianoTokenizer) -> None:
    size = tokenizer.get_vocab_size()
    assert [tokenizer.token_to_id(tokenizer.id_to_token(token)) for token in range(size)] == list(range(size))
    for token in (-1, size):
        with pytest.raises(AntiphonError, match="outside"):
            tokenizer.id_to_token(token)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_must_have_a_row_for_every_id(preset: Preset) -> None:
    size = PianoTokenizer(preset=preset).get_vocab_size()
    assert PianoTokenizer(preset=preset, vocab_size=size).vocab_size == size
    with pytest.raises(AntiphonError, match=f"{size - 1} rows is too small"):
        PianoTokenizer(preset=preset, vocab_size=size - 1)


def test_an_unknown_preset_and_a_vocabulary_without_bars_are_refused() -> None:
    with pytest.raises(AntiphonError, match="is no preset"):
        PianoTokenizer(preset="remi")  # type: ignore[arg-type]
    with pytest.raises(AntiphonError, match="0 bars"):
        PianoTokenizer(max_bar_embedding=0)


def test_structure_is_what_says_where_and_in_what_time(tokenizer: PianoTokenizer) -> None:
    kinds = {
        tokenizer.id_to_token(token).partition("_")[0]: tokenizer.is_structural_token(token)
        for token in range(tokenizer.get_vocab_size())
    }
    structural = {kind for kind, is_structural in kinds.items() if is_structural}
    assert structural | {"Rest"} == {"Bar", "Position", "TimeSig", "Tempo", "Rest"}
    assert kinds["Pitch"] is kinds["Velocity"] is kinds["Duration"] is kinds["PAD"] is False


# --- files --------------------------------------------------------------------------------------------------


def test_all_pitched_tracks_are_read(tokenizer: PianoTokenizer, path: Path) -> None:
    path.write_bytes(tune())
    found = names(tokenizer, tokenizer.tokenize_midi(path))
    pitches = [int(name.removeprefix("Pitch_")) for name in found if name.startswith("Pitch_")]
    assert pitches == [36, 60, 61, 62, 63, 43, 64, 65, 66]
    assert not any(name.startswith("PitchDrum_") for name in found)


def test_antiphon_ids_are_those_of_the_normalised_bars(antiphon: PianoTokenizer, path: Path) -> None:
    path.write_bytes(tune())
    assert antiphon.tokenize_midi(path) == encode_with_miditok(bars_of(read_piece(path)), VOCABULARY)


def test_pianomuse_ids_are_those_of_stock_miditok(pianomuse: PianoTokenizer, path: Path) -> None:
    import miditok
    import symusic

    path.write_bytes(smf(tempo(90) + played(60) + played(64, wait=3000, velocity=100) + END))
    config = miditok.TokenizerConfig(
        beat_res={(0, 4): 8, (4, 12): 4},
        num_velocities=32,
        use_chords=False,
        use_rests=True,
        use_tempos=True,
        use_time_signatures=True,
        use_programs=False,
        num_tempos=32,
        tempo_range=(40, 250),
        max_bar_embedding=300,
    )
    (stock,) = miditok.REMI(config).encode(symusic.Score(str(path)))
    assert pianomuse.tokenize_midi(path) == stock.ids


def test_a_file_goes_there_and_back(tokenizer: PianoTokenizer, path: Path) -> None:
    path.write_bytes(tune())
    ids = tokenizer.tokenize_midi(path)
    written = path.with_name("b.mid")
    tokenizer.detokenize(ids, written)
    assert tokenizer.tokenize_midi(written) == ids
    told = pretty_midi.PrettyMIDI(str(written))
    (piano,) = told.instruments
    beat = 60 / told.get_tempo_changes()[1][0]
    onsets = sorted((round(note.start / beat, 2), note.pitch) for note in piano.notes if note.start < 4 * beat - 0.01)
    assert onsets == [(0.0, 36), (0.0, 60), (1.0, 61), (2.0, 62), (3.0, 63)]
    assert [(s.numerator, s.denominator) for s in told.time_signature_changes] == [(4, 4), (3, 4)]


def test_pianomuse_writes_numbered_bars_where_they_belong(pianomuse: PianoTokenizer, path: Path) -> None:
    # A note at the start of each of six bars, and none in the fourth.
    path.write_bytes(
        smf(
            b"".join(
                played(60, wait=480 * 6 if i == 4 else 0, len_ticks=960) + played(62, len_ticks=960) for i in range(6)
            )
            + END
        )
    )
    written = path.with_name("b.mid")
    pianomuse.detokenize(pianomuse.tokenize_midi(path), written)
    assert [(n.start_tick, n.pitch) for n in read_piece(written).notes] == [
        (n.start_tick, n.pitch) for n in read_piece(path).notes
    ]


@given(given_bars=bars(exact=True))
def test_antiphon_files_hold_the_very_bars(antiphon: PianoTokenizer, path: Path, given_bars: list[Bar]) -> None:
    given_bars = cut(given_bars)
    ids = encode(given_bars, VOCABULARY)
    antiphon.detokenize([1, *ids, 2], path)
    if not any(bar.notes for bar in given_bars):
        with pytest.raises(FileError, match="no notes"):
            antiphon.tokenize_midi(path)
        return
    assert antiphon.tokenize_midi(path) == ids


def test_bad_files_are_refused(tokenizer: PianoTokenizer, path: Path) -> None:
    for data in (b"", b"no MIDI", tune()[:-5], smf(played(38, channel=9) + END)):
        path.write_bytes(data)
        with pytest.raises(FileError):
            tokenizer.tokenize_midi(path)


def test_a_meter_that_the_model_lacks_names_the_file(antiphon: PianoTokenizer, path: Path) -> None:
    path.write_bytes(smf(time_signature(200, 2) + played(60) + END))
    with pytest.raises(FileError, match="knows no bars of 200/4") as caught:
        antiphon.tokenize_midi(path)
    assert caught.value.where == str(path)


def test_a_piece_longer_than_the_numbered_bars_is_refused(path: Path) -> None:
    path.write_bytes(smf(b"".join(played(60, len_ticks=1920) for _ in range(5)) + END))
    assert len(PianoTokenizer(max_bar_embedding=5).tokenize_midi(path)) > 15
    with pytest.raises(FileError, match=r"it numbers 4 bars .*max_bar_embedding"):
        PianoTokenizer(max_bar_embedding=4).tokenize_midi(path)


def test_ids_without_music_are_refused(tokenizer: PianoTokenizer, tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match="outside"):
        tokenizer.detokenize([3, tokenizer.get_vocab_size()], tmp_path / "a.mid")
    with pytest.raises(AntiphonError, match="no bar"):
        PianoTokenizer(preset="antiphon").detokenize([], tmp_path / "a.mid")
    assert list(tmp_path.iterdir()) == []


# --- bars and metadata --------------------------------------------------------------------------------------


def test_bars_are_found(tokenizer: PianoTokenizer, path: Path) -> None:
    path.write_bytes(tune())
    ids = tokenizer.tokenize_midi(path)
    found = tokenizer.find_bar_indices(ids)
    assert len(found) == 2
    assert found == [index for index, name in enumerate(names(tokenizer, ids)) if name.startswith("Bar")]
    assert tokenizer.find_bar_indices([]) == []


def test_the_last_tempo_and_time_signature_before_an_index(tokenizer: PianoTokenizer, path: Path) -> None:
    path.write_bytes(tune())
    ids = tokenizer.tokenize_midi(path)
    second = tokenizer.find_bar_indices(ids)[1]

    def told(up_to_index: int) -> dict[str, str | None]:
        metadata = tokenizer.extract_metadata_tokens(ids, up_to_index)
        return {kind: None if token is None else tokenizer.id_to_token(token) for kind, token in metadata.items()}

    assert told(0) == {"tempo": None, "time_signature": None}
    assert told(1) == {"tempo": None, "time_signature": None}
    assert told(2) == {"tempo": None, "time_signature": "TimeSig_4/4"}
    first = told(second)
    assert first["time_signature"] == "TimeSig_4/4"
    last = told(len(ids))
    assert last["time_signature"] == "TimeSig_3/4"
    assert first["tempo"] != last["tempo"]
    assert told(10**6) == last


def test_a_piece_written_by_us_is_read_by_pianomuse(
    pianomuse: PianoTokenizer, antiphon: PianoTokenizer, path: Path
) -> None:
    path.write_bytes(tune())
    piece = piece_of(bars_of(read_piece(path)))
    write_parts(path, parts=[Part("a", piece.notes)], meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick)
    pitches = [n for n in names(pianomuse, pianomuse.tokenize_midi(path)) if n.startswith("Pitch_")]
    assert pitches == [n for n in names(antiphon, antiphon.tokenize_midi(path)) if n.startswith("Pitch_")]
