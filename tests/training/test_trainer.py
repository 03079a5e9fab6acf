"""A run learns, stops and goes on exactly, keeps what it should, and does not hide that it fails."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from training.small_corpus import RANGES, VOCABULARY, random_corpus, simple_corpus
from training.small_runs import TINY, after, log, optimizer, trainer, weights

from antiphon.errors import ConfigError, FileError
from antiphon.training import snapshots
from antiphon.training.batches import epoch_rows, make_batch
from antiphon.training.config import TrainingConfig
from antiphon.training.corpus import pack_pieces
from antiphon.training.plot import plot_losses
from antiphon.training.schedule import learning_rate, progress
from antiphon.training.trainer import BAD_BATCH, MAX_BAD_STEPS, TrainingError
from antiphon.training.validation import judge


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("stops", [(10,), (1, 7, 4)])
def test_a_run_that_was_stopped_goes_on_to_the_very_same_weights(
    tmp_path: Path, bf16: bool, stops: tuple[int, ...]
) -> None:
    config = replace(TINY, bf16=bf16)
    assert trainer(tmp_path / "whole", config).run()
    for number, steps in enumerate(stops):
        assert not trainer(tmp_path / "parts", config, resume=number > 0).run(stopping=after(steps))
    assert snapshots.newest_folder(tmp_path / "parts").name == f"step-{sum(stops):07d}"
    assert trainer(tmp_path / "parts", config, resume=True).run()
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    assert optimizer(tmp_path / "whole") == optimizer(tmp_path / "parts")
    times = ("tokens_per_s", "elapsed_s")
    for one, other in zip(log(tmp_path / "whole"), log(tmp_path / "parts"), strict=True):
        assert {k: v for k, v in one.items() if k not in times} == {k: v for k, v in other.items() if k not in times}


def test_the_weights_follow_from_the_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        trainer(tmp_path / name, replace(TINY, steps=3, seed=seed)).run()
    one, same, other = (weights(tmp_path / name)["head.weight"] for name in ("one", "same", "other"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_run_goes_through_epoch_after_epoch(tmp_path: Path) -> None:
    trainer(tmp_path, corpus=random_corpus(pieces=3, bars=(2, 6))).run()
    epochs = [line["epoch"] for line in log(tmp_path)]
    assert epochs == sorted(epochs)
    assert epochs[-1] > 2


def test_an_epoch_is_its_rows_in_their_order_and_the_next_follows(tmp_path: Path) -> None:
    corpus = random_corpus(pieces=5)
    config = replace(TINY, augment=False)
    made = trainer(tmp_path, config, corpus=corpus)
    first, second = (epoch_rows(corpus, RANGES, context=64, seed=config.seed, epoch=epoch) for epoch in (0, 1))
    rows = [*first, *second]
    seeds: list[tuple[int, ...]] = [(0,)] * len(rows)
    expected = make_batch(rows, corpus, RANGES, context=64, augmentation=None, seeds=seeds).tokens
    found = np.concatenate([made.next_batch().tokens for _ in range(len(rows) // 2)])
    assert len(first) > 10
    np.testing.assert_array_equal(found, expected[: len(found)])


def test_equal_pieces_are_told_differently_from_row_to_row_and_from_epoch_to_epoch(tmp_path: Path) -> None:
    scale = simple_corpus(pieces=1).piece(0)[: 4 * 18].tolist()  # three bars and a little
    corpus = pack_pieces([scale] * 8, [f"the same {number}" for number in range(8)])
    config = replace(TINY, context=128, batch_tokens=128, velocity_bins=0, cut_samples=0.0)
    made = trainer(tmp_path, config, corpus=corpus)
    rows = len(epoch_rows(corpus, RANGES, context=128, seed=config.seed, epoch=0))
    told = [tuple(made.next_batch().tokens[0, :16].tolist()) for _ in range(2 * rows)]
    assert len(set(told[:rows])) > 2
    assert told[:rows] != told[rows:]


def test_what_was_learnt_after_the_last_checkpoint_is_taken_back_from_the_log(tmp_path: Path) -> None:
    trainer(tmp_path).run(stopping=after(6))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 99.0}\n{"step": 8, "los')
    trainer(tmp_path, resume=True).run(stopping=after(3))
    assert [line["step"] for line in log(tmp_path)] == list(range(1, 10))
    assert max(line["loss"] for line in log(tmp_path)) < 99


def test_the_last_few_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    config = replace(TINY, steps=12, checkpoint_every=2, validate_every=4, keep=2)
    made = trainer(tmp_path, config, valid=random_corpus(pieces=2))
    (tmp_path / ".step-0000001.99.part").mkdir()  # a crash left it
    made.run()
    judged = {line["step"]: line["valid_nats_per_note"] for line in log(tmp_path) if "valid_nats_per_note" in line}
    assert sorted(judged) == [4, 8, 12]
    best = min(judged, key=lambda step: judged[step])
    folders = {path.name for path in tmp_path.iterdir() if "step-" in path.name}
    assert folders == {f"step-{step:07d}" for step in (10, 12, best)}
    assert json.loads((tmp_path / "best.json").read_text())["step"] == best
    assert snapshots.best_folder(tmp_path).name == f"step-{best:07d}"


def test_a_best_that_is_old_is_kept(tmp_path: Path) -> None:
    made = trainer(
        tmp_path, replace(TINY, checkpoint_every=2, validate_every=2, lr=1e-9), valid=random_corpus(pieces=1)
    )
    made.run(stopping=after(2))
    # Nothing that follows can be better.
    made.counters = replace(made.counters, best_nats_per_note=0.0)
    made.run()
    assert snapshots.best_folder(tmp_path).name == "step-0000002"
    assert {path.name for path in tmp_path.glob("step-*")} == {f"step-{step:07d}" for step in (2, 18, 20)}


def test_a_new_best_found_at_a_resume_without_steps_is_kept(tmp_path: Path) -> None:
    valid = random_corpus(pieces=1)
    trainer(tmp_path, valid=valid).run(stopping=after(5))
    assert not (tmp_path / "best.json").exists()
    assert trainer(tmp_path, replace(TINY, steps=5), valid=valid, resume=True).run()
    assert snapshots.best_folder(tmp_path).name == "step-0000005"
    assert (tmp_path / "best.json").exists()


def test_the_loss_falls_on_a_tiny_corpus(tmp_path: Path) -> None:
    config = replace(TINY, steps=60, lr=8e-3, bf16=False, augment=False, batch_tokens=256)
    corpus = simple_corpus()
    made = trainer(tmp_path, config, corpus=corpus)
    before = judge(made.network, corpus, RANGES)
    made.run()
    after_it = judge(made.network, corpus, RANGES)
    assert before.nats_per_token == pytest.approx(math.log(VOCABULARY.size), rel=0.05)
    assert after_it.nats_per_token < 0.25 * before.nats_per_token
    losses = [line["loss"] for line in log(tmp_path)]
    assert losses[0] > 5.5
    assert losses[-1] < 1.5


def test_with_every_variation_it_learns_too(tmp_path: Path) -> None:
    trainer(tmp_path, replace(TINY, steps=40, lr=8e-3, batch_tokens=256), corpus=simple_corpus()).run()
    losses = [line["loss"] for line in log(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]


def test_nothing_is_learnt_from_a_batch_whose_loss_is_not_finite_and_it_is_kept(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.run(stopping=after(2))
    good = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    with torch.no_grad():
        made.network.head.weight[5, 5] = torch.nan
    loss, *_ = made.step(0.1)
    assert math.isnan(loss)
    assert made.counters.step == 3
    with torch.no_grad():
        made.network.head.weight[5, 5] = good["head.weight"][5, 5]
    assert all(torch.equal(tensor, good[name]) for name, tensor in made.network.state_dict().items())
    with np.load(tmp_path / BAD_BATCH) as kept:
        assert kept["tokens"].shape == (2, 64)
        assert math.isnan(kept["loss"])
        assert kept["step"] == 2


def test_a_good_batch_between_bad_ones_lets_the_run_live(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    for _ in range(MAX_BAD_STEPS):
        good = made.network.head.weight[5, 5].item()
        with torch.no_grad():
            made.network.head.weight[5, 5] = torch.nan
        assert math.isnan(made.step(0.1)[0])
        with torch.no_grad():
            made.network.head.weight[5, 5] = good
        assert math.isfinite(made.step(0.1)[0])


def test_a_run_whose_loss_stays_bad_fails_with_a_clear_word_and_keeps_the_good_state(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.run(stopping=after(2))
    with torch.no_grad():
        made.network.head.weight[5, 5] = torch.inf
    with pytest.raises(TrainingError, match=f"not finite {MAX_BAD_STEPS} times in a row") as failure:
        made.run()
    assert failure.value.where == str(tmp_path / BAD_BATCH)
    assert "lower lr" in failure.value.fix
    assert snapshots.newest_folder(tmp_path).name == "step-0000002"
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())
    assert [line["step"] for line in log(tmp_path)] == list(range(1, 2 + MAX_BAD_STEPS))
    assert log(tmp_path)[-1]["loss"] is None


def test_the_loss_is_drawn(tmp_path: Path) -> None:
    trainer(tmp_path, replace(TINY, steps=4, validate_every=2), valid=random_corpus(pieces=1)).run()
    plot_losses(tmp_path / "log.jsonl", tmp_path / "loss.png")
    picture = (tmp_path / "loss.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    (tmp_path / "empty.jsonl").write_text("")
    plot_losses(tmp_path / "empty.jsonl", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_progress_is_shown_where_it_is_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = replace(TINY, steps=3, validate_every=2)
    trainer(tmp_path / "quiet", config, valid=random_corpus(pieces=1)).run()
    assert capfd.readouterr() == ("", "")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    trainer(tmp_path / "shown", config, valid=random_corpus(pieces=1)).run(console=console)
    for word in ("step 3, loss", "tokens/s", "step 2: ", "nats per note", "━"):
        assert word in screen.getvalue()


def test_a_run_is_not_begun_over_another_nor_resumed_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no training checkpoint"):
        trainer(tmp_path, resume=True)
    trainer(tmp_path).run(stopping=after(1))
    with pytest.raises(FileError, match="a run is already here"):
        trainer(tmp_path)


def test_a_run_goes_on_only_with_what_it_began_with(tmp_path: Path) -> None:
    trainer(tmp_path).run(stopping=after(1))
    with pytest.raises(FileError, match="another corpus"):
        trainer(tmp_path, corpus=random_corpus(seed=1), resume=True)
    with pytest.raises(FileError, match="another model"):
        trainer(tmp_path, replace(TINY, layers=3), resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run(stopping=after(1))
    state = snapshots.newest_folder(tmp_path) / "training.pt"
    whole = state.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\x80\x04."):
        state.write_bytes(content)
        with pytest.raises(FileError, match="not the state of a training run"):
            trainer(tmp_path, resume=True)


def test_the_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run(stopping=after(1))
    path = snapshots.newest_folder(tmp_path) / "training.pt"
    saved = torch.load(path, weights_only=True)
    moments = saved["optimizer"]["adamw"]["state"]
    moments[0], moments[2] = moments[2], moments[0]
    torch.save(saved, path)
    with pytest.raises(FileError, match="of other weights"):
        trainer(tmp_path, resume=True)


def test_a_run_without_a_judgement_gives_its_newest(tmp_path: Path) -> None:
    trainer(tmp_path, replace(TINY, steps=2)).run()
    assert snapshots.best_folder(tmp_path).name == "step-0000002"
    (tmp_path / "best.json").write_text('{"step": ')
    assert snapshots.best_folder(tmp_path).name == "step-0000002"


def test_every_unknown_knob_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown keys: batchsize, learning_rate") as refusal:
        TrainingConfig.of({"learning_rate": 1, "steps": 3, "batchsize": 2}, where="run.yaml")
    assert refusal.value.where == "run.yaml"
    assert "batch_tokens" in refusal.value.fix


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"lr": "2e-3", "layers": 2.0, "bf16": 1}, ["lr must be", "layers must be", "bf16 must be"]),
        ({"lr": math.nan, "minutes": math.inf}, ["lr must be finite", "minutes must be finite"]),
        ({"steps": 0}, ["one of steps, tokens and minutes"]),
        ({"context": 100, "width": 100, "keep": 0}, ["context must", "width must", "keep must"]),
        ({"batch_tokens": 1000, "cut_bars": 2}, ["batch_tokens must", "cut_bars"]),
        ({"transpose_low": 3, "velocity_bins": -1, "seed": -1}, ["transpose_low", "velocity_bins", "seed"]),
        ({"steps": True}, ["steps must be of type int"]),
        ({"device": "cuda:x"}, ["device must be cpu"]),
    ],
)
def test_every_wrong_knob_is_told_at_once(knobs: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        TrainingConfig.of({"steps": 1, **knobs})
    assert [word for word in words if word not in str(refusal.value)] == []


def test_knobs_survive_a_checkpoint() -> None:
    assert TrainingConfig.of(json.loads(TINY.to_json())) == TINY
    assert TrainingConfig.of({"steps": 1, "minutes": 2}).minutes == 2.0


def test_the_learning_rate_rises_then_falls_to_its_share() -> None:
    config = replace(TINY, steps=100, warmup_steps=10, lr=1.0, lr_final_share=0.1)
    rates = [learning_rate(config, step=step, progress=step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 9
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.1)
    assert learning_rate(config, step=500, progress=5.0) == pytest.approx(0.1)


def test_a_run_ends_with_whichever_limit_comes_first() -> None:
    config = replace(TINY, steps=100, tokens=1000, minutes=1.0)
    assert progress(config, step=50, tokens=10, elapsed_s=0) == 0.5
    assert progress(config, step=50, tokens=900, elapsed_s=0) == 0.9
    assert progress(config, step=50, tokens=900, elapsed_s=60) == 1.0
