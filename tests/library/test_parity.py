"""Two engines' answers are kept and compared as candle_rwkv7's tools did (S4-020, S4-021, S4-030, S4-031)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from antiphon.errors import FileError
from antiphon.library import parity
from antiphon.library.parity import Outcome, compare, folders_of, limit_of, read_outcome, write_outcome

Floats = npt.NDArray[np.float32]
RNG = np.random.default_rng(1)
LOGITS = RNG.standard_normal(77).astype(np.float32) * 3


def outcome(logits: Floats = LOGITS, precision: str = "fp32", **told: Any) -> Outcome:
    return Outcome.of(logits, tokens=(1, 2, 3), precision=precision, told=told)


def test_the_three_files_say_the_same(tmp_path: Path) -> None:
    given = outcome(tokens_per_sec=12.5, context="1 2 3")
    write_outcome(tmp_path / "new" / "here", given)
    here = tmp_path / "new" / "here"
    assert sorted(path.name for path in here.iterdir()) == [
        "final_logits.bin", "final_logits.json", "final_probs.bin",
    ]  # fmt: skip
    assert (here / "final_logits.bin").read_bytes() == LOGITS.astype("<f4").tobytes()
    probs = np.frombuffer((here / "final_probs.bin").read_bytes(), "<f4")
    wide = LOGITS.astype(np.float64)
    np.testing.assert_array_equal(probs, (np.exp(wide - wide.max()) / np.exp(wide - wide.max()).sum()).astype("<f4"))
    told = json.loads((here / "final_logits.json").read_text())
    np.testing.assert_array_equal(np.float32(told["logits"]), LOGITS)
    np.testing.assert_array_equal(np.float32(told["probs"]), probs)
    assert (told["tokens"], told["num_tokens"], told["vocab_size"]) == ([1, 2, 3], 3, 77)
    assert (told["tokens_per_sec"], told["context"], told["precision"]) == (12.5, "1 2 3", "fp32")
    found = read_outcome(here)
    assert np.array_equal(found.logits, given.logits)
    assert np.array_equal(found.probs, given.probs)
    assert (found.tokens, found.precision, found.tokens_per_s) == ((1, 2, 3), "fp32", 12.5)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_logits_that_are_none_are_refused(wrong: float) -> None:
    logits = LOGITS.copy()
    logits[5] = wrong
    with pytest.raises(ValueError, match="NaN or an infinity"):
        outcome(logits)


def test_every_figure_is_what_its_name_says() -> None:
    other = LOGITS + RNG.standard_normal(77).astype(np.float32) * np.float32(0.2)
    a, b = outcome(tokens_per_sec=10.0), outcome(other, tokens_per_sec=30.0)
    found = compare(a, b)
    p, q = a.probs.astype(np.float64), b.probs.astype(np.float64)
    x, y = LOGITS.astype(np.float64), other.astype(np.float64)
    assert found.linf == pytest.approx(max(abs(p - q)))
    assert found.l1 == pytest.approx(sum(abs(p - q)))
    assert found.l2 == pytest.approx(np.linalg.norm(p - q))
    assert found.mse == pytest.approx(np.mean((x - y) ** 2))
    assert found.mae == pytest.approx(np.mean(abs(x - y)))
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.kl_ab == pytest.approx(sum(p * np.log(p / q)), rel=1e-6)
    assert found.kl_ba == pytest.approx(sum(q * np.log(q / p)), rel=1e-6)
    assert found.deviation == pytest.approx(max(abs(x - y)) / np.std(x))
    assert found.top_a == tuple(np.argsort(-x)[:5])
    assert found.top_b == tuple(np.argsort(-y)[:5])
    assert found.same_top == (np.argmax(x) == np.argmax(y))
    assert found.top_overlap == len(set(found.top_a) & set(found.top_b))
    assert (found.speed_a, found.speed_b) == (10.0, 30.0)


def test_an_answer_agrees_with_itself() -> None:
    found = compare(outcome(), outcome())
    assert (found.linf, found.l1, found.mse, found.deviation, found.kl_ab) == (0, 0, 0, 0, 0)
    assert found.correlation == pytest.approx(1)
    assert found.same_top
    assert found.top_overlap == 5


def test_one_logit_among_many_is_not_averaged_away() -> None:
    """A sum over all would pass an engine that is wrong in one place."""
    logits = np.tile(LOGITS, 800)
    other = logits.copy()
    other[4321] += 1e-4 * float(logits.std())
    assert compare(outcome(logits), outcome(other)).deviation == pytest.approx(1e-4, rel=1e-2)


def test_answers_to_different_questions_are_not_compared() -> None:
    with pytest.raises(ValueError, match="vocabularies of 77 and 76"):
        compare(outcome(), outcome(LOGITS[:76]))
    with pytest.raises(ValueError, match="different ids"):
        compare(outcome(), Outcome.of(LOGITS, tokens=(1, 2, 4), precision="fp32", told={}))


def test_the_limit_is_that_of_the_coarser() -> None:
    assert limit_of(outcome(), outcome()) == 1e-5
    assert limit_of(outcome(), outcome(precision="int8")) == parity.LIMITS["int8"] > 1e-5
    assert limit_of(outcome(precision="int4"), outcome(precision="int8")) == parity.LIMITS["int4"]


def test_files_of_another_program_need_no_json(tmp_path: Path) -> None:
    write_outcome(tmp_path, outcome())
    (tmp_path / "final_logits.json").unlink()
    found = read_outcome(tmp_path)
    assert (found.tokens, found.precision, found.tokens_per_s) == ((), "fp32", None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("final_logits.bin", None, "cannot be read"),
        ("final_logits.bin", b"", "0 bytes"),
        ("final_logits.bin", b"12345", "5 bytes"),
        ("final_logits.bin", np.full(77, np.nan, "<f4").tobytes(), "NaN"),
        ("final_probs.bin", bytes(4 * 76), "77 numbers and final_probs.bin 76"),
        ("final_logits.json", b"[1]", "not a table"),
        ("final_logits.json", b"[" * 100_000, "not JSON"),
        ("final_logits.json", b'{"tokens": "1,2"}', "no list of ids"),
        ("final_logits.json", b'{"precision": "fp7"}', "'fp7' is unknown"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    write_outcome(tmp_path, outcome())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_outcome(tmp_path)


def test_folders_of_prompts_are_compared_one_by_one(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert folders_of(a, b) == [("", a, b)]
    for folder in (a, b):
        for i in range(2):
            write_outcome(folder / f"prompt-{i:02}", outcome())
    assert [name for name, _, _ in folders_of(a, b)] == ["prompt-00", "prompt-01"]
    write_outcome(a / "prompt-02", outcome())
    with pytest.raises(FileError, match="prompt-02 is in one of them only"):
        folders_of(a, b)


@pytest.mark.parametrize("precision", [[], {}, 8, "fp7"])
def test_a_precision_that_is_none_is_refused(tmp_path: Path, precision: object) -> None:
    write_outcome(tmp_path, outcome())
    told = json.loads((tmp_path / "final_logits.json").read_text())
    (tmp_path / "final_logits.json").write_text(json.dumps(told | {"precision": precision}))
    with pytest.raises(FileError, match=r"precision .* is unknown"):
        read_outcome(tmp_path)


@pytest.mark.parametrize("speed", [10**400, -1, 0, "fast", math.nan])
def test_a_speed_that_is_none_is_left_out(tmp_path: Path, speed: object) -> None:
    write_outcome(tmp_path, outcome(tokens_per_sec=speed))
    assert read_outcome(tmp_path).tokens_per_s is None


def test_probabilities_that_are_none_are_refused(tmp_path: Path) -> None:
    """S4-021: of another program too."""
    write_outcome(tmp_path, outcome())
    probs = np.fromfile(tmp_path / "final_probs.bin", "<f4")
    for change in (lambda p: 2 * p, lambda p: p - 2 * p[0] * (np.arange(len(p)) == 0)):
        change(probs).astype("<f4").tofile(tmp_path / "final_probs.bin")
        with pytest.raises(FileError, match="holds no probabilities"):
            read_outcome(tmp_path)
