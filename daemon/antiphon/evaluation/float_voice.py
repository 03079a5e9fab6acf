"""A model that plays in float32, so that what int8 costs can be heard: slow, and for evaluation only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Floats, Timeline
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.rwkv7 import pack, unpack
from antiphon.session.voice import Voice
from antiphon.training.network import Network


class FloatTimeline(Timeline):
    """A timeline whose logits come from `network`; its memory is laid out as the engine's, so it goes back, too."""

    __slots__ = ("_network",)

    def __init__(self, model: LoadedModel, network: Network) -> None:
        super().__init__(model)
        self._network = network

    def feed(self, ids: Sequence[int]) -> None:
        """Append `ids`. ValueError, and nothing is fed, when one is not in the vocabulary."""
        if len(ids):
            self._run(ids)

    def feed_scored(self, ids: Sequence[int]) -> Floats:
        """Append `ids`; gives -log p of each under the logits before it, at temperature 1, unmasked."""
        if not len(ids):
            return np.empty(0, np.float32)
        before = torch.from_numpy(self._logits.copy()).unsqueeze(0)
        logits = torch.cat([before, self._run(ids)[:-1]])
        return functional.cross_entropy(logits, torch.tensor(list(ids)), reduction="none").numpy()

    def fork(self) -> FloatTimeline:
        """A timeline that goes on from here by itself."""
        twin = FloatTimeline(self._model, self._network)
        twin.copy_from(self)
        return twin

    def _run(self, ids: Sequence[int]) -> Tensor:
        """Logits [T, V] after each of `ids`; the memory moves on."""
        inputs = torch.from_numpy(self._checked(ids).astype(np.int64)).unsqueeze(0)
        with torch.inference_mode():
            before = unpack(self._network.spec, torch.from_numpy(self._state.copy()).unsqueeze(0))
            found, after = self._network(inputs, before)
        logits: Tensor = found[0].float()
        np.copyto(self._state, pack(after)[0].numpy())
        np.copyto(self._logits, logits[-1].numpy())
        self._count += len(ids)
        return logits


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
