"""PianoMuseRWKV (S2-030 to S2-033): a checkpoint that learns completions, and completes contexts until they end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from model.small_models import random_weights
from torch import Tensor
from training.small_corpus import VOCABULARY, simple_corpus

from antiphon.errors import AntiphonError, FileError
from antiphon.model import checkpoint, rwkv7
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import quantize_int8
from antiphon.model.rwkv7 import State
from antiphon.model.spec import ModelSpec
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.vocabulary import BAR, BOS, EOS
from antiphon.training import pianomuse
from antiphon.training.copilot import CopilotDataset, collate_fn
from antiphon.training.pianomuse import PianoMuseRWKV

SPEC = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=VOCABULARY.size)
WEIGHTS = random_weights(SPEC)
CONTEXT = simple_corpus(pieces=1).piece(0)[:54].tolist()
METADATA = {"tokenizer": VOCABULARY.grid.to_json()}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    checkpoint.write(path, Checkpoint(spec=SPEC, tensors=WEIGHTS, metadata=METADATA))
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> PianoMuseRWKV:
    return PianoMuseRWKV(path, "cpu fp32")


def leaning(tmp_path: Path, **likelier: float) -> PianoMuseRWKV:
    """A model in which the ids named so have their logits raised, and none other comes."""
    weights = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    weights["head.weight"].zero_()
    weights["ln_out.weight"].zero_()
    weights["ln_out.bias"].fill_(1.0)
    weights["head.weight"] -= 1.0
    for name, logit in likelier.items():
        weights["head.weight"][VOCABULARY.ids[name]] = logit / SPEC.n_embd
    path = tmp_path / "leaning.safetensors"
    checkpoint.write(path, Checkpoint(spec=SPEC, tensors=weights, metadata=METADATA))
    return PianoMuseRWKV(path, "cpu fp32")


def test_logits_are_those_of_completion_positions_alone(model: PianoMuseRWKV) -> None:
    dataset = CopilotDataset([(CONTEXT[:20], CONTEXT[20:30]), (CONTEXT[:4], CONTEXT[4:50])])
    batch = collate_fn([dataset[0], dataset[1]])
    logits = model(batch["input_ids"], ctx_lengths=batch["ctx_lengths"], attention_mask=batch["attention_mask"])
    assert logits.shape == (10 + 46, SPEC.vocab_size)
    for row, first, rows in ((0, 19, logits[:10]), (1, 3, logits[10:])):
        exact, _ = rwkv7.sequence(WEIGHTS, dataset[row]["input_ids"])
        torch.testing.assert_close(rows, exact[first:], rtol=1e-3, atol=1e-4)
    assert torch.equal(model(batch["input_ids"], batch["ctx_lengths"]), logits), "zeros at a row's end are padding"
    assert model(batch["input_ids"]).shape == (2, 49, SPEC.vocab_size)


def test_it_learns(path: Path) -> None:
    model = PianoMuseRWKV(path, "cpu bf16")
    batch = collate_fn([CopilotDataset([(CONTEXT[:20], CONTEXT[20:])])[0]])
    targets = torch.tensor(CONTEXT[20:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = functional.cross_entropy(model(batch["input_ids"], batch["ctx_lengths"]), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_an_int8_model_is_taken_too(tmp_path: Path, model: PianoMuseRWKV) -> None:
    small = tmp_path / "int8.safetensors"
    checkpoint.write(small, quantize_int8(Checkpoint(spec=SPEC, tensors=WEIGHTS, metadata=METADATA)))
    ids = torch.tensor([CONTEXT])
    near, exact = PianoMuseRWKV(small, "cpu fp32")(ids), model(ids)
    assert 0 < float((near - exact).square().mean().sqrt() / exact.std()) < 0.05


def test_the_likeliest_completion_is_that_of_the_definition(model: PianoMuseRWKV) -> None:
    made = model.generate(CONTEXT, max_new_tokens=12, temperature=0.0)
    ids = [BOS, *CONTEXT]
    for token in made:
        logits, _ = rwkv7.sequence(WEIGHTS, torch.tensor(ids))
        assert token == int(logits[-1].argmax())
        ids.append(token)
    assert len(made) == 12
    assert model.generate([BOS, *CONTEXT], max_new_tokens=12, temperature=0.0) == made


def test_a_context_is_fed_in_chunks(model: PianoMuseRWKV, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.generate(CONTEXT, max_new_tokens=8, seed=1)
    fed: list[int] = []
    hidden = model.network.hidden
    monkeypatch.setattr(pianomuse, "PREFILL_TOKENS", 10)

    def watched(tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        fed.append(tokens.shape[1])
        return hidden(tokens, state)

    monkeypatch.setattr(model.network, "hidden", watched)
    assert model.generate(CONTEXT, max_new_tokens=8, seed=1) == whole
    assert fed == [10] * 5 + [5] + [1] * 8


def test_a_completion_follows_from_its_seed(model: PianoMuseRWKV) -> None:
    one, same, other = (model.generate(CONTEXT, max_new_tokens=20, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_cuts_leave_what_they_should(model: PianoMuseRWKV, tmp_path: Path) -> None:
    likeliest = model.generate(CONTEXT, max_new_tokens=10, temperature=0.0)
    assert model.generate(CONTEXT, max_new_tokens=10, temperature=2.0, top_k=1, seed=3) == likeliest
    assert model.generate(CONTEXT, max_new_tokens=10, temperature=2.0, top_p=0.0, seed=3) == likeliest
    # Two thirds, nearly one third, and a little: top_p 0.6 leaves the first that passes it, 0.8 the second, too.
    three = leaning(tmp_path, Pitch_60=20.0, Pitch_61=19.3, Pitch_62=14.0)

    def drawn(top_p: float, top_k: int = 0) -> set[str]:
        ids = three.generate(CONTEXT, max_new_tokens=30, temperature=1.0, top_p=top_p, top_k=top_k, seed=1)
        return set(map(VOCABULARY.name, ids))

    assert drawn(0.6) == {"Pitch_60"}
    assert drawn(0.8) == {"Pitch_60", "Pitch_61"}
    assert drawn(1.0, top_k=2) == {"Pitch_60", "Pitch_61"}


def test_it_stops_after_its_bars_and_at_the_end_of_the_piece(tmp_path: Path) -> None:
    bars = leaning(tmp_path, Bar_None=20.0, Pitch_60=20.0)
    for count in (1, 3):
        made = bars.generate(CONTEXT, max_new_tokens=500, temperature=1.0, bars=count, seed=2)
        assert made.count(BAR) == count
        assert len(made) < 100
    assert len(bars.generate(CONTEXT, max_new_tokens=50, temperature=1.0, seed=2)) == 50
    ends = leaning(tmp_path, EOS_None=20.0, Pitch_60=22.0)
    made = ends.generate(CONTEXT, max_new_tokens=500, temperature=1.0, top_p=1.0, seed=2)
    assert 0 < len(made) < 100
    assert EOS not in made


def test_a_model_of_other_ids_is_taken_for_pianomuses(tmp_path: Path) -> None:
    tokenizer = PianoTokenizer(preset="pianomuse")
    rows = tokenizer.get_vocab_size() + 3
    spec = ModelSpec.of_width(n_layer=1, n_embd=64, vocab_size=rows)
    weights = random_weights(spec)
    path = tmp_path / "pianomuse.safetensors"
    checkpoint.write(path, Checkpoint(spec=spec, tensors=weights))
    model = PianoMuseRWKV(path, "cpu fp32")
    context = [tokenizer.token_to_id(name) for name in ("Bar_0", "TimeSig_4/4")]
    made = model.generate(context, max_new_tokens=3, temperature=0.0)
    logits, _ = rwkv7.sequence(weights, torch.tensor(context))
    assert made[0] == int(logits[-1].argmax()), "no BOS before ids that are not ours"


def test_what_cannot_be_done_is_told(model: PianoMuseRWKV, path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        PianoMuseRWKV(tmp_path / "nowhere.safetensors", "cpu fp32")
    for strategy in ("cpu", "cpu fp16", "tpu bf16", ""):
        with pytest.raises(AntiphonError, match="is no strategy"):
            PianoMuseRWKV(path, strategy)
    if not torch.cuda.is_available():
        with pytest.raises(AntiphonError, match="needs a GPU"):
            PianoMuseRWKV(path, "cuda bf16")
        assert PianoMuseRWKV(path).device.type == "cpu"
    with pytest.raises(AntiphonError, match="ids from 0 to"):
        model.generate([VOCABULARY.size])
    with pytest.raises(AntiphonError, match="0 bars"):
        model.generate(CONTEXT, bars=0)
    with pytest.raises(AntiphonError, match="temperature"):
        model.generate(CONTEXT, temperature=-1.0)
