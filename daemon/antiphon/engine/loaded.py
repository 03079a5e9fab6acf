"""A model in memory, ready to run: read once, packed once, shared by every timeline on it.

A `LoadedModel` never changes, so timelines on different threads may share it; each timeline belongs to one thread at
a time (in the daemon: the worker).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec
from antiphon_kernels.rwkv7_step import numba_cpu
from antiphon_kernels.rwkv7_step.pack import Packed, pack
from antiphon_kernels.sample import numba_cpu as sample_cpu


class LoadedModel:
    """The weights of one model, packed for the CPU step."""

    def __init__(self, *, spec: ModelSpec, packed: Packed, metadata: Mapping[str, str]) -> None:
        self.spec = spec
        self.packed = packed
        self.metadata = dict(metadata)

    @classmethod
    def open(cls, path: Path | str) -> LoadedModel:
        """Read, pack and warm the checkpoint at `path`; FileError when it cannot be used."""
        model = cls.of(checkpoints.read(Path(path)))
        model.warm()
        return model

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LoadedModel:
        """Pack a checkpoint; one that is not in int8 is quantized first."""
        if checkpoint.tensors["emb.weight"].dtype != torch.int8:
            checkpoint = quantize_int8(checkpoint)
        tensors = {
            name: (tensor if tensor.dtype == torch.int8 else tensor.float()).numpy()
            for name, tensor in checkpoint.tensors.items()
        }
        return cls(spec=checkpoint.spec, packed=pack(tensors), metadata=checkpoint.metadata)

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""
        return self.spec.vocab_size

    @property
    def state_bytes(self) -> int:
        """Bytes that one timeline remembers, however long it runs."""
        return 4 * self.packed.state_len

    def warm(self) -> None:
        """Compile the kernels, or load them from disk, so that no timeline has to wait for that."""
        logits = np.empty(self.vocab_size, np.float32)
        state = np.zeros(self.packed.state_len, np.float32)
        numba_cpu.feed(self.packed, np.zeros(1, np.int32), state, logits)
        for mask in (None, np.ones(self.vocab_size, np.bool_)):
            sample_cpu.sample(logits, mask, temperature=1.0, top_k=0, top_p=0.9, min_p=0.0, uniform=0.5)
        sample_cpu.nats(logits, 0)
