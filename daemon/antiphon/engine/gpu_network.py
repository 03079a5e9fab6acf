"""A model's step on a device: a slab of rows through all layers, in pieces that a slice may end after.

A row's numbers depend on its own sequence alone: neither the other rows of its slab, nor how its sequence was cut into
slabs, nor what ran between two pieces changes a bit. On a GPU with all its kernels, a slab of one size is captured once
as CUDA graphs, one for each piece; what changes between slabs lies in a small table, which is copied in ahead of them.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antiphon.engine.gpu_operations import PLAIN, Operations
from antiphon.engine.runner import Ids
from antiphon.model.spec import ModelSpec
from antiphon_kernels.linear.format import FLOAT32
from antiphon_kernels.linear.on_device import Matrix
from antiphon_kernels.slab import COLUMNS, Slab, slab_of, tables

log = logging.getLogger(__name__)

MOST_ROWS = 256
"""Rows of the largest slab."""

PIECE_WEIGHTS = 1 << 28
"""Weights that one piece multiplies at most (a layer more): with 64 rows in two planes 2.3 ms at 30 TFLOP/s."""

TUNED_LAYERS = 4
"""Layers whose matrices are read in turn when ways to divide a product are timed."""

Piece = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Consecutive ids of one sequence, whose state and logits are those of `slot`.

    ends: whether logits are wanted after the last id. scored: whether they are wanted after every id.
    """

    slot: int
    ids: Ids
    ends: bool
    scored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a slab is; slabs of few sizes are run, so that each can be captured."""

    rows: int
    sequences: int

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Size:
        rows = 1 << max(0, sum(part.ids.size for part in parts) - 1).bit_length()
        if all(part.ids.size == 1 for part in parts):
            return cls(rows=rows, sequences=rows)
        return cls(rows=rows, sequences=next(n for n in (1, 4, 16, 64, MOST_ROWS) if n >= len(parts)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Norm:
    """A layer norm's float32 [D] each."""

    weight: Tensor
    bias: Tensor


class Block(Protocol):
    """The weights of one layer."""

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Those that `Operations.multiply` multiplies with."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all its matrices."""
        ...


B = TypeVar("B", bound=Block)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights(Generic[B]):
    """All of a model. embedding: [V, D] float, or int8 with `embedding_scales` [V]."""

    spec: ModelSpec
    embedding: Tensor
    embedding_scales: Tensor | None
    ln0: Norm
    layers: tuple[B, ...]
    ln_out: Norm
    head: Matrix

    @property
    def nbytes(self) -> int:
        """Bytes of the embedding and all matrices."""
        scales = 0 if self.embedding_scales is None else self.embedding_scales.nbytes
        return self.embedding.nbytes + scales + sum(layer.nbytes for layer in self.layers) + self.head.nbytes


class Store:
    """States [slots, state_len] and logits [slots, V], float32, of all memories; slot 0 is nobody's."""

    def __init__(self, slots: int, state_len: int, vocab_size: int, device: torch.device) -> None:
        self.states = torch.zeros(slots, state_len, device=device)
        self.logits = torch.zeros(slots, vocab_size, device=device)

    def grow(self, slots: int) -> None:
        """Make room for more; what was there stays."""
        more = slots - self.states.shape[0]
        self.states = torch.nn.functional.pad(self.states, (0, 0, 0, more))
        self.logits = torch.nn.functional.pad(self.logits, (0, 0, 0, more))


class Table:
    """A small array on a device that is filled again and again, in order with the work there and without waiting.

    On a GPU it goes through a few places in page-locked memory in turn; one is used again when its copy is done.
    """

    def __init__(self, columns: int, capacity: int, device: torch.device) -> None:
        self.tensor = torch.zeros(columns, capacity, dtype=torch.int32, device=device)
        self._turns: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        if device.type == "cuda":
            for _ in range(8):
                place = torch.zeros(columns, capacity, dtype=torch.int32, pin_memory=True)
                self._turns.append((place, torch.cuda.Event()))

    def fill(self, numbers: npt.NDArray[np.int32]) -> None:
        """Hold these [columns, capacity]."""
        if not self._turns:
            self.tensor.copy_(torch.from_numpy(numbers))
            return
        place, copied = self._turns[0]
        self._turns.rotate(-1)
        copied.synchronize()  # at once, if it was never recorded
        np.copyto(place.numpy(), numbers)
        self.tensor.copy_(place, non_blocking=True)
        copied.record()


