"""`antiphon listen`: every prompt's answer to hear and to look at, and nothing overwritten in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli.test_answer import prompt

from antiphon.cli.main import main
from antiphon.music.midi_file import read_piece
from tests.small_model import write_small_model

SOUND_FONT = Path("/usr/share/sounds/sf2/default-GM.sf2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


def test_a_page_holds_every_prompt_and_seed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no FluidSynth there: a page without sound, and a word about it
    first, second = prompt(tmp_path / "first <b>.mid"), prompt(tmp_path / "second.mid", meter="3/4")
    out = tmp_path / "page"
    assert main(["listen", str(first), str(second), "-o", str(out), "--seeds", "1", "2", "--model", str(model)]) == 0
    page = (out / "index.html").read_text()
    for name in ("first <b>", "second"):
        for seed in (1, 2):
            stem = f"{name}-seed{seed}"
            assert (out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
            assert len(read_piece(out / f"{stem}.mid").notes) > len(read_piece(first).notes)
    assert page.count("<section>") == 4
    assert "first &lt;b&gt;, seed 1" in page
    assert "<b>" not in page
    assert "<audio" not in page
    assert "install FluidSynth" in capsys.readouterr().out


@pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not SOUND_FONT.is_file(), reason="FluidSynth and a sound font are not here"
)
def test_the_sound_is_rendered_where_fluidsynth_is(tmp_path: Path, model: Path) -> None:
    source = prompt(tmp_path / "prompt.mid", bars=1)
    out = tmp_path / "page"
    assert main(["listen", str(source), "-o", str(out), "--bars", "1", "--model", str(model)]) == 0
    assert (out / "prompt-seed1.ogg").read_bytes().startswith(b"OggS")
    assert 'src="prompt-seed1.ogg"' in (out / "index.html").read_text()


def test_two_prompts_of_one_name_are_refused(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    paths = [str(prompt(tmp_path / "p.mid")), str(prompt(tmp_path / "a" / "p.mid"))]
    assert main(["listen", *paths, "-o", str(tmp_path / "page"), "--model", str(model)]) == 2
    assert "the same file name" in capsys.readouterr().err


def test_a_sound_font_that_is_not_there_is_named(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(prompt(tmp_path / "p.mid"))
    arguments = ["listen", source, "-o", str(tmp_path / "page"), "--sound-font", str(tmp_path / "no.sf2")]
    assert main([*arguments, "--model", str(model)]) == 2
    assert "no.sf2" in capsys.readouterr().err
