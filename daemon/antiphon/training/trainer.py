"""Training: batch after batch until the run's end, with checkpoints from which it continues exactly.

The trainer owns the network, the optimiser and the run's folder. It is told what to learn from, when to stop, and
where its progress may be shown.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from rich.console import Console
from torch import Tensor

from antiphon.errors import AntiphonError, FileError
from antiphon.model.checkpoint import Checkpoint
from antiphon.training import snapshots
from antiphon.training.batches import IGNORED, Batch
from antiphon.training.config import TrainingConfig
from antiphon.training.corpus import Corpus
from antiphon.training.course import Course, Place
from antiphon.training.first_weights import first_weights
from antiphon.training.ids import IdRanges
from antiphon.training.memory import keep_freed_memory
from antiphon.training.network import Network
from antiphon.training.optimizer import Optimizer
from antiphon.training.progress_bar import Bar, bar_on
from antiphon.training.schedule import learning_rate, progress
from antiphon.training.slicing import rows_where
from antiphon.training.snapshots import Counters
from antiphon.training.validation import Judgement, judge, judge_windows

MAX_BAD_STEPS = 5
"""So many batches in a row may be passed over for a loss or gradient that is not finite; then the run has failed."""

BAD_BATCH = "bad-batch.npz"
"""The last batch passed over: tokens, targets, starts, and the step, loss and gradient norm."""


class TrainingError(AntiphonError):
    """A run that cannot go on."""


class Trainer:
    """One run in one folder; `run` does all of it that is left."""

    def __init__(
        self,
        config: TrainingConfig,
        *,
        corpus: Corpus,
        valid: Corpus | None,
        ranges: IdRanges,
        tokenizer: str,
        out: Path,
        resume: bool = False,
    ) -> None:
        self.config, self.corpus, self.valid, self.ranges = config, corpus, valid, ranges
        self.tokenizer, self.out = tokenizer, out
        self.counters = Counters()
        if config.threads:
            torch.set_num_threads(config.threads)
        # Where a checkpoint lay on this machine tells nobody anything.
        told = replace(config, init_from=Path(config.init_from).name)
        self._metadata = {"tokenizer": tokenizer, "corpus": corpus.fingerprint(), "training": told.to_json()}
        if config.device != "cpu" and not torch.cuda.is_available():
            raise TrainingError(f"{config.device} is wanted, and CUDA finds no GPU", fix="set device to cpu")
        self.device = torch.device(config.device)
        optimizer_state: dict[str, Any] | None = None
        if resume:
            self.counters, saved, optimizer_state = snapshots.load(snapshots.newest_folder(out))
            self._require_same(saved.metadata)
            spec, weights = saved.spec, saved.tensors
            begun = {key: text for key, text in saved.metadata.items() if key == "begun_from"}
            if (spec.n_layer, spec.n_embd, spec.vocab_size) != (config.layers, config.width, ranges.size):
                raise FileError("the checkpoint is of another model", where=str(out), fix=f"it is {spec.to_json()}")
        else:
            snapshots.require_fresh(out)
            spec, weights, begun = first_weights(config, vocab_size=ranges.size, tokenizer=tokenizer)
        self._metadata |= begun
        out.mkdir(parents=True, exist_ok=True)
        dtype = torch.bfloat16 if config.bf16 else torch.float32
        self.network = Network(spec, weights, compute_dtype=dtype).to(self.device)
        self.optimizer = Optimizer(
            self.network.named_parameters(),
            kind=config.optimizer,
            muon_lr_factor=config.muon_lr_factor,
            weight_decay=config.weight_decay,
            betas=(config.beta1, config.beta2),
            epsilon=config.epsilon,
        )
        if optimizer_state is not None:
            self.optimizer.load(optimizer_state, where=str(out))
        self._loss: Callable[..., Tensor] = self._plain_loss
        self._hidden: Callable[..., Tensor] = self._plain_hidden
        if config.windows:
            self._loss = self._sliced_loss
        if config.compile and config.windows:
            # How many rows are sliced changes from batch to batch; what is compiled must not.
            self._hidden = torch.compile(self._plain_hidden, dynamic=False)
        elif config.compile:
            self._loss = torch.compile(self._plain_loss, dynamic=False)
        self._course = Course(config, corpus=corpus, ranges=ranges)
        self._bad_steps = 0
        self._last_judged = -1
        self._saved_step = self.counters.step if resume else -1

    def _require_same(self, saved: Mapping[str, str]) -> None:
        """FileError unless the run went on the same ids: batches follow from them and from the counters alone."""
        fix = "continue with what it began with, or begin another run"
        for key in ("tokenizer", "corpus"):
            if saved.get(key, self._metadata[key]) != self._metadata[key]:
                raise FileError(f"the run learns from another {key}", where=str(self.out), fix=fix)

    def run(self, *, stopping: Callable[[], bool] = lambda: False, console: Console | None = None) -> bool:
        """Train to the end, or until `stopping()`; either way the last state is on disk. True at the end.

        Progress is shown on `console` where there is one. Raises TrainingError when the run has failed.
        """
        config = self.config
        log = _Log(self.out / "log.jsonl", resume_step=self.counters.step)
        keep_freed_memory()
        started = time.monotonic() - self.counters.elapsed_s
        finished = False
        with log, self._course, bar_on(console) as bar:
            if config.init_from and self.counters.step == 0:
                # What was there before is the first to beat.
                self._judge(log, bar)
            while True:
                elapsed_s = time.monotonic() - started
                done = progress(config, step=self.counters.step, tokens=self.counters.tokens, elapsed_s=elapsed_s)
                finished = done >= 1.0
                if finished or stopping():
                    break
                before = time.monotonic()
                loss, norm, lr, tokens = self.step(done)
                seconds = time.monotonic() - before
                self.counters = replace(self.counters, elapsed_s=time.monotonic() - started)
                log.write(
                    step=self.counters.step,
                    epoch=self.counters.epoch,
                    tokens=self.counters.tokens,
                    loss=loss,
                    norm=norm,
                    lr=lr,
                    tokens_per_s=tokens / seconds,
                    elapsed_s=self.counters.elapsed_s,
                )
                bar.show(done, f"step {self.counters.step}, loss {loss:.3f}, {tokens / seconds:,.0f} tokens/s")
                if self.counters.step % config.validate_every == 0:
                    self._judge(log, bar)
                if self.counters.step % config.checkpoint_every == 0:
                    self.save()
            if finished and self._last_judged != self.counters.step:
                self._judge(log, bar)
            self.save()
        return finished

    def step(self, done: float) -> tuple[float, float, float, int]:
        """One batch: loss in nats per token, gradient norm, learning rate, tokens learnt from.

        A batch whose loss or gradient is not finite changes no weight.
        """
        config = self.config
        batch = self.next_batch()
        lr = learning_rate(config, step=self.counters.step, progress=done)
        self.optimizer.zero_grad()
        arrays = (batch.tokens, batch.targets, batch.starts)
        loss = self._loss(*(torch.from_numpy(array).to(self.device) for array in arrays))
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip))
        value = float(loss.detach())
        if math.isfinite(value) and math.isfinite(norm):
            self.optimizer.step(lr=lr)
            self._bad_steps = 0
        else:
            self._pass_over(batch, value, norm)
        tokens = int((batch.targets != IGNORED).sum())
        self.counters = replace(self.counters, step=self.counters.step + 1, tokens=self.counters.tokens + tokens)
        return value, norm, lr, tokens

    def _pass_over(self, batch: Batch, loss: float, norm: float) -> None:
        """Keep a bad batch for whoever wants to know, and fail when there are too many in a row."""
        path = self.out / BAD_BATCH
        np.savez_compressed(
            path,
            tokens=batch.tokens, targets=batch.targets, starts=batch.starts,
            step=self.counters.step, loss=loss, norm=norm,
        )  # fmt: skip
        self._bad_steps += 1
        if self._bad_steps >= MAX_BAD_STEPS:
            raise TrainingError(
                f"loss or gradient was not finite {MAX_BAD_STEPS} times in a row, the last time at step "
                f"{self.counters.step} with loss {loss} and gradient norm {norm}",
                where=str(path),
                fix="that is the batch; resume from the last checkpoint with a lower lr",
            )

    def save(self) -> None:
        """Write the state as it is now, unless it is there already, and let go of old ones."""
        if self._saved_step == self.counters.step:
            return
        spec = self.network.spec
        tensors = {name: tensor.detach() for name, tensor in self.network.state_dict().items()}
        snapshots.save(
            self.out,
            self.counters,
            Checkpoint(spec=spec, tensors=tensors, metadata=self._metadata),
            self.optimizer.state_dict(),
            config=self.config.to_json(),
            tokenizer=self.tokenizer,
        )
        if self.counters.best_step == self.counters.step:
            snapshots.mark_best(self.out, step=self.counters.step, nats_per_note=self.counters.best_nats_per_note)
        snapshots.retain(self.out, keep=self.config.keep, best_step=self.counters.best_step)
        self._saved_step = self.counters.step

    def _judge(self, log: _Log, bar: Bar) -> None:
        if self.valid is None:
            return
        judgement = self._judgement(self.valid)
        self._last_judged = self.counters.step
        log.write(
            step=self.counters.step,
            valid_nats_per_note=judgement.nats_per_note,
            valid_nats_per_token=judgement.nats_per_token,
        )
        what = "windows" if self.config.windows else "pieces"
        bar.say(f"step {self.counters.step}: {judgement.nats_per_note:.4f} nats per note on the valid {what}")
        if judgement.nats_per_note < self.counters.best_nats_per_note:
            self.counters = replace(
                self.counters, best_step=self.counters.step, best_nats_per_note=judgement.nats_per_note
            )
            self._saved_step = -1
            self.save()

    def _judgement(self, valid: Corpus) -> Judgement:
        config = self.config
        if config.window_bars is None:
            return judge(
                self.network, valid, self.ranges, max_tokens=config.valid_tokens, max_pieces=config.valid_pieces
            )
        return judge_windows(
            self.network,
            valid,
            self.ranges,
            config.window_bars,
            context=config.context,
            max_tokens=config.valid_pieces * config.valid_tokens,
        )

    def _plain_loss(self, tokens: Tensor, targets: Tensor, starts: Tensor) -> Tensor:
        logits, _ = self.network(tokens, None, starts)
        return self._cross_entropy(logits.flatten(0, 1), targets.flatten())

    def _sliced_loss(self, tokens: Tensor, targets: Tensor, starts: Tensor) -> Tensor:
        """The same number, with only what is learnt going through the head: completions, where these are all."""
        wanted = targets != IGNORED
        hidden = rows_where(self._hidden(tokens, starts), wanted)
        return self._cross_entropy(self.network.logits_of(hidden), targets[wanted])

    def _plain_hidden(self, tokens: Tensor, starts: Tensor) -> Tensor:
        return self.network.hidden(tokens, None, starts)[0]

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits.float(), targets, ignore_index=IGNORED, label_smoothing=self.config.label_smoothing
        )

    def next_batch(self) -> Batch:
        """The next rows of the epoch, or of the one after it, as a batch; the counters move on."""
        batch, after = self._course.at(Place(self.counters.epoch, self.counters.row))
        self.counters = replace(self.counters, epoch=after.epoch, row=after.row)
        return batch


class _Log:
    """`log.jsonl`: a line per step or judgement; lines after the step resumed from are taken back.

    A number that is not finite is written as null, because JSON has no other word for it.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        kept = [line for line in _log_lines(path) if line["step"] <= resume_step] if resume_step else []
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(path)
        self._file = path.open("a", buffering=1)

    def write(self, **values: float) -> None:
        rounded = {key: _rounded(value) for key, value in values.items()}
        self._file.write(json.dumps(rounded, allow_nan=False) + "\n")

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _rounded(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _log_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            # The last line of a run that was killed while it wrote.
            return
