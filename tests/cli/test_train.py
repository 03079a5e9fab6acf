"""`antiphon train` as a process: from a folder of MIDI files to a model, stopped and continued on the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training.small_corpus import VOCABULARY, random_bars, random_corpus

from antiphon.cli.main import main
from antiphon.model import checkpoint
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.training import snapshots
from antiphon.training.corpus import write_corpus

ANTIPHON = Path(sys.executable).with_name("antiphon")

TINY = """
layers: 2
width: 64
context: 64
batch_tokens: 128
warmup_steps: 4
threads: 1
lr: 2e-3
checkpoint_every: 1000
validate_every: 1000
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: MIDI files, one of them broken, a packed corpus and the knobs of a tiny run."""
    (tmp_path / "songs").mkdir()
    for seed in range(4):
        piece = piece_of(random_bars(np.random.default_rng(seed), bars=12))
        write_parts(
            tmp_path / "songs" / f"{seed}.mid",
            parts=[Part("music", piece.notes, 0)],
            meters=piece.meters,
            tempos=piece.tempos,
            end_tick=piece.end_tick,
        )
    (tmp_path / "songs" / "broken.mid").write_bytes(b"MThd")
    (tmp_path / "run.yaml").write_text(TINY)
    write_corpus(tmp_path / "packed.npz", random_corpus(), VOCABULARY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(here: Path, *options: str | Path) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [str(ANTIPHON), "train", *map(str, options)],
        cwd=here, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def train(*options: str) -> int:
    """The exit code of the command, run in this process in the current folder."""
    return main(["train", *options])


def test_a_folder_of_midi_files_becomes_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knobs = ("--config", "run.yaml", "--out", "run")
    process = started(here, *knobs, "--corpus", "songs", "--valid", "songs", "--steps", "3")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, ""), err
    assert "left out: songs/broken.mid" in err
    assert "nats per note on the valid pieces" in err
    names = {path.name for path in (here / "run").iterdir()}
    assert names == {"train.npz", "valid.npz", "log.jsonl", "loss.png", "best.json", "step-0000003"}
    # What was packed serves the rest of the run: the songs are no longer needed.
    (here / "songs").rename(here / "gone")
    assert train(*knobs, "--resume", "--steps", "5", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert train("--out", "run", "--export", "model.safetensors") == 0
    model = checkpoint.read(here / "model.safetensors")
    assert model.tensors["emb.weight"].dtype == torch.int8
    assert model.spec.n_layer == 2
    assert model.metadata["tokenizer"] == VOCABULARY.grid.to_json()
    assert float(model.metadata["valid_nats_per_note"]) > 0
    told = f"model.safetensors: step {model.metadata['steps']}, sha256 {checkpoint.sha256(here / 'model.safetensors')}"
    assert capsys.readouterr() == (f"{told}\n", "")


def stopped(here: Path, number: signal.Signals, *knobs: str) -> int:
    """Start a run, send it the signal at a moment that chance chooses; the step at which it stopped."""
    chance = random.Random()
    process = started(here, *knobs)
    log = here / "run" / "log.jsonl"
    wanted = chance.randint(1, 20)
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < wanted):
        time.sleep(0.01)
    time.sleep(chance.random() * 0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    step = int(snapshots.newest_folder(here / "run").name.removeprefix("step-"))
    assert (process.returncode, err) == (0, f"stopped at step {step}; continue with --resume\n")
    return step


def test_a_run_stopped_at_any_moment_goes_on_to_the_very_same_weights(here: Path) -> None:
    knobs = ("--config", "run.yaml", "--corpus", "packed.npz", "--steps", "60", "--quiet")
    assert 1 <= stopped(here, signal.SIGTERM, *knobs, "--out", "run") < 60
    assert train(*knobs, "--out", "run", "--resume") == 0
    assert train(*knobs, "--out", "whole") == 0
    parts, whole = (
        checkpoint.read(here / name / "step-0000060" / "model.safetensors").tensors for name in ("run", "whole")
    )
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_ctrl_c_stops_a_run_with_its_state_on_disk(here: Path) -> None:
    knobs = ("--config", "run.yaml", "--corpus", "packed.npz", "--steps", "9999", "--quiet", "--out", "run")
    step = stopped(here, signal.SIGINT, *knobs)
    assert (here / "run" / f"step-{step:07d}" / "training.pt").exists()


def test_a_stop_before_the_first_step_is_heeded_too(here: Path) -> None:
    process = started(here, "--config", "run.yaml", "--corpus", "packed.npz", "--steps", "80", "--out", "run")
    # The command has begun when torch is being loaded; before that a signal is the interpreter's own affair.
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped at step 0" in err


BAD = [
    (["--corpus", "packed.npz", "--config", "bad.yaml"], ["unknown keys: learning_rate, stepz", "batch_tokens"]),
    (["--corpus", "packed.npz", "--config", "nested.yaml"], ["nested.yaml:2", "lr", "is not a single value"]),
    (["--corpus", "packed.npz", "--config", "nowhere.yaml"], ["nowhere.yaml"]),
    (["--corpus", "packed.npz"], ["one of steps, tokens and minutes must be above 0"]),
    (["--steps", "3"], ["nothing to learn from", "--corpus"]),
    (["--corpus", "nowhere", "--steps", "3"], ["nowhere", "No such file", "a folder of MIDI files"]),
    (["--corpus", "empty", "--steps", "3"], ["empty: no MIDI file there"]),
    (["--corpus", "run.yaml", "--steps", "3"], ["run.yaml: not a packed corpus"]),
    (["--corpus", "packed.npz", "--steps", "3", "--resume"], ["no training checkpoint"]),
    (["--export", "model.safetensors"], ["no training checkpoint"]),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_a_mistake_is_told_in_one_clear_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    (here / "bad.yaml").write_text("learning_rate: 1\nstepz: 3\n")
    (here / "nested.yaml").write_text("steps: 3\nlr: {high: 1, low: 0}\n")
    (here / "empty").mkdir()
    assert train("--out", "run", *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [word for word in words if word not in err] == []
    assert "Traceback" not in err
