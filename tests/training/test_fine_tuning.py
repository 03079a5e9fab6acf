"""Fine-tuning on windows (S2-070): from another run's weights, learning from completions alone, stopped, continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training.small_corpus import RANGES, VOCABULARY, random_corpus, simple_corpus
from training.small_runs import TINY, after, log, optimizer, trainer, weights

from antiphon.errors import ConfigError, FileError
from antiphon.model import checkpoint
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import quantize_int8
from antiphon.training import snapshots
from antiphon.training.batches import IGNORED
from antiphon.training.config import TrainingConfig
from antiphon.training.network import Network
from antiphon.training.trainer import TrainingError
from antiphon.training.validation import judge_windows
from antiphon.training.windows import window_rows

WINDOWS = replace(TINY, windows=True, context=128, context_bars_high=4, completion_bars_high=2)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on whole pieces."""
    out = tmp_path_factory.mktemp("runs") / "parent"
    trainer(out, replace(TINY, steps=2)).run()
    return out


def test_a_run_on_windows_that_was_stopped_goes_on_to_the_very_same_weights(tmp_path: Path, parent: Path) -> None:
    config = replace(WINDOWS, init_from=str(parent), steps=12)
    assert trainer(tmp_path / "whole", config).run()
    assert not trainer(tmp_path / "parts", config).run(stopping=after(5))
    assert trainer(tmp_path / "parts", config, resume=True).run()
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    assert optimizer(tmp_path / "whole") == optimizer(tmp_path / "parts")
    metadata = [
        checkpoint.read(snapshots.newest_folder(tmp_path / name) / "model.safetensors").metadata
        for name in ("whole", "parts")
    ]
    assert metadata[0] == metadata[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_computing_all_then_selecting(tmp_path: Path, smoothing: float) -> None:
    config = replace(WINDOWS, bf16=False, label_smoothing=smoothing)
    made = trainer(tmp_path, config)
    batch = made.next_batch()
    tokens, targets, starts = map(torch.from_numpy, (batch.tokens, batch.targets, batch.starts))
    outcome: list[tuple[Tensor, list[Tensor]]] = []
    for loss in (made._sliced_loss, made._plain_loss):
        value = loss(tokens, targets, starts)
        outcome.append((value, list(torch.autograd.grad(value, list(made.network.parameters())))))
    (sliced, gradients), (everything, all_gradients) = outcome
    assert 0 < int((targets != IGNORED).sum()) < 0.7 * targets.numel()
    torch.testing.assert_close(sliced, everything, rtol=1e-6, atol=0)
    for one, other in zip(gradients, all_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max() + 1e-6))


def test_tokens_learnt_from_are_counted(tmp_path: Path) -> None:
    made = trainer(tmp_path, replace(WINDOWS, steps=3))
    made.run()
    again = trainer(tmp_path / "again", WINDOWS)
    assert made.counters.tokens == sum(int((again.next_batch().targets != IGNORED).sum()) for _ in range(3))


def test_it_learns_completions(tmp_path: Path) -> None:
    corpus = simple_corpus()
    config = replace(WINDOWS, steps=40, lr=8e-3, bf16=False, augment=False, batch_tokens=512)
    made = trainer(tmp_path, config, corpus=corpus, valid=corpus)
    made.run()
    losses = [line["loss"] for line in log(tmp_path) if "loss" in line]
    assert losses[0] > 5.5
    assert losses[-1] < 2.0


def test_it_begins_with_the_weights_of_the_best_of_a_run_of_a_step_or_of_a_file(tmp_path: Path, parent: Path) -> None:
    folder = snapshots.newest_folder(parent)
    for number, place in enumerate((parent, folder, folder / "model.safetensors")):
        made = trainer(tmp_path / str(number), replace(WINDOWS, init_from=str(place)))
        for name, tensor in weights(parent).items():
            assert torch.equal(made.network.state_dict()[name], tensor), name
        assert all(not part["state"] for part in made.optimizer.state_dict().values())
    (parent / "best.json").write_text(json.dumps({"step": 2, "nats_per_note": 1.0}))


def test_it_begins_with_an_int8_model_too(tmp_path: Path, parent: Path) -> None:
    model = checkpoint.read(snapshots.newest_folder(parent) / "model.safetensors")
    small = quantize_int8(Checkpoint(spec=model.spec, tensors=model.tensors, metadata=model.metadata))
    checkpoint.write(tmp_path / "small.safetensors", small)
    made = trainer(tmp_path / "run", replace(WINDOWS, init_from=str(tmp_path / "small.safetensors")))
    state = made.network.state_dict()
    for name, tensor in model.tensors.items():
        spread = float(tensor.abs().amax())
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=spread / 200)


