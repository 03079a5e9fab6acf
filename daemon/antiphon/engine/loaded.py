"""A model in memory, ready to run: read once, packed once, shared by every timeline on it.

A `LoadedModel` never changes, so timelines on different threads may share it; each timeline belongs to one thread at
a time (in the daemon: the worker).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from antiphon.engine.cpu_proof import proven_interleave
from antiphon.engine.cpu_runner import CpuRunner
from antiphon.engine.devices import device_of, gpus
from antiphon.engine.fit import TIMELINES, fit_of, require_fit
from antiphon.engine.free_memory import free_on
from antiphon.engine.identity import TOKENIZER, FileStamp, Identity, hash_of_tensors, hash_of_text
from antiphon.engine.runner import Runner
from antiphon.model.adapter_file import AdapterFile
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.held import precision_of
from antiphon.model.merged import MergedSource
from antiphon.model.precision import Precision
from antiphon.model.source import Source, open_source
from antiphon.model.spec import ModelSpec
from antiphon.model.states import StartState, is_turned_file


class LoadedModel:
    """A model on one device, and what its file says about it."""

    def __init__(self, *, runner: Runner, metadata: Mapping[str, str], identify: Callable[[], Identity]) -> None:
        self.runner = runner
        self.metadata = dict(metadata)
        self._identify = identify

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        precision: Precision | None = None,
        device: str = "cpu",
        threads: int | None = None,
        adapters: Sequence[AdapterFile] = (),
        start_state: Path | None = None,
        timelines: int = TIMELINES,
    ) -> LoadedModel:
        """Read the model file at `path`, lay it out, and warm it.

        precision: None = the file's own whole numbers, else int8. device: `cpu`, `cuda[:N]` or a GPU's UUID. threads:
        on a processor, None = as many as are worth it. adapters: merged in turn. start_state: a state-tuned file, None
        = what comes with the model, if anything. timelines: how many the model has to have room for. Raises FileError
        for a file that cannot be used, AntiphonError for a device there is not, or too little memory.
        """
        path = Path(path)
        device = device_of(device, () if device == "cpu" else gpus())
        stamp = FileStamp.of(path)
        adapters = [adapter.settled() for adapter in adapters]
        stamps = [_AdapterStamp.of(adapter) for adapter in adapters]
        state_stamp = None if start_state is None else FileStamp.of(start_state)
        base = open_source(path)
        given = None if start_state is None else StartState.of_file(start_state, base.spec)
        source = MergedSource.open(base, adapters, start_state=given)

        def identify(held: Precision) -> Identity:
            return Identity(
                model=stamp.sha256(),
                precision=held.value,
                tokenizer=hash_of_text(source.metadata.get(TOKENIZER, "")),
                adapters=tuple(one.told() for one in stamps),
                start_state="" if state_stamp is None else _told_state(state_stamp),
            )

        return cls.of_source(
            source, identify=identify, precision=precision, device=device, threads=threads, timelines=timelines
        )

    @classmethod
    def of_source(
        cls,
        source: Source,
        *,
        identify: Callable[[Precision], Identity],
        precision: Precision | None = None,
        device: str = "cpu",
        threads: int | None = None,
        timelines: int = TIMELINES,
    ) -> LoadedModel:
        """Lay an opened model out, with the start state that comes with it, and warm it; see `open`.

        identify: asked, once somebody wants to know, what the model's numbers depend on in the precision it is held in.
        """
        place = device_of(device, () if device == "cpu" else gpus())
        held = precision_of(source) if precision is None else precision
        embedding_bytes = 1 if source.stored["emb.weight"] == "INT8" else source.dtypes["emb.weight"].itemsize
        fit = fit_of(
            source.spec, held, device=place, free=free_on(place), timelines=timelines, embedding_bytes=embedding_bytes
        )
        require_fit(fit, where=str(source.path))
        state = StartState.of_source(source)
        begin = None if state is None else state.packed().numpy()
        runner: Runner
        if place == "cpu":
            interleave = proven_interleave(source, held)
            runner = CpuRunner.of_source(source, held, start_state=begin, threads=threads, interleave=interleave)
        else:
            from antiphon.engine.gpu_runner import GpuRunner  # what it needs is not there on every machine

            runner = GpuRunner(source, precision=held, device=place, start_state=begin)
        model = cls(runner=runner, metadata=source.metadata, identify=lambda: identify(held))
        model.warm()
        return model

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, threads: int | None = None) -> LoadedModel:
        """Lay a checkpoint that is in memory out on the processor, in int8; call `warm` before it is played."""
        tokenizer = checkpoint.metadata.get(TOKENIZER, "")

        def identify() -> Identity:
            digest = hash_of_tensors(checkpoint)
            return Identity(model=digest, precision=Precision.INT8.value, tokenizer=hash_of_text(tokenizer))

        runner = CpuRunner.of(checkpoint, threads=threads)
        return cls(runner=runner, metadata=checkpoint.metadata, identify=identify)

    @property
    def spec(self) -> ModelSpec:
        """Version and sizes."""
        return self.runner.spec

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""
        return self.runner.vocab_size

    @property
    def state_bytes(self) -> int:
        """Bytes that one timeline remembers, however long it runs."""
        return 4 * self.runner.state_len

    @functools.cached_property
    def identity(self) -> Identity:
        """What its numbers depend on. The first time the model's file is read for its hash, which may take seconds.

        Raises FileError when the file is no longer the one that was loaded.
        """
        return self._identify()

    def warm(self) -> None:
        """Compile the kernels, or load them from disk, so that no timeline has to wait for that."""
        self.runner.warm()

    def close(self) -> None:
        """Let go of the device; neither the model nor a timeline on it is used again."""
        self.runner.close()


@dataclass(frozen=True, slots=True)
class _AdapterStamp:
    """An adapter as it was when it was merged, and all else that decides what merging it gave."""

    file: FileStamp
    first: FileStamp | None
    alpha: float | None
    rounding: str | None

    @classmethod
    def of(cls, adapter: AdapterFile) -> _AdapterStamp:
        first = None if adapter.first is None else FileStamp.of(adapter.first)
        return cls(FileStamp.of(adapter.path), first, adapter.alpha, adapter.rounding)

    def told(self) -> str:
        """The file's hash, and after it what was not as it mostly is."""
        alpha = "" if self.alpha is None else f":{self.alpha:g}"
        first = "" if self.first is None else f":{self.first.sha256()}"
        return f"{self.file.sha256()}{alpha}{first}{'' if self.rounding is None else f':{self.rounding}'}"


def _told_state(stamp: FileStamp) -> str:
    return stamp.sha256() + (":turned" if is_turned_file(stamp.path) else "")
