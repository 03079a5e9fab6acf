"""What a model foretells after given ids: by the definition in float32, or by the engine in any precision."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.errors import AntiphonError, FileError
from antiphon.library.parity import Outcome
from antiphon.model import reference
from antiphon.model.adapter_file import AdapterFile
from antiphon.model.precision import Precision
from antiphon.model.source import Source
from antiphon.model.spec import ModelSpec
from antiphon.model.states import StartState

Floats = npt.NDArray[np.float32]

PROMPTS = 10
_LENGTHS = (1, 2, 3, 5, 8, 16, 17, 33, 64, 100)
_FEWEST = 2  # ids at which a start state can be judged


def prompts(vocab_size: int) -> list[tuple[int, ...]]:
    """Ten fixed lists of ids of 1 to 100, for vocabularies of any size; id 0, which ends a text, is not in them."""
    return [
        tuple(1 + (7919 * (i + 1) * (j + 1) + 104729 * i) % max(1, vocab_size - 1) for j in range(length))
        for i, length in enumerate(_LENGTHS)
    ]


def start_state_of(source: Source, path: Path | None, *, transpose: bool = False) -> StartState | None:
    """The start state in the file `path`, or the one that comes with the model; None when there is neither."""
    if path is not None:
        return StartState.of_file(path, source.spec, transpose=transpose)
    return StartState.of_source(source, transpose=transpose)


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A model on the plain PyTorch definition: all of it in float32."""

    spec: ModelSpec
    weights: dict[str, torch.Tensor]
    ln_x_eps: float

    @classmethod
    def of(cls, source: Source) -> Definition:
        """Read every tensor of `source`."""
        weights = {name: source.read(name).float() for name in source.shapes}
        return cls(spec=source.spec, weights=weights, ln_x_eps=source.ln_x_eps)

    def logits(self, ids: Sequence[int], start: StartState | None) -> torch.Tensor:
        """Float32 [T, V], after each of the ids."""
        state = reference.unpack(self.spec, start.packed()) if start is not None else None
        with torch.no_grad():
            logits, _ = reference.sequence(
                self.spec, self.weights, torch.tensor(list(ids)), state, ln_x_eps=self.ln_x_eps
            )
        return logits

    def outcome(self, ids: Sequence[int], start: StartState | None) -> Outcome:
        """What it foretells after the ids. Raises AntiphonError when the model gives no numbers."""
        ids = checked(ids, self.spec)
        began = time.perf_counter()
        logits = self.logits(ids, start)[-1].numpy()
        seconds = time.perf_counter() - began
        return _outcome(logits, ids, precision="fp32", device="cpu", by="definition", seconds=seconds)

    def nats(self, ids: Sequence[int], start: StartState | None) -> float:
        """Nats an id of all but the first: how well the model, begun so, expects these ids."""
        ids = checked(ids, self.spec)
        if len(ids) < _FEWEST:
            raise AntiphonError(f"a start state is judged by {_FEWEST} ids or more", fix="give more --tokens")
        logits = self.logits(ids, start)[:-1].double()
        chosen = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(ids[1:]).unsqueeze(1))
        return float(-chosen.mean())


def engine_outcomes(
    path: Path,
    prompts: Sequence[Sequence[int]],
    *,
    precision: str,
    device: str,
    adapters: Sequence[AdapterFile] = (),
    start_state: Path | None = None,
) -> list[Outcome]:
    """What the engine foretells after each prompt. Raises FileError and AntiphonError."""
    model = LoadedModel.open(
        path, precision=Precision(precision), device=device, adapters=adapters, start_state=start_state
    )
    try:
        return [_engine_outcome(model, checked(ids, model.spec), precision, device) for ids in prompts]
    finally:
        model.close()


def _engine_outcome(model: LoadedModel, ids: tuple[int, ...], precision: str, device: str) -> Outcome:
    timeline = Timeline(model)
    began = time.perf_counter()
    timeline.feed(ids)
    logits = timeline.logits.copy()
    seconds = time.perf_counter() - began
    return _outcome(logits, ids, precision=precision, device=device, by="engine", seconds=seconds)


def checked(ids: Sequence[int], spec: ModelSpec) -> tuple[int, ...]:
    """The ids, all of them in the vocabulary and at least one. Raises AntiphonError."""
    wrong = next((token for token in ids if not 0 <= token < spec.vocab_size), None)
    if wrong is not None:
        raise AntiphonError(f"id {wrong} is not in the vocabulary of 0 to {spec.vocab_size - 1}", where="--tokens")
    if not ids:
        raise AntiphonError("there is nothing to feed", where="--tokens", fix="give ids like 1,2,3")
    return tuple(ids)


def _outcome(logits: Floats, ids: tuple[int, ...], *, precision: str, device: str, by: str, seconds: float) -> Outcome:
    told = {
        "context": " ".join(map(str, ids)),
        "by": by,
        "device": device,
        "tokens_per_sec": len(ids) / seconds if seconds > 0 else math.nan,
    }
    try:
        return Outcome.of(np.ascontiguousarray(logits, np.float32), tokens=ids, precision=precision, told=told)
    except ValueError as error:
        raise FileError(str(error), where="the model", fix="its weights, or the precision, are too extreme") from error
