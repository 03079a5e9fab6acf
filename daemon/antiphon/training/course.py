"""A run's batches in order, each made by a thread of its own while the one before it is learnt from.

Which rows a batch holds, and how they are varied, follows from the seed and the place in the corpus alone; so a run
goes on exactly where it stopped by remembering its place.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from antiphon.training.batches import Batch, Sample, epoch_rows, make_batch
from antiphon.training.config import TrainingConfig
from antiphon.training.corpus import Corpus
from antiphon.training.ids import IdRanges
from antiphon.training.windows import window_rows


@dataclass(frozen=True, slots=True)
class Place:
    """The next row to learn from: `row` of `epoch`, both from 0."""

    epoch: int
    row: int


class Course:
    """`at(place)` gives a batch and the place after it. Inside `with course:` that batch is then being made already."""

    def __init__(self, config: TrainingConfig, *, corpus: Corpus, ranges: IdRanges) -> None:
        self._config, self._corpus, self._ranges = config, corpus, ranges
        self._maker: ThreadPoolExecutor | None = None
        self._ahead: tuple[Place, Future[tuple[Batch, Place]]] | None = None
        self._rows: list[list[Sample]] = []
        self._rows_epoch = -1

    def __enter__(self) -> Course:
        self._maker = ThreadPoolExecutor(1, "batches")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._maker is not None
        self._maker.shutdown(cancel_futures=True)
        self._maker, self._ahead = None, None

    def at(self, place: Place) -> tuple[Batch, Place]:
        """The batch that begins at `place`, and where the one after it begins."""
        if self._maker is None:
            return self._made(place)
        if self._ahead is None or self._ahead[0] != place:
            # All are made by the one thread, so that the plan of the epoch needs no lock.
            self._ahead = (place, self._maker.submit(self._made, place))
        made = self._ahead[1].result()
        self._ahead = (made[1], self._maker.submit(self._made, made[1]))
        return made

    def _made(self, place: Place) -> tuple[Batch, Place]:
        config = self._config
        wanted = config.batch_tokens // config.context
        rows: list[list[Sample]] = []
        seeds: list[tuple[int, ...]] = []
        epoch, row = place.epoch, place.row
        while len(rows) < wanted:
            plan = self._plan(epoch)
            if row >= len(plan):
                epoch, row = epoch + 1, 0
                continue
            rows.append(plan[row])
            # 1 keeps these streams apart from the plan's own, which ends in 0.
            seeds.append((config.seed, epoch, 1, row))
            row += 1
        batch = make_batch(
            rows,
            self._corpus,
            self._ranges,
            context=config.context,
            augmentation=config.augmentation,
            seeds=seeds,
        )
        return batch, Place(epoch, row)

    def _plan(self, epoch: int) -> list[list[Sample]]:
        if self._rows_epoch != epoch:
            config, bars = self._config, self._config.window_bars
            if bars is None:
                self._rows = epoch_rows(
                    self._corpus, self._ranges, context=config.context, seed=config.seed, epoch=epoch
                )
            else:
                self._rows = window_rows(
                    self._corpus, self._ranges, context=config.context, bars=bars, seed=config.seed, epoch=epoch
                )
            self._rows_epoch = epoch
        return self._rows
