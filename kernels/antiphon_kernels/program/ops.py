"""The operations that a model's step is made of, and a whole step as a list of them in flat arrays.

A *slab* is up to `MAX_ROWS` rows, one for each token to feed; the rows of one timeline stand together, in order, and
are its *segment*. Between operations the numbers of a slab lie in *slots*, float32 matrices [rows, width of the slot];
activations on their way into matrices lie in *acts*, rounded (see `antiphon_kernels.linear`).

An operation is a row of `Program.ops`: its code, when the threads meet after it, and its numbers. Every thread runs
every operation and does its share of it; operations between two meetings touch nothing of one another. The shares of an
element-wise operation are rows. When there is only one row, each thread works it out for itself, in slots of its *own*,
which is sooner done than waiting for another thread; then there are meetings only where matrices and heads are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_ROWS = 64
"""Rows of a slab: as many as one weight, once fetched, is worth being used for."""

(
    BEGIN,  # own to, weight, bias: to = layer norm of the embedding's rows
    NORM,  # from, own to, weight, bias: to = layer norm of from
    ADD_NORM,  # from, own onto, own to, weight, bias: onto += from, then to = layer norm of onto
    ADD,  # from, own onto: onto += from
    MIX,  # own from, place, mix, own to, act: to = from + (the row before - from) * mix, and rounded into act
    MIX_BY,  # own from, place, mix, own to, act, more: as MIX, with the slot `more` added to mix
    GATE,  # slot, by: slot = slot * sigmoid(by)
    KEEP,  # own from, place: each state takes the last row of its segment
    ROUND,  # from, act, function, inputs, own to: to = function(from), and rounded into act
    LINEAR,  # act, slot that it was rounded from, matrix, to, first block, last block, turn: to = matrix times act
    SUMS_4,  # see sums4.py
    HEADS_5,  # see heads5.py
    HEADS_7,  # see heads7.py
    HEAD_ROUND,  # own from, own to, act, weight, bias: the rows of which logits are wanted, normed and rounded
    HEAD,  # act, slot that it was rounded from, matrix, first block, last block, turn: their logits
    FINISH,  # logits to their timelines, and what the ids that came next cost
) = range(16)  # fmt: skip

PLAIN, TANH, SIGMOID, RELU_SQUARED, SILU = range(5)  # functions of ROUND

CODE, MEET, MEET_ONE, FIRST = range(4)
"""Columns of `Program.ops`: MEET for slabs of several rows, MEET_ONE for those of one."""
OP_COLUMNS = 24

# Entries of `Program.sizes`: of a model; for one row, floats of all shared and all own slots, and bytes of all acts,
# which are own; and what products need.
WIDTH, N_HEAD, HEAD_SIZE, VOCAB, HEAD_WIDTH, SHARED_FLOATS, OWN_FLOATS, ACT_BYTES, SCRATCH_BYTES = range(9)
SIZES = 9
OFFSET, SIZE, OWN = range(3)  # columns of `slots` and `acts`: for one row, among the shared or among the own ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A model ready to run: nothing in it changes, and any number of timelines and threads may share it.

    weights: uint8 (interleaved for this processor) or int8 (rows as they are), all matrices one after the other.
    floats float32: scales, norms, mixes. matrices int64 [n, MATRIX_COLUMNS]. ops int64 [n, OP_COLUMNS]. slots, acts
    int64 [n, 3]: where each begins, how wide it is, whether it is own. sizes int64 [SIZES]. embedding: [V, D] int8 with
    `embedding_scale` float32 [V], or float32, or float16, or uint16 that hold bfloat16. start: float32 [state_len], the
    state before the first token. costs int64 [n_ops]: bytes of weights that an operation reads.
    """

    weights: Array
    floats: npt.NDArray[np.float32]
    matrices: npt.NDArray[np.int64]
    ops: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    acts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    embedding: Array
    embedding_scale: npt.NDArray[np.float32] | None
    start: npt.NDArray[np.float32]
    costs: npt.NDArray[np.int64]

    @property
    def vocab_size(self) -> int:
        return int(self.sizes[VOCAB])

    @property
    def width(self) -> int:
        return int(self.sizes[WIDTH])

    @property
    def state_len(self) -> int:
        """float32 numbers in one timeline's state."""
        return int(self.start.size)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the model holds."""
        arrays = (self.weights, self.floats, self.matrices, self.ops, self.sizes, self.embedding, self.start)
        scale = 0 if self.embedding_scale is None else self.embedding_scale.nbytes
        return sum(int(array.nbytes) for array in arrays) + scale

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one token reads when it runs alone and no unit is skipped."""
        return int(self.costs.sum())
