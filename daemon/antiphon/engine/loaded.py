"""A model in memory, ready to run: read once, packed once, shared by every timeline on it.

A `LoadedModel` never changes, so timelines on different threads may share it; each timeline belongs to one thread at
a time (in the daemon: the worker).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from antiphon.engine.cpu_runner import CpuRunner
from antiphon.engine.identity import TOKENIZER, FileStamp, Identity, hash_of_tensors, hash_of_text
from antiphon.engine.runner import Runner
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.spec import ModelSpec


class LoadedModel:
    """A model on one device, and what its file says about it."""

    def __init__(self, *, runner: Runner, metadata: Mapping[str, str], identify: Callable[[], Identity]) -> None:
        self.runner = runner
        self.metadata = dict(metadata)
        self._identify = identify

    @classmethod
    def open(cls, path: Path | str) -> LoadedModel:
        """Read, pack and warm the checkpoint at `path`; FileError when it cannot be used."""
        stamp = FileStamp.of(Path(path))
        checkpoint = checkpoints.read(Path(path))
        model = cls._held(checkpoint, stamp.sha256)
        model.warm()
        return model

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LoadedModel:
        """Pack a checkpoint; one that is not in int8 is quantized first."""
        return cls._held(checkpoint, lambda: hash_of_tensors(checkpoint))

    @classmethod
    def _held(cls, checkpoint: Checkpoint, hash_of_model: Callable[[], str]) -> LoadedModel:
        tokenizer = checkpoint.metadata.get(TOKENIZER, "")

        def identify() -> Identity:
            return Identity(model=hash_of_model(), precision="int8", tokenizer=hash_of_text(tokenizer))

        return cls(runner=CpuRunner.of(checkpoint), metadata=checkpoint.metadata, identify=identify)

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