def test_the_checkpoint_tells_where_it_comes_from(tmp_path: Path, parent: Path) -> None:
    trainer(tmp_path, replace(WINDOWS, init_from=str(parent), steps=1)).run()
    metadata = checkpoint.read(snapshots.newest_folder(tmp_path) / "model.safetensors").metadata
    story = json.loads(metadata["begun_from"])
    assert story["sha256"] == checkpoint.sha256(snapshots.newest_folder(parent) / "model.safetensors")
    assert json.loads(story["training"])["steps"] == 2
    told = json.loads(metadata["training"])
    assert told["windows"]
    assert told["init_from"] == "parent", "no path of this machine"


def test_what_was_there_before_is_the_first_to_beat(tmp_path: Path, parent: Path) -> None:
    valid = random_corpus(pieces=3, seed=5)
    config = replace(WINDOWS, init_from=str(parent), steps=3, lr=1e-9, validate_every=1)
    trainer(tmp_path, config, valid=valid).run()
    judged = {line["step"]: line["valid_nats_per_note"] for line in log(tmp_path) if "valid_nats_per_note" in line}
    assert sorted(judged) == [0, 1, 2, 3]
    network = Network(
        checkpoint.read(parent / "step-0000002" / "model.safetensors").spec,
        weights(parent),
        compute_dtype=torch.bfloat16,
    )
    bars = config.window_bars
    assert bars is not None
    expected = judge_windows(network, valid, RANGES, bars, context=128, max_tokens=2 * 64)
    assert judged[0] == pytest.approx(expected.nats_per_note, rel=1e-5)


def test_a_judgement_of_windows_is_of_their_completions(parent: Path) -> None:
    corpus = random_corpus(pieces=4, seed=7)
    bars = WINDOWS.window_bars
    assert bars is not None
    network = Network(checkpoint.read(parent / "step-0000002" / "model.safetensors").spec, weights(parent))
    judgement = judge_windows(network, corpus, RANGES, bars, context=128)
    rows = window_rows(corpus, RANGES, context=128, bars=bars, seed=0, epoch=0)
    nats, notes, tokens = 0.0, 0, 0
    with torch.inference_mode():
        for sample in (sample for row in rows for sample in row):
            from antiphon.training.batches import sample_ids

            ids = torch.from_numpy(sample_ids(corpus, RANGES, sample)).long()
            learnt = sample.end - (sample.learn_from or 0) + int(ids[-1] == RANGES.eos)
            logp = network(ids[None, :-1])[0][0].log_softmax(-1)
            wanted = ids[-learnt:]
            nats -= float(logp[-learnt:].gather(1, wanted[:, None]).sum())
            tokens += learnt
            notes += sum(int(id) in VOCABULARY.pitches for id in wanted)
    assert (judgement.tokens, judgement.notes) == (tokens, notes)
    assert judgement.nats == pytest.approx(nats, rel=1e-5)
    assert judgement.pieces == 4


def test_a_checkpoint_of_another_size_or_tokenizer_is_refused(tmp_path: Path, parent: Path) -> None:
    with pytest.raises(FileError, match="another model: 2 layers of 64") as refusal:
        trainer(tmp_path / "deep", replace(WINDOWS, init_from=str(parent), layers=3))
    assert "set layers and width" in refusal.value.fix
    model = checkpoint.read(snapshots.newest_folder(parent) / "model.safetensors")
    other = Checkpoint(spec=model.spec, tensors=model.tensors, metadata={"tokenizer": "of somebody else"})
    checkpoint.write(tmp_path / "other.safetensors", other)
    with pytest.raises(FileError, match="another tokenizer"):
        trainer(tmp_path / "words", replace(WINDOWS, init_from=str(tmp_path / "other.safetensors")))
    with pytest.raises(FileError, match="there is no such file"):
        trainer(tmp_path / "none", replace(WINDOWS, init_from=str(tmp_path / "nowhere")))


def test_gradients_are_clipped_to_a_norm_of_one(tmp_path: Path) -> None:
    made = trainer(tmp_path, replace(WINDOWS, clip=1.0))
    with torch.no_grad():
        made.network.head.weight.mul_(50.0)
    _, norm, *_ = made.step(0.1)
    gradients = [parameter.grad for parameter in made.network.parameters() if parameter.grad is not None]
    assert norm > 2.0
    assert float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()) <= 1.0001


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="CUDA finds no GPU"):
        trainer(tmp_path, replace(WINDOWS, device="cuda"))


def test_windows_of_no_bars_are_refused() -> None:
    for knobs in ({"context_bars_low": 0}, {"completion_bars_low": 9}, {"label_smoothing": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(knobs))):
            TrainingConfig.of({"steps": 1, **knobs})
