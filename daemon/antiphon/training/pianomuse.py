"""PianoMuseRWKV: a checkpoint to train on pairs of context and completion, and to complete contexts with.

It is the float model under autograd; an instrument plays on `antiphon.engine`, which is many times faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from antiphon.engine.sampling import Sampling
from antiphon.errors import AntiphonError
from antiphon.model import checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.rwkv7 import State
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.vocabulary import BOS, Grid, Vocabulary
from antiphon.training.copilot import PADDING
from antiphon.training.network import Network
from antiphon.training.slicing import physical_slicing
from antiphon_kernels.sample.reference import sample

PREFILL_TOKENS = 512
"""A context is fed in chunks of so many ids, so that memory does not grow with its length."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PianoMuseRWKV(nn.Module):
    """An RWKV-7 checkpoint in a safetensors file, float or int8.

    strategy: device and the type of matrix products, such as "cuda bf16" or "cpu fp32"; by default the first where
    there is CUDA, and the second elsewhere. Weights, norms and the recurrence are float32 in both.
    tokenizer: says what a bar and an end are; by default ours for a checkpoint that was trained on its ids, and
    PianoMuse's for others.

    Raises FileError for a file that is no model, AntiphonError for a strategy that cannot be had.
    """

    def __init__(
        self, model_path: str | Path, strategy: str | None = None, *, tokenizer: PianoTokenizer | None = None
    ) -> None:
        super().__init__()
        self.device, dtype = _strategy(strategy)
        found = dequantize(checkpoint.read(Path(model_path)))
        self.spec = found.spec
        self.network = Network(found.spec, found.tensors, compute_dtype=dtype).to(self.device)
        self.tokenizer = tokenizer or _tokenizer_of(found)

    def forward(
        self, input_ids: Tensor, ctx_lengths: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [n, V] of the n positions that predict completions; of all positions, [B, T, V], without ctx_lengths.

        input_ids [B, T]: windows less their last id, padded on the right. ctx_lengths [B]: ids of context in each.
        attention_mask bool [B, T]: false on padding; without one it is the zeros at a row's end.
        """
        input_ids = input_ids.to(self.device)
        hidden, _ = self.network.hidden(input_ids)
        if ctx_lengths is None:
            return self.network.logits_of(hidden)
        if attention_mask is None:
            attention_mask = (input_ids != PADDING).flip(1).cummax(dim=1).values.flip(1)
        rows = physical_slicing(hidden, ctx_lengths.to(self.device), attention_mask.to(self.device))
        return self.network.logits_of(rows)

    @torch.inference_mode()
    def generate(
        self,
        context_tokens: Sequence[int],
        max_new_tokens: int = 512,
        temperature: float = 0.85,
        top_p: float = 0.90,
        top_k: int = 0,
        *,
        bars: int | None = None,
        seed: int | None = None,
    ) -> list[int]:
        """The ids that complete `context_tokens`: `max_new_tokens` at most, fewer where the piece or its bars end.

        bars: stop before the Bar that would open one more than so many. An end of piece stops it, too; neither id is
        among those returned. BOS comes before a context in our vocabulary, whether it is given or not. Sampling is
        temperature, top-k, softmax, top-p, and follows from `seed`, if one is given. Raises AntiphonError.
        """
        if bars is not None and bars < 1:
            raise AntiphonError(f"{bars} bars are no completion", fix="ask for 1 or more")
        sampling = _checked(temperature=temperature, top_p=top_p, top_k=top_k)
        rng = np.random.default_rng(seed)
        logits, state = self._prefilled(self._whole(context_tokens))
        made: list[int] = []
        begun = 0
        while len(made) < max_new_tokens:
            token = sample(
                logits.cpu().numpy(),
                None,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=0.0,
                uniform=float(rng.random()),
            )
            name = self._name(token)
            begun += name.startswith("Bar_")
            if name == "EOS_None" or (bars is not None and begun > bars):
                break
            made.append(token)
            logits, state = self._fed([token], state)
        return made

    def _whole(self, context: Sequence[int]) -> list[int]:
        ids = list(context)
        if self.tokenizer.preset == "antiphon" and ids[:1] != [BOS]:
            ids.insert(0, BOS)
        if not ids:
            raise AntiphonError("there is nothing to complete", fix="give a context of one id or more")
        if min(ids) < 0 or max(ids) >= self.spec.vocab_size:
            raise AntiphonError(f"the model knows ids from 0 to {self.spec.vocab_size - 1} only")
        return ids

    def _prefilled(self, ids: list[int]) -> tuple[Tensor, State]:
        logits, state = self._fed(ids[:PREFILL_TOKENS], None)
        for first in range(PREFILL_TOKENS, len(ids), PREFILL_TOKENS):
            logits, state = self._fed(ids[first : first + PREFILL_TOKENS], state)
        return logits, state

    def _fed(self, ids: list[int], state: State | None) -> tuple[Tensor, State]:
        """Logits [V] after `ids`, float32, and the state there; only the last position goes through the head."""
        hidden, state = self.network.hidden(torch.tensor([ids], device=self.device), state)
        return self.network.logits_of(hidden[0, -1]).float(), state

    def _name(self, token: int) -> str:
        """What `token` stands for; nothing where the model has more rows than the vocabulary has ids."""
        return self.tokenizer.id_to_token(token) if token < self.tokenizer.get_vocab_size() else ""


def _strategy(text: str | None) -> tuple[torch.device, torch.dtype]:
    if text is None:
        text = "cuda bf16" if torch.cuda.is_available() else "cpu fp32"
    device, _, kind = text.partition(" ")
    if kind not in _DTYPES or device.partition(":")[0] not in ("cpu", "cuda"):
        raise AntiphonError(f"{text!r} is no strategy", fix='say "cuda bf16", "cuda fp32", "cpu bf16" or "cpu fp32"')
    if device != "cpu" and not torch.cuda.is_available():
        raise AntiphonError(f"{text!r} needs a GPU that CUDA finds, and there is none", fix='say "cpu fp32"')
    return torch.device(device), _DTYPES[kind]


def _tokenizer_of(found: checkpoint.Checkpoint) -> PianoTokenizer:
    rows = found.spec.vocab_size
    grid = found.metadata.get("tokenizer")
    if grid is None:
        return PianoTokenizer(vocab_size=rows, preset="pianomuse")
    if Grid.from_json(grid) != Vocabulary().grid:
        raise AntiphonError("the model was trained on another grid of ours", fix="give the tokenizer it was trained on")
    return PianoTokenizer(vocab_size=rows, preset="antiphon")


def _checked(*, temperature: float, top_p: float, top_k: int) -> Sampling:
    try:
        return Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    except ValueError as error:
        raise AntiphonError(str(error)) from error
