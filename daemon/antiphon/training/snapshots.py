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
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from antiphon.errors import FileError
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint

_BEST = "best.json"


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
    (temporary / "config.json").write_text(config)
    (temporary / "tokenizer.json").write_text(tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    checkpoints.sync_folder(out)
    return folder


def load(folder: Path) -> tuple[Counters, Checkpoint, dict[str, Any]]:
    """Counters, model and optimiser state of a step's folder; FileError when it cannot be used."""
    model = checkpoints.read(folder / "model.safetensors")
    path = folder / "training.pt"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return Counters(**saved["counters"]), model, saved["optimizer"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError, TypeError) as error:
        raise FileError(f"not the state of a training run: {error}", where=str(path)) from error


def mark_best(out: Path, *, step: int, nats_per_note: float) -> None:
    """Remember which step judged best."""
    temporary = out / f".{_BEST}.part"
    temporary.write_text(json.dumps({"step": step, "nats_per_note": nats_per_note}))
    temporary.replace(out / _BEST)


def best_folder(out: Path) -> Path:
    """The folder that judged best, or the newest where none was judged; FileError when there is none."""
    marked = out / _BEST
    if marked.exists():
        folder = step_folder(out, int(json.loads(marked.read_text())["step"]))
        if folder.is_dir():
            return folder
    return newest_folder(out)


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
