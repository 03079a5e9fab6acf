"""A session on disk: a timeline and its sampler as one safetensors file, taken up again later to the bit.

`Snapshot.of` copies, on the thread that the timeline belongs to; the rest may happen on any other. The file holds the
state in its named parts (`slots.py`), the logits and the sampler's counts, all float32, and as JSON in its metadata
what they belong to: the model, its adapters, start state, precision and tokenizer. A file from elsewhere is checked
before it is believed, and one of another model is refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from antiphon.engine.identity import Identity, differences
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Floats
from antiphon.engine.sampler import Drift, Penalties, Sampler, Style
from antiphon.engine.sampling import Sampling
from antiphon.engine.slots import slots
from antiphon.engine.timeline import Timeline
from antiphon.errors import FileError
from antiphon.model.mapped import file_size
from antiphon.model.safetensors_file import parts_of
from antiphon.model.safetensors_writer import Entry, Promise, write_safetensors
from antiphon.model.stored import StoredTensor

FORMAT = "antiphon-timeline-1"
LOGITS, COUNTS = "logits", "sampler.counts"

_MOST_COUNT = 1 << 62
_MOST_HEADER = 8 << 20  # bytes: a bias for each of 65,536 ids takes 2 MB
_FIX = "begin a new session, or give the snapshot of this model"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """A moment of a session. Nothing in it changes."""

    model: LoadedModel
    state: Floats
    logits: Floats
    count: int
    sampler: Sampler | None

    @classmethod
    def of(cls, timeline: Timeline, sampler: Sampler | None = None) -> Snapshot:
        """What `timeline` and `sampler` are now."""
        return cls(
            model=timeline.model,
            state=timeline.state.copy(),
            logits=timeline.logits.copy(),
            count=timeline.count,
            sampler=None if sampler is None else sampler.fork(),
        )

    def timeline(self) -> Timeline:
        """A timeline that goes on from here."""
        return Timeline.restored(self.model, state=self.state, logits=self.logits, count=self.count)

    def write(self, path: Path) -> None:
        """Write it to `path`, all or nothing, for its owner's eyes alone. Raises FileError.

        The first one of a model reads the model's whole file for its hash.
        """
        about = {
            "model": dataclasses.asdict(self.model.identity),
            "count": self.count,
            "sampler": None if self.sampler is None else _told(self.sampler),
        }
        numbers = _divided(self.model, self.state) | {LOGITS: self.logits}
        if self.sampler is not None and self.sampler.counts is not None:
            numbers[COUNTS] = self.sampler.counts
        promises = [_promise(name, part) for name, part in numbers.items()]
        write_safetensors(path, promises, {"format": FORMAT, "about": json.dumps(about)}, mode=0o600)

    @classmethod
    def read(cls, path: Path, model: LoadedModel) -> Snapshot:
        """The snapshot in `path`. Raises FileError when it is damaged, or of another model than `model`."""

        def refused(what: str) -> FileError:
            return FileError(what, where=str(path), fix=_FIX)

        most = model.state_bytes + 8 * model.vocab_size + _MOST_HEADER
        size = file_size(path, fix=_FIX)
        if size > most:
            raise refused(f"it is {size} bytes, and a snapshot of this model at most {most}")
        parts, metadata = parts_of(path)
        if metadata.get("format") != FORMAT:
            raise refused("this is no snapshot of a session")
        about = _about(metadata.get("about", ""), refused)
        wrong = differences(_identity(about.get("model"), refused), model.identity)
        if wrong:
            raise refused("; ".join(wrong))
        count = about.get("count")
        if type(count) is not int or not 0 <= count <= _MOST_COUNT:
            raise refused("it does not say how many ids it has been fed")
        shapes: dict[str, tuple[int, ...]] = dict(slots(model.spec)) | {LOGITS: (model.vocab_size,)}
        if COUNTS in parts:
            shapes[COUNTS] = (model.vocab_size,)
        numbers = _checked(parts, shapes, refused)
        state = np.concatenate([numbers[name].reshape(-1) for name, _ in slots(model.spec)])
        sampler = _sampler(about.get("sampler"), numbers.get(COUNTS), model.vocab_size, refused)
        return cls(model=model, state=state, logits=numbers[LOGITS], count=count, sampler=sampler)


def _divided(model: LoadedModel, state: Floats) -> dict[str, Floats]:
    parts, at = {}, 0
    for name, shape in slots(model.spec):
        size = math.prod(shape)
        parts[name] = state[at : at + size].reshape(shape)
        at += size
    return parts


def _promise(name: str, part: Floats) -> Promise:
    entry = Entry(name=name, shape=part.shape, dtype=torch.float32)
    return Promise(entries=(entry,), read=lambda: (torch.from_numpy(part),))


def _checked(parts: Mapping[str, StoredTensor], shapes: Mapping[str, Sequence[int]], refused: Any) -> dict[str, Floats]:
    """The parts that are in `shapes`, read; there may be no others, and each must be finite float32 of its shape."""
    for name in shapes:
        if name not in parts:
            raise refused(f"{name} is missing")
    numbers = {}
    for name, part in parts.items():
        if name not in shapes:
            raise refused(f"{name} is unknown")
        if part.shape != tuple(shapes[name]) or part.stored != "F32":
            raise refused(f"{name} is {part.stored} {list(part.shape)}, not F32 {list(shapes[name])}")
        # A copy: what is mapped would change with the file.
        numbers[name] = part.read().numpy().copy()
        if not np.isfinite(numbers[name]).all():
            raise refused(f"{name} holds a NaN or an infinity")
    return numbers


def _about(text: str, refused: Any) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused("it does not say what it is of") from error
    if not isinstance(about, dict):
        raise refused("it does not say what it is of")
    return about


def _identity(told: Any, refused: Any) -> Identity:
    names = {field.name for field in dataclasses.fields(Identity)}
    if not isinstance(told, dict) or set(told) != names:
        raise refused("it does not say of which model it is")
    adapters = told.pop("adapters")
    words = [*told.values(), *(adapters if isinstance(adapters, list) else [None])]
    if not all(isinstance(word, str) for word in words):
        raise refused("it does not say of which model it is")
    return Identity(**told, adapters=tuple(adapters))


def _told(sampler: Sampler) -> dict[str, Any]:
    style = sampler.style
    return {
        "sampling": dataclasses.asdict(style.sampling),
        "penalties": dataclasses.asdict(style.penalties),
        "biases": {str(token): bias for token, bias in style.biases.items()},
        "drift": None if style.drift is None else dataclasses.asdict(style.drift),
        "seed": style.seed,
        "drawn": sampler.drawn,
        "step": sampler.step,
    }


def _sampler(told: Any, counts: Floats | None, vocab_size: int, refused: Any) -> Sampler | None:
    if told is None and counts is None:
        return None
    try:
        style = Style(
            sampling=Sampling(**told["sampling"]),
            penalties=Penalties(**told["penalties"]),
            biases={int(token): bias for token, bias in told["biases"].items()},
            drift=None if told["drift"] is None else Drift(**told["drift"]),
            seed=told["seed"],
        )
        if type(told["drawn"]) is not int or type(told["step"]) is not int or told["step"] > _MOST_COUNT:
            raise ValueError("it does not say how far the sampler was")
        return Sampler.restored(
            vocab_size=vocab_size, style=style, drawn=told["drawn"], step=told["step"], counts=counts
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise refused(f"its sampler cannot be: {str(error)[:200]}") from error
