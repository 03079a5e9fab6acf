"""Which rows of a slab belong to which sequence, as the kernels of a GPU read it: small tables on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

COLUMNS = 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slab:
    """R rows of S sequences; the rows of one sequence follow each other. All int32.

    Per row: `slots` [R], the state it belongs to; `previous` [R], the row before it in its sequence, or -1 where the
    state knows the token before; `last` [R], for the first row of a sequence the last one, else -1.
    Per sequence: `states` [S], its state; `first` [S], its first row; `count` [S], how many, 0 for a sequence that is
    none; `ends` [S], its last row. State 0 belongs to nobody: rows and sequences that fill a slab up have it.
    """

    slots: Tensor
    previous: Tensor
    last: Tensor
    states: Tensor
    first: Tensor
    count: Tensor
    ends: Tensor

    @property
    def rows(self) -> int:
        return self.slots.numel()

    @property
    def sequences(self) -> int:
        return self.states.numel()


def tables(parts: Sequence[tuple[int, int]], *, capacity: int) -> npt.NDArray[np.int32]:
    """int32 [COLUMNS, capacity]: the tables of sequences (state, length) that lie one behind the other."""
    table = np.zeros((COLUMNS, capacity), np.int32)
    slots, previous, last, states, first, count, ends = table
    previous[:] = -1
    last[:] = -1
    row = 0
    for index, (state, length) in enumerate(parts):
        end = row + length - 1
        slots[row : end + 1] = state
        previous[row + 1 : end + 1] = np.arange(row, end)
        last[row] = end
        states[index], first[index], count[index], ends[index] = state, row, length, end
        row += length
    return table


def slab_of(table: Tensor, *, rows: int, sequences: int) -> Slab:
    """The slab whose tables lie in `table` [COLUMNS, capacity], as views."""
    slots, previous, last, states, first, count, ends = table
    return Slab(
        slots=slots[:rows],
        previous=previous[:rows],
        last=last[:rows],
        states=states[:sequences],
        first=first[:sequences],
        count=count[:sequences],
        ends=ends[:sequences],
    )
