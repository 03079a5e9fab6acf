"""A model that plays in float32, so that what int8 costs can be heard: slow, and for evaluation only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.rwkv7 import State
from antiphon.session.voice import Voice
from antiphon.training.network import Network


class FloatTimeline(Timeline):
    """A timeline whose logits come from `network`. It feeds and samples, but neither forks nor rewinds."""

    __slots__ = ("_memory_of_network", "_network")

    def __init__(self, model: LoadedModel, network: Network) -> None:
        super().__init__(model)
        self._network = network
        self._memory_of_network: State | None = None

    def feed(self, ids: Sequence[int]) -> None:
        """Append `ids`. ValueError, and nothing is fed, when one is not in the vocabulary."""
        if not len(ids):
            return
        inputs = torch.from_numpy(self._checked(ids).astype(np.int64)).unsqueeze(0)
        with torch.inference_mode():
            logits, self._memory_of_network = self._network(inputs, self._memory_of_network)
        np.copyto(self._logits, logits[0, -1].float().numpy())
        self._count += len(ids)

    def fork(self) -> Timeline:
        """Not to be had."""
        raise NotImplementedError("a timeline for evaluation only goes on")


@dataclass(frozen=True, slots=True)
class FloatVoice(Voice):
    """A voice whose timelines run on the float weights of `network`."""

    network: Network

    @classmethod
    def of(cls, voice: Voice, weights: Checkpoint) -> FloatVoice:
        """`voice` with other weights of its shape, in float32."""
        return cls(voice.model, voice.vocabulary, Network(weights.spec, dequantize(weights).tensors))

    def timeline(self) -> Timeline:
        """A timeline that has heard nothing."""
        return FloatTimeline(self.model, self.network)
