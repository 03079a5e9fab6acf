"""A run on disk: folders `step-NNNNNNN`, each whole or absent, from which it continues exactly.

A folder holds `model.safetensors`, `training.pt` (optimiser and counters), `config.json` and
`tokenizer.json`. The batch order and every variation follow from the seed and two counters, and the
network draws nothing at random, so these are all the state there is. The last few folders are kept, and
the one that judged best, which `best.json` names.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from antiphon.errors import FileError
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.whole_file import sync_folder
from antiphon.music.midi_file import write_whole

_BEST = "best.json"

# What a damaged file makes of torch.load.
_DAMAGE = (
    OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile,
    LookupError, TypeError, ValueError, AttributeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Where a run stands: steps and tokens done, the next row of the epoch, and time spent."""

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    row: int = 0
    elapsed_s: float = 0.0
    best_step: int = -1
    best_nats_per_note: float = float("inf")


def save(
    out: Path, counters: Counters, checkpoint: Checkpoint, optimizer: dict[str, Any], *, config: str, tokenizer: str
) -> Path:
    """Write the folder of this step: made whole under another name, then renamed."""
    folder = step_folder(out, counters.step)
    temporary = out / f".{folder.name}.{os.getpid()}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    checkpoints.write(temporary / "model.safetensors", checkpoint)
    with (temporary / "training.pt").open("wb") as file:
        torch.save({"optimizer": optimizer, "counters": asdict(counters)}, file)
        file.flush()
        os.fsync(file.fileno())
    write_whole(temporary / "config.json", config.encode())
    write_whole(temporary / "tokenizer.json", tokenizer.encode())
    sync_folder(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync_folder(out)
    return folder


def load(folder: Path) -> tuple[Counters, Checkpoint, dict[str, Any]]:
    """Counters, model and optimiser state of a step's folder; FileError when it cannot be used."""
    counters, optimizer = _load_training(folder)
    return counters, checkpoints.read(folder / "model.safetensors"), optimizer


def load_counters(folder: Path) -> Counters:
    """Where the run stood at a step's folder; FileError when it cannot be used."""
    return _load_training(folder)[0]


def saved_config(out: Path) -> dict[str, Any]:
    """The knobs of the run in `out`, as its newest folder has them; FileError when there is none."""
    path = newest_folder(out) / "config.json"
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileError(f"not the knobs of a training run: {error}", where=str(path)) from error
    if not isinstance(values, dict):
        raise FileError("not the knobs of a training run", where=str(path))
    return values


def _load_training(folder: Path) -> tuple[Counters, dict[str, Any]]:
    path = folder / "training.pt"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange pickles; they are refused
            # weights_only: nothing but tensors and plain values is made from the pickle.
            saved = torch.load(path, map_location="cpu", weights_only=True)
        return Counters(**saved["counters"]), saved["optimizer"]
    except _DAMAGE as error:
        raise FileError(f"not the state of a training run: {error}", where=str(path)) from error


def mark_best(out: Path, *, step: int, nats_per_note: float) -> None:
    """Remember which step judged best."""
    write_whole(out / _BEST, json.dumps({"step": step, "nats_per_note": nats_per_note}).encode())


def require_fresh(out: Path) -> None:
    """FileError when a run is in `out` already."""
    if _folders(out):
        raise FileError("a run is already here", where=str(out), fix="use --resume, or another folder")


def best_folder(out: Path) -> Path:
    """The folder that judged best, or the newest where none was judged; FileError when there is none."""
    try:
        folder = step_folder(out, int(json.loads((out / _BEST).read_text())["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return newest_folder(out)
    return folder if folder.is_dir() else newest_folder(out)


def newest_folder(out: Path) -> Path:
    """The folder of the last step; FileError when there is none."""
    folders = _folders(out)
    if not folders:
        raise FileError("no training checkpoint here", where=str(out), fix="start a run without --resume")
    return folders[-1]


def retain(out: Path, *, keep: int, best_step: int) -> None:
    """Delete all but the last `keep` folders and the best one, and what a crash left half written."""
    kept = {folder.name for folder in _folders(out)[-keep:]} | {step_folder(out, best_step).name}
    for folder in [*_folders(out), *out.glob(".step-*.part")]:
        if folder.name not in kept:
            shutil.rmtree(folder)


def step_folder(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return out / f"step-{step:07d}"


def _folders(out: Path) -> list[Path]:
    return sorted(path for path in out.glob("step-*") if path.is_dir())
