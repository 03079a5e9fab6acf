"""Pairs as a model learns them (S2-020 to S2-023): shifted, shortened with sense, padded without leaking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model.small_models import SMALL, random_weights
from training.small_corpus import VOCABULARY, random_bars

from antiphon.errors import AntiphonError, FileError
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.vocabulary import BAR, BOS
from antiphon.tokens.windows import Pair, create_context_completion_pairs
from antiphon.training.copilot import MAX_LINE_BYTES, CopilotDataset, collate_fn, loader, read_pairs
from antiphon.training.network import Network
from antiphon.training.slicing import physical_slicing

ANTIPHON = PianoTokenizer(preset="antiphon")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    ids = encode(random_bars(np.random.default_rng(1), bars=24), VOCABULARY)
    return create_context_completion_pairs(ids, ANTIPHON, 4, 2)


def test_an_item_is_a_pair_less_its_last_id_and_less_its_first(pairs: list[Pair]) -> None:
    dataset = CopilotDataset(pairs)
    assert len(dataset) == len(pairs) == 19
    for index, (context, completion) in enumerate(pairs):
        item = dataset[index]
        whole = [*context, *completion]
        assert item["input_ids"].tolist() == whole[:-1]
        assert item["target_ids"].tolist() == whole[1:]
        assert item["ctx_len"] == len(context)
        assert item["input_ids"].dtype == torch.long


@pytest.mark.parametrize("longest", [90, 60])
def test_a_pair_that_is_too_long_loses_bars_of_its_context_and_is_told_its_tempo(
    pairs: list[Pair], longest: int
) -> None:
    dataset = CopilotDataset(pairs, longest, ANTIPHON)
    shortened = 0
    for index, (context, completion) in enumerate(pairs):
        item = dataset[index]
        kept = item["ctx_len"]
        ids = [*item["input_ids"][:1].tolist(), *item["target_ids"].tolist()]
        assert len(ids) <= longest
        assert ids[kept:] == completion[: len(ids) - kept]
        assert len(ids) - kept == min(len(completion), longest - min(len(context), longest // 4))
        if ids[:kept] == context or ids[0] != BAR:
            continue
        shortened += 1
        bars = decode(context, VOCABULARY)
        told = decode(ids[:kept], VOCABULARY)
        # A context that is cut reads as if the piece began there: last bars, first of them with its tempo.
        assert told == bars[-len(told) :]
        assert ids[:kept] == encode(bars[-len(told) :], VOCABULARY)
    assert shortened > 3


def test_a_context_keeps_a_quarter_of_a_sequence_however_long_its_completion_is() -> None:
    dataset = CopilotDataset([(list(range(1, 501)), [600] * 5000)], 400)
    item = dataset[0]
    assert item["ctx_len"] == 100
    assert item["input_ids"][:100].tolist() == list(range(401, 501))
    assert len(item["input_ids"]) == 399
    short = CopilotDataset([([1, 2, 3], [600] * 5000)], 400)[0]
    assert short["ctx_len"] == 3
    assert len(short["input_ids"]) == 399


def test_a_bar_longer_than_the_room_for_it_is_entered_at_a_structural_id() -> None:
    note = [VOCABULARY.pitch_id(60), VOCABULARY.velocities.first, VOCABULARY.durations.first]
    tempo, meter = VOCABULARY.tempos.first, VOCABULARY.meters.first
    onsets = [[VOCABULARY.position_id(step), *note] for step in range(40)]
    context = [BAR, meter, VOCABULARY.position_id(0), tempo, *(id for onset in onsets for id in onset)]
    item = CopilotDataset([(context, [BAR, meter])], 33, ANTIPHON)[0]
    kept = item["input_ids"][: item["ctx_len"]].tolist()
    assert kept[:2] == [tempo, meter]
    assert kept[2:] == [id for onset in onsets[-7:] for id in onset]


def test_a_bos_stays_in_front(pairs: list[Pair]) -> None:
    context, completion = pairs[3]
    kept = CopilotDataset([([BOS, *context], completion)], 90, ANTIPHON)[0]["input_ids"].tolist()
    assert kept[0] == BOS
    assert len(kept) < len(context) + len(completion)


def test_without_a_tokenizer_the_context_keeps_its_last_ids() -> None:
    item = CopilotDataset([(list(range(100)), [5] * 10)], 40)[0]
    assert item["input_ids"][: item["ctx_len"]].tolist() == list(range(70, 100))


def test_an_empty_half_is_refused() -> None:
    with pytest.raises(AntiphonError, match="pair 1 has no completion"):
        CopilotDataset([([1], [1]), ([1], [])])
    with pytest.raises(AntiphonError, match="pair 0 has no context"):
        CopilotDataset([([], [1])])
    with pytest.raises(AntiphonError, match="no sequence"):
        CopilotDataset([([1], [1])], 2)


def test_rows_are_padded_on_the_right_with_zeros() -> None:
    dataset = CopilotDataset([([1, 2, 3], [4, 5]), ([6], [7, 8, 9, 10, 11]), ([12], [13])])
    batch = collate_fn([dataset[index] for index in range(3)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 0], [6, 7, 8, 9, 10], [12, 0, 0, 0, 0]]
    assert batch["target_ids"].tolist() == [[2, 3, 4, 5, 0], [7, 8, 9, 10, 11], [13, 0, 0, 0, 0]]
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 5, 1]
    assert torch.equal(batch["attention_mask"], batch["input_ids"] != 0)
    assert batch["ctx_lengths"].tolist() == [3, 1, 1]


def test_exactly_the_completions_are_learnt_whatever_they_are_batched_with() -> None:
    chance = np.random.default_rng(0)
    pairs = [
        (chance.integers(1, 29, int(chance.integers(1, 20))).tolist(), chance.integers(1, 29, int(n)).tolist())
        for n in chance.integers(1, 20, 6)
    ]
    dataset = CopilotDataset(pairs)
    batch = collate_fn([dataset[index] for index in range(6)])
    rows = physical_slicing(batch["target_ids"].unsqueeze(-1), batch["ctx_lengths"], batch["attention_mask"])
    assert rows.flatten().tolist() == [id for _, completion in pairs for id in completion]
    network = Network(SMALL, random_weights())
    hidden, _ = network.hidden(batch["input_ids"])
    together = physical_slicing(hidden, batch["ctx_lengths"], batch["attention_mask"])
    alone = [network.hidden(dataset[i]["input_ids"][None])[0][0, dataset[i]["ctx_len"] - 1 :] for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_batches_come_in_an_order_that_follows_from_the_seed() -> None:
    dataset = CopilotDataset([([number], [99]) for number in range(1, 21)])

    def order(seed: int, *, workers: int = 0) -> list[int]:
        made = loader(dataset, batch_size=4, seed=seed, workers=workers)
        return [int(row[0]) for batch in made for row in batch["input_ids"]]

    assert sorted(order(1)) == list(range(1, 21))
    assert order(1) == order(1) == order(1, workers=1)
    assert order(1) != order(2)


def test_pairs_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"context": [3, 204], "completion": [3]}\n{"completion": [2], "context": [1], "song": "x"}\n')
    assert read_pairs(path) == [([3, 204], [3]), ([1], [2])]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1, 2]", "not a pair"),
        ('{"context": [1]}', "not a pair"),
        ('{"context": [1], "compl', "not a pair"),
        ("[" * 100_000, "not a pair"),
        ('{"context": [1.5], "completion": [1]}', "lists of ids"),
        ('{"context": [true], "completion": [1]}', "lists of ids"),
        ('{"context": "12", "completion": [1]}', "lists of ids"),
        ('{"context": [-1], "completion": [1]}', "lists of ids"),
        ('{"context": [99999999999], "completion": [1]}', "lists of ids"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"context": [1], "completion": [1]}\n' + line + "\n")
    with pytest.raises(FileError, match=words) as refusal:
        read_pairs(path)
    assert refusal.value.where == f"{path}:2"


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"context": [' + "1," * (MAX_LINE_BYTES // 2) + '1], "completion": [1]}\n')
    with pytest.raises(FileError, match="a line of more than"):
        read_pairs(path)
    with pytest.raises(FileError, match="No such file"):
        read_pairs(tmp_path / "nowhere.jsonl")
