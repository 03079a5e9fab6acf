"""Pairs of context and completion as a model learns them: shortened where they are too long, shifted, and padded.

Pairs come from `tokens.windows` or from the file that `antiphon windows` writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from antiphon.errors import AntiphonError, FileError
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.windows import Pair

PADDING = 0

_CONTEXT_SHARE = 4
"""A context keeps one part in so many of the longest sequence, however long its completion is."""

_METADATA_IDS = 2
"""So many ids may come in front of a shortened context to tell its tempo and meter."""

MAX_LINE_BYTES = 16 << 20
MAX_PAIRS = 10_000_000


class Item(TypedDict):
    """A window less its last id and less its first one, both int64 [T], and how many ids of it are context."""

    input_ids: Tensor
    target_ids: Tensor
    ctx_len: int


class Padded(TypedDict):
    """Items in rows padded on the right with 0: int64 [B, T]; `attention_mask` bool [B, T]; `ctx_lengths` int64 [B].

    Targets are padded, too: what is learnt is chosen by `slicing.completion_mask`, never by the ids themselves.
    """

    input_ids: Tensor
    target_ids: Tensor
    attention_mask: Tensor
    ctx_lengths: Tensor


class CopilotDataset(Dataset[Item]):
    """Pairs of context and completion, each of `max_seq_len` ids at most.

    tokenizer: knows where a context that is too long may be cut; without one it is cut anywhere. Raises AntiphonError
    for a pair with an empty half.
    """

    def __init__(
        self, data_pairs: Sequence[Pair], max_seq_len: int = 2048, tokenizer: PianoTokenizer | None = None
    ) -> None:
        if max_seq_len < 2 * _CONTEXT_SHARE:
            raise AntiphonError(f"{max_seq_len} ids are no sequence", fix=f"allow {2 * _CONTEXT_SHARE} or more")
        for number, (context, completion) in enumerate(data_pairs):
            if not context or not completion:
                raise AntiphonError(f"pair {number} has no {'completion' if context else 'context'}")
        self._pairs = data_pairs
        self._longest = max_seq_len
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Item:
        context, completion = self._fitted(*self._pairs[index])
        ids = torch.tensor([*context, *completion], dtype=torch.long)
        return Item(input_ids=ids[:-1], target_ids=ids[1:], ctx_len=len(context))

    def _fitted(self, context: list[int], completion: list[int]) -> Pair:
        """The completion loses its end and the context its beginning; the context keeps its share."""
        least = min(len(context), self._longest // _CONTEXT_SHARE)
        completion = completion[: self._longest - least]
        return self._tail(context, self._longest - len(completion)), completion

    def _tail(self, context: list[int], room: int) -> list[int]:
        """The last `room` ids of `context` at most: from a bar on, or else from a structural id, told tempo and meter.

        These are the ones in force where it is cut, so that it reads as a context that begins there.
        """
        tokenizer = self._tokenizer
        if len(context) <= room or tokenizer is None:
            return context[-room:]
        if tokenizer.id_to_token(context[0]) == "BOS_None":
            return [context[0], *self._tail(context[1:], room - 1)]
        first = len(context) - room + _METADATA_IDS
        bars = [place for place in tokenizer.find_bar_indices(context) if place >= first]
        if bars:
            tail = context[bars[0] :]
            return tokenizer.with_metadata(tail, tokenizer.extract_metadata_tokens(context, bars[0]))
        # A bar longer than the room for it: it is entered in its middle.
        structural = (place for place in range(first, len(context)) if tokenizer.is_structural_token(context[place]))
        cut = next(structural, first)
        told = tokenizer.extract_metadata_tokens(context, cut).values()
        return [*(token for token in told if token is not None), *context[cut:]]


def collate_fn(batch: Sequence[Item]) -> Padded:
    """The items of a batch as rows of one length."""
    inputs = [item["input_ids"] for item in batch]
    targets = [item["target_ids"] for item in batch]
    lengths = torch.tensor([len(ids) for ids in inputs])
    padded = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=PADDING)
    return Padded(
        input_ids=padded,
        target_ids=torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=PADDING),
        attention_mask=torch.arange(padded.shape[1]) < lengths.unsqueeze(1),
        ctx_lengths=torch.tensor([item["ctx_len"] for item in batch]),
    )


def loader(
    dataset: CopilotDataset, *, batch_size: int = 4, shuffle: bool = True, workers: int = 0, seed: int = 0
) -> DataLoader[Item]:
    """Batches of `Padded` rows in an order that follows from `seed`, made by `workers` processes (0 = this one).

    Their memory is pinned where there is a GPU to copy it to.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=workers,
        collate_fn=collate_fn,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
        # A worker that is forked while other threads hold locks may never wake up.
        multiprocessing_context="spawn" if workers else None,
    )


def read_pairs(path: Path) -> list[Pair]:
    """The pairs in a file of lines {"context": [id, …], "completion": [id, …]}. Raises FileError naming the line."""
    pairs: list[Pair] = []
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                pairs.append(_pair(line, where=f"{path}:{len(pairs) + 1}"))
                if len(pairs) > MAX_PAIRS:
                    raise FileError(f"more than {MAX_PAIRS:,} pairs", where=str(path))
    except OSError as error:
        raise FileError(error.strerror or "cannot be read", where=str(path)) from error
    return pairs


def _pair(line: bytes, *, where: str) -> Pair:
    fix = 'write it like {"context": [3, 204], "completion": [3, 204]}'
    if len(line) > MAX_LINE_BYTES:
        raise FileError(f"a line of more than {MAX_LINE_BYTES:,} bytes", where=where, fix=fix)
    try:
        values = json.loads(line)
        context, completion = values["context"], values["completion"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError("not a pair of context and completion", where=where, fix=fix) from error
    for ids in (context, completion):
        if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < 1 << 31 for id in ids):
            raise FileError("context and completion must be lists of ids", where=where, fix=fix)
    return context, completion
