"""Runs the official `rwkv` package on a folder of models, in a process of its own.

The package decides at import, by RWKV_V7_ON, whether it knows RWKV-7 or the older versions.
    RWKV_V7_ON=… python rwkv_peer.py FOLDER…
Every folder holds `model.pth` and `ids.json`; it gets `fed.safetensors`: the `logits` after every id, fed in one
sequence but for the last three, which are fed one by one, and the `state` after the last, flat.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["RWKV_CUDA_ON"] = "0"
os.environ["RWKV_JIT_ON"] = "0"  # compiling costs more than it saves here; RWKV-7 is compiled all the same

import torch
from rwkv.model import RWKV
from safetensors.torch import save_file

SINGLE = 3


def feed(folder: Path) -> None:
    ids = json.loads((folder / "ids.json").read_text())
    model = RWKV(model=str(folder / "model"), strategy="cpu fp32")
    logits, state = model.forward(ids[:-SINGLE], None, full_output=True)
    rows = [logits]
    for token in ids[-SINGLE:]:
        last, state = model.forward([token], state)
        rows.append(last.reshape(1, -1))
    flat = torch.cat([part.float().flatten() for part in state])
    save_file({"logits": torch.cat(rows).contiguous(), "state": flat}, folder / "fed.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        feed(Path(name))
