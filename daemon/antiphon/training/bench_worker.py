"""One contender of the training benchmark: `python -m antiphon.training.bench_worker PLAN`.

It says "ready" when it is. For every line on stdin it then takes one step, and tells on stdout how many tokens it
learnt from, how long that took, and the most memory that it has held. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional

from antiphon.model import rwkv7
from antiphon.model.init import initial_weights
from antiphon.model.spec import ModelSpec
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary
from antiphon.training.bench import Plan
from antiphon.training.config import TrainingConfig
from antiphon.training.corpus import Corpus, pack_pieces
from antiphon.training.ids import IdRanges
from antiphon.training.memory import keep_freed_memory
from antiphon.training.trainer import Trainer

Step = Callable[[], int]
"""Takes a step, and says how many tokens it learnt from."""

_PIECES, _BARS, _NOTES_A_BAR = 16, 128, 12
_SEED = 1


def main() -> None:
    """Measure the plan in the first argument until stdin ends."""
    plan = Plan(**json.loads(sys.argv[1]))
    torch.set_num_threads(plan.threads)
    contender = _trainer if plan.kind == "trainer" else _naive
    with tempfile.TemporaryDirectory() as folder:
        # A step of a tiny model loads and compiles what is not to be counted.
        contender(replace(plan, layers=1, width=64, rows=1, tokens=64), Path(folder) / "tiny")()
        gc.collect()
        before = _held("VmRSS")
        step = contender(plan, Path(folder) / "measured")
        step()  # allocates, and warms up
        print("ready", flush=True)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the peak so far
        for _ in sys.stdin:
            began = time.perf_counter()
            tokens = step()
            seconds = time.perf_counter() - began
            told = {"tokens": tokens, "seconds": seconds, "peak_bytes": _held("VmHWM") - before}
            print(json.dumps(told), flush=True)


def _trainer(plan: Plan, folder: Path) -> Step:
    """The trainer's own step: batches, both passes, clipping and the optimiser."""
    config = TrainingConfig(
        layers=plan.layers,
        width=plan.width,
        context=plan.tokens,
        batch_tokens=plan.rows * plan.tokens,
        steps=1000,
        threads=plan.threads,
        seed=_SEED,
    )
    vocabulary = Vocabulary()
    ranges = IdRanges.of_vocabulary(vocabulary)
    grid = vocabulary.grid.to_json()
    keep_freed_memory()
    trainer = Trainer(config, corpus=_music(vocabulary), valid=None, ranges=ranges, tokenizer=grid, out=folder)

    def step() -> int:
        *_, tokens = trainer.step(0.5)
        return tokens

    return step


def _naive(plan: Plan, _folder: Path) -> Step:
    """What one writes first: the definition, a token at a time, float32, under autograd with torch's own AdamW."""
    spec = ModelSpec.of_width(n_layer=plan.layers, n_embd=plan.width, vocab_size=Vocabulary().size)
    weights = {name: tensor.requires_grad_() for name, tensor in initial_weights(spec, seed=_SEED).items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-4)
    generator = torch.Generator().manual_seed(_SEED)

    def step() -> int:
        ids = torch.randint(0, spec.vocab_size, (plan.rows, plan.tokens + 1), generator=generator)
        logits, _ = rwkv7.sequence(weights, ids[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        return plan.rows * plan.tokens

    return step


def _music(vocabulary: Vocabulary) -> Corpus:
    """Pieces of random notes, longer than any row."""
    rng = np.random.default_rng(_SEED)
    meter = Meter(4, 4)
    pieces: list[list[int]] = []
    for _ in range(_PIECES):
        bars: list[Bar] = []
        for _ in range(_BARS):
            places = {(int(rng.integers(meter.len_steps)), int(rng.integers(40, 80))) for _ in range(_NOTES_A_BAR)}
            notes = tuple(BarNote(at, pitch, 1 + int(rng.integers(24)), 64) for at, pitch in sorted(places))
            bars.append(Bar(meter, notes, 100.0))
        pieces.append(encode(bars, vocabulary))
    return pack_pieces(pieces, [f"piece {number}" for number in range(_PIECES)])


def _held(what: str) -> int:
    """Bytes of memory that this process holds ("VmRSS"), or has held at most ("VmHWM"); proc(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    main()
