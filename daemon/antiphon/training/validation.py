"""How good a network is at pieces it has not seen: nats per note, state carried over the whole piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional

from antiphon.training.batches import IGNORED, Sample, make_batch, sample_ids
from antiphon.training.corpus import Corpus
from antiphon.training.ids import IdRanges
from antiphon.training.network import Network
from antiphon.training.slicing import rows_where
from antiphon.training.window_bars import WindowBars
from antiphon.training.windows import window_rows

_TOKENS_AT_ONCE = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Sums over all judged pieces: −log p in nats of every id after BOS, and how many ids and notes there were."""

    nats: float
    tokens: int
    notes: int
    pieces: int

    @property
    def nats_per_note(self) -> float:
        """All nats, structure included, shared among the notes: the number we report."""
        return self.nats / max(1, self.notes)

    @property
    def nats_per_token(self) -> float:
        """All nats shared among the ids."""
        return self.nats / max(1, self.tokens)


def judge(
    network: Network, corpus: Corpus, ranges: IdRanges, *, max_tokens: int = 2048, max_pieces: int = 0
) -> Judgement:
    """The network on the first `max_tokens` ids of each piece; of `max_pieces` evenly spread ones (0 = all)."""
    count = len(corpus) if max_pieces <= 0 else min(max_pieces, len(corpus))
    chosen = np.unique(np.linspace(0, len(corpus) - 1, count).astype(int))
    pieces = [_whole(corpus, ranges, int(piece), max_tokens) for piece in chosen]
    pieces.sort(key=len)
    nats, tokens, notes = 0.0, 0, 0
    device = network.emb.weight.device
    training = network.training
    network.eval()
    with torch.inference_mode():
        while pieces:
            # The longest first, as many as fit: little is padding.
            longest = len(pieces[-1]) - 1
            rows = [pieces.pop() for _ in range(min(len(pieces), max(1, _TOKENS_AT_ONCE // longest)))]
            inputs = torch.full((len(rows), longest), ranges.pad)
            targets = torch.full((len(rows), longest), IGNORED)
            for row, ids in enumerate(rows):
                inputs[row, : len(ids) - 1] = torch.from_numpy(ids[:-1].astype(np.int64))
                targets[row, : len(ids) - 1] = torch.from_numpy(ids[1:].astype(np.int64))
            targets = targets.to(device)
            logits, _ = network(inputs.to(device))
            losses = functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
            )
            nats += float(losses.double().sum())
            tokens += int((targets != IGNORED).sum())
            notes += int(((targets >= ranges.pitch_first) & (targets <= ranges.pitch_last)).sum())
    network.train(training)
    return Judgement(nats=nats, tokens=tokens, notes=notes, pieces=len(chosen))


def judge_windows(
    network: Network, corpus: Corpus, ranges: IdRanges, bars: WindowBars, *, context: int, max_tokens: int = 0
) -> Judgement:
    """The network on completions of windows of the corpus, in rows of `context` tokens, `max_tokens` in all (0 = all).

    Which windows they are follows from `corpus`, `bars`, `context` and `max_tokens` alone.
    """
    rows = window_rows(corpus, ranges, context=context, bars=bars, seed=0, epoch=0)
    if max_tokens:
        rows = rows[: max(1, max_tokens // context)]
    at_once = max(1, _TOKENS_AT_ONCE // context)
    nats, tokens, notes = 0.0, 0, 0
    device = network.emb.weight.device
    training = network.training
    network.eval()
    with torch.inference_mode():
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            batch = make_batch(some, corpus, ranges, context=context, augmentation=None, seeds=[(0,)] * len(some))
            arrays = (batch.tokens, batch.starts, batch.targets)
            ids, starts, targets = (torch.from_numpy(array).to(device) for array in arrays)
            wanted = targets != IGNORED
            hidden, _ = network.hidden(ids, None, starts)
            logits, targets = network.logits_of(rows_where(hidden, wanted)), targets[wanted]
            nats += float(functional.cross_entropy(logits.float(), targets, reduction="none").double().sum())
            tokens += len(targets)
            notes += int(((targets >= ranges.pitch_first) & (targets <= ranges.pitch_last)).sum())
    network.train(training)
    pieces = len({sample.piece for row in rows for sample in row})
    return Judgement(nats=nats, tokens=tokens, notes=notes, pieces=pieces)


def _whole(corpus: Corpus, ranges: IdRanges, piece: int, max_tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    length = int(corpus.piece_starts[piece + 1] - corpus.piece_starts[piece])
    ids: np.ndarray[tuple[int], np.dtype[np.int32]] = sample_ids(
        corpus, ranges, Sample(piece=piece, start=0, end=length)
    )[: max_tokens + 1]
    return ids
