"""What the official `rwkv` package makes of the small models of every version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from model.any_version import SPECS, random_ids, random_weights
from safetensors.torch import load_file
from torch import Tensor

from antiphon.model.spec import Version

PEER = Path(__file__).with_name("rwkv_peer.py")


def official_outcomes(folder: Path, *, count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Logits [count, V] and the flat state after `random_ids(spec, count)`, for every spec; float32.

    Every model lies in `folder`/NAME/model.pth then.
    """
    models: dict[bool, list[str]] = {False: [], True: []}
    for name, spec in SPECS.items():
        place = folder / name
        place.mkdir()
        torch.save(random_weights(spec), place / "model.pth")
        (place / "ids.json").write_text(json.dumps(random_ids(spec, count).tolist()))
        models[spec.version is Version.V7].append(str(place))
    for seventh, places in models.items():
        done = subprocess.run(
            [sys.executable, str(PEER), *places],
            env=os.environ | {"RWKV_V7_ON": str(int(seventh))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    fed = {name: load_file(folder / name / "fed.safetensors") for name in SPECS}
    return {name: (tensors["logits"], tensors["state"]) for name, tensors in fed.items()}