class Network(ABC, Generic[B]):
    """The step of one model over the sequences of one store. One slab is in its workspace at a time."""

    def __init__(
        self,
        weights: Weights[B],
        store: Store,
        *,
        planes: int = 2,
        operations: Operations = PLAIN,
        graphs: bool = True,
        piece_weights: int = PIECE_WEIGHTS,
    ) -> None:
        self.weights = weights
        self.store = store
        self.operations = operations
        self._whole = weights.head.form == FLOAT32
        self.planes = 1 if self._whole else planes
        self._device = weights.embedding.device
        self._table = Table(COLUMNS + 1, MOST_ROWS, self._device)
        self._wants_graphs = graphs
        self._rooms: dict[str, Tensor] = {}
        self._graphs: dict[Size, list[torch.cuda.CUDAGraph]] = {}
        self._pool: Any = None
        self._inside: Passage | None = None
        spec, layers = weights.spec, weights.layers
        sizes = [sum(m.height * m.padded for m in layer.matrices) for layer in layers]
        self._groups = _groups(sizes, at_least=piece_weights)
        self.x = torch.zeros(MOST_ROWS, spec.n_embd, device=self._device)
        self.v_first = torch.zeros(MOST_ROWS, spec.n_embd, device=self._device)

    @staticmethod
    @abstractmethod
    def uses(spec: ModelSpec) -> tuple[str, ...]:
        """The names of the operations that a model of this kind is made of."""

    @abstractmethod
    def layer(self, index: int, slab: Slab) -> None:
        """Run block `index` on the rows in the workspace."""

    @property
    def captures(self) -> bool:
        """Whether slabs are captured as graphs: on a GPU, where no operation is the plain one, which would wait."""
        mine, plain = self.operations, PLAIN
        able = self._device.type == "cuda" and self._wants_graphs
        return able and all(getattr(mine, name) is not getattr(plain, name) for name in self.uses(self.weights.spec))

    def tune(self, search: Callable[..., Sequence[object]]) -> int:
        """Let `search` (`linear.triton_gpu.tune`) find how each product is best divided; how many ways were refused."""
        alike: dict[tuple[object, ...], list[Matrix]] = {}
        for matrix in (*(m for block in self.weights.layers for m in block.matrices), self.weights.head):
            shape = (matrix.form, matrix.height, matrix.padded, matrix.group, matrix.aligned, matrix.by_input)
            alike.setdefault(shape, []).append(matrix)
        refused = 0
        for matrices in alike.values():
            for many in (False, True):
                refused += len(search(matrices[-TUNED_LAYERS:], planes=self.planes, many=many))
        return refused

    @property
    def body_pieces(self) -> int:
        """Pieces of the step but for the head."""
        return len(self._groups)

    def begin(self, parts: Sequence[Part]) -> Passage:
        """Take a slab on: all of it, once the passage has been told to `step` until it is done."""
        return Passage(self, parts)

    def forget_graphs(self) -> None:
        """After the store grew: graphs know where it lay."""
        self._graphs.clear()

    def capture(self, size: Size) -> None:
        """Have the graphs of slabs of this size, if this network captures any. The workspace is overwritten."""
        if size in self._graphs or not self.captures:
            return
        self.enter(None)
        # Nobody's sequences: kernels are compiled and all else is warm before the capture, and no state is touched.
        self._fill_table([])
        pieces = self.pieces(size)
        for piece in pieces:
            piece()
        torch.cuda.current_stream(self._device).synchronize()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            self._graphs[size] = [self._captured(piece) for piece in pieces]
        except RuntimeError as failure:
            log.error("this GPU does not capture graphs, and every step waits for its launches: %s", failure)
            self._wants_graphs = False
            self._graphs.clear()

    def _captured(self, piece: Piece) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            piece()
        finally:
            graph.capture_end()
        return graph

    def replayed(self, size: Size) -> list[Piece]:
        """The pieces as they are to be run: graphs where there are any."""
        if size in self._graphs:
            return [graph.replay for graph in self._graphs[size]]
        return self.pieces(size)

    def pieces(self, size: Size) -> list[Piece]:
        """The whole step, piece by piece; the last one is the head."""
        slab = slab_of(self._table.tensor[:COLUMNS], rows=size.rows, sequences=size.sequences)
        ids = self._table.tensor[COLUMNS, : size.rows]

        def body(first: int, last: int) -> Piece:
            def run() -> None:
                if first == 0:
                    self._embed(ids)
                for index in range(first, last):
                    self.layer(index, slab)

            return run

        return [*(body(first, last) for first, last in self._groups), lambda: self._head(slab)]

    def score(self, parts: Sequence[Part], rows: int) -> Tensor:
        """After all pieces but the head: logits of every row [rows, V]; those after each part are kept as well."""
        out = torch.empty(rows, self.weights.spec.vocab_size, device=self._device)
        self._logits(torch.arange(rows, dtype=torch.int32, device=self._device), out, None)
        row = 0
        for part in parts:
            row += part.ids.size
            self.store.logits[part.slot].copy_(out[row - 1])
        return out

    def enter(self, passage: Passage | None) -> None:
        """Let `passage` into the workspace; whose numbers lie there is given them to keep."""
        if self._inside is passage:
            return
        if self._inside is not None:
            rows = self._inside.size.rows
            self._inside.keep(self.x[:rows].clone(), self.v_first[:rows].clone())
        self._inside = passage
        if passage is not None:
            self._fill_table(passage.parts)
            if passage.kept is not None:
                for mine, its in zip((self.x, self.v_first), passage.kept, strict=True):
                    mine[: passage.size.rows].copy_(its)

    def leave(self, passage: Passage) -> None:
        """The passage is done: what it left in the workspace is nothing to anybody."""
        if self._inside is passage:
            self._inside = None

    def _fill_table(self, parts: Sequence[Part]) -> None:
        columns = tables([(part.slot, part.ids.size) for part in parts], capacity=MOST_ROWS)
        ids = np.zeros((1, MOST_ROWS), np.int32)
        row = 0
        for part in parts:
            ids[0, row : row + part.ids.size] = part.ids
            row += part.ids.size
        self._table.fill(np.concatenate([columns, ids]))

    def room(self, name: str, *size: int, rows: int, planes: bool = False) -> Tensor:
        """Working memory [*size], the same at every call: made for the largest slab when first asked for."""
        dtype = torch.bfloat16 if planes and not self._whole else torch.float32
        count = math.prod(size)
        if name not in self._rooms or self._rooms[name].numel() < count:
            # Zeros: what rows of nobody hold is finite, so that it can be compared.
            self._rooms[name] = torch.zeros(count // rows * MOST_ROWS, dtype=dtype, device=self._device)
        return self._rooms[name][:count].view(size)

    def _embed(self, ids: Tensor) -> None:
        w = self.weights
        out = self.x[: ids.numel()]
        self.operations.embed(w.embedding, w.embedding_scales, ids, w.ln0.weight, w.ln0.bias, out)

    def _head(self, slab: Slab) -> None:
        self._logits(slab.ends, self.store.logits, slab.states)

    def _logits(self, rows: Tensor, out: Tensor, places: Tensor | None) -> None:
        w, count = self.weights, rows.numel()
        last = self.room("last", 1, self.planes, count, w.spec.n_embd, rows=count, planes=True)
        self.operations.norm(self.x, rows, w.ln_out.weight, w.ln_out.bias, last)
        self.operations.multiply(w.head, last, out, places=places)


class Passage:
    """One slab on its way through the network."""

    def __init__(self, network: Network[Any], parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self.size = Size.of(parts)
        self.scored = any(part.scored for part in parts)
        self.kept: tuple[Tensor, Tensor] | None = None
        self.scores: Tensor | None = None
        self._network = network
        self._body = network.body_pieces
        self._last = self._body + (self.scored or any(part.ends for part in parts))
        self._at = 0

    @property
    def ahead(self) -> tuple[Size, int] | None:
        """What the next piece is, for whoever times pieces; None when all is done."""
        return (self.size, self._at) if self._at < self._last else None

    def step(self) -> None:
        """Run the next piece."""
        network = self._network
        network.capture(self.size)  # at the first step; and again when the store has grown since
        network.enter(self)
        if self.scored and self._at == self._body:
            self._score()
        else:
            network.replayed(self.size)[self._at]()
        self._at += 1
        if self._at == self._last:
            network.leave(self)

    def keep(self, x: Tensor, v_first: Tensor) -> None:
        """Hold what lay in the workspace until it is entered again."""
        self.kept = (x, v_first)

    def _score(self) -> None:
        before = [self._network.store.logits[part.slot].clone() for part in self.parts]
        scores = self._network.score(self.parts, sum(part.ids.size for part in self.parts))
        nats: list[Tensor] = []
        row = 0
        for part, first in zip(self.parts, before, strict=True):
            known = torch.cat([first.unsqueeze(0), scores[row : row + part.ids.size - 1]]).double()
            ids = torch.tensor(part.ids, dtype=torch.long, device=known.device).unsqueeze(1)
            nats.append((known.logsumexp(dim=1, keepdim=True) - known.gather(1, ids)).squeeze(1))
            row += part.ids.size
        self.scores = torch.cat(nats).float()


def _groups(sizes: Sequence[int], *, at_least: int) -> list[tuple[int, int]]:
    """Consecutive layers of about `at_least` weights together, as [first, last)."""
    groups: list[tuple[int, int]] = []
    first, total = 0, 0
    for index, size in enumerate(sizes):
        total += size
        if total >= at_least or index == len(sizes) - 1:
            groups.append((first, index + 1))
            first, total = index + 1, 0
    return groups
