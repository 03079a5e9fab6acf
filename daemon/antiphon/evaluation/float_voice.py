"""A model that plays in float32, so that what int8 costs can be heard: slow, and for evaluation only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional

from antiphon.engine.cpu_runner import CpuMemory, draw_from, held
from antiphon.engine.identity import TOKENIZER, Identity, hash_of_tensors, hash_of_text
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Draw, Feed, Memory
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.rwkv7 import pack, unpack
from antiphon.session.voice import Voice
from antiphon.training.network import Network


class FloatRunner:
    """Runs `network` on the processor, in the memories that the engine's own runner has."""

    def __init__(self, network: Network) -> None:
        self.spec = network.spec
        self.device = "cpu"
        self.vocab_size = network.spec.vocab_size
        self.state_len = network.spec.state_floats
        self.nbytes = 4 * network.spec.parameters
        self._network = network

    def new_memory(self) -> CpuMemory:
        return CpuMemory(np.zeros(self.state_len + self.vocab_size, np.float32), self.state_len)

    def run(self, feeds: Sequence[Feed]) -> None:
        for feed in feeds:
            self._run(feed)

    def _run(self, feed: Feed) -> None:
        memory = held(feed.memory)
        ids = torch.from_numpy(feed.ids.astype(np.int64))
        with torch.inference_mode():
            before = unpack(self.spec, torch.from_numpy(memory.state.copy()).unsqueeze(0))
            found, after = self._network(ids.unsqueeze(0), before)
        logits = found[0].float()
        if feed.nats is not None:
            foretold = torch.cat([torch.from_numpy(memory.logits.copy()).unsqueeze(0), logits[:-1]])
            np.copyto(feed.nats, functional.cross_entropy(foretold, ids, reduction="none").numpy())
        memory.load(pack(after)[0].numpy(), logits[-1].numpy())

    def begin(self, feeds: Sequence[Feed]) -> FloatRunning:
        return FloatRunning(self, feeds)

    def sample(self, memory: Memory, draw: Draw) -> int:
        return draw_from(memory.logits, draw)

    def sample_all(self, memories: Sequence[Memory], draws: Sequence[Draw]) -> list[int]:
        return [self.sample(memory, draw) for memory, draw in zip(memories, draws, strict=True)]

    def warm(self) -> None:
        """Nothing to compile."""

    def close(self) -> None:
        """Nothing to let go of."""


class FloatRunning:
    """Feeds run one by one, each whole."""

    def __init__(self, runner: FloatRunner, feeds: Sequence[Feed]) -> None:
        self._runner = runner
        self._feeds = list(feeds)

    def advance(self, budget_ns: int) -> bool:
        """Run the next feed, whatever the budget; gives whether all is done."""
        if self._feeds:
            self._runner.run([self._feeds.pop(0)])
        return not self._feeds


def float_voice(voice: Voice, weights: Checkpoint) -> Voice:
    """`voice` with other weights of its shape, in float32."""
    runner = FloatRunner(Network(weights.spec, dequantize(weights).tensors))

    def identify() -> Identity:
        tokenizer = hash_of_text(voice.model.metadata.get(TOKENIZER, ""))
        return Identity(model=hash_of_tensors(weights), precision="fp32", tokenizer=tokenizer)

    model = LoadedModel(runner=runner, metadata=voice.model.metadata, identify=identify)
    return Voice(model, voice.vocabulary)
