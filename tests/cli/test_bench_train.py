"""`antiphon bench train`: the trainer's step beside a naive loop's, with figures that can be believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiphon.cli.main import main
from antiphon.errors import AntiphonError
from antiphon.training.bench import Plan, measure

TINY = ["--sizes", "1x64", "--batch-tokens", "128", "--context", "64", "--threads", "1"]


def test_tells_tokens_a_second_and_memory_beside_a_naive_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told.json"
    assert main(["bench", "train", *TINY, "--rounds", "2", "--json", str(told)]) == 0
    shown = capsys.readouterr().out
    assert "naive loop" in shown
    figures = json.loads(told.read_text())
    assert figures["machine"]
    assert [(row["size"], row["what"], row["tokens_per_step"]) for row in figures["train"]] == [
        ("1x64", "trainer", 128),
        ("1x64", "trainer", 512),
        ("1x64", "naive loop", 512),
    ]
    for row in figures["train"]:
        assert 0 < row["tokens_per_s"]["median"] <= row["tokens_per_s"]["best"] == max(row["rounds"])
        assert len(row["rounds"]) == 2
    trainer, like_for_like, naive = figures["train"]
    # Autograd keeps a matrix state of 64 x 64 floats for every token of the naive loop; the trainer one in 16.
    states = 512 * 64 * 64 * 4
    assert states < naive["peak_bytes"] < 40 * states
    assert like_for_like["peak_bytes"] < naive["peak_bytes"]
    assert trainer["peak_bytes"] < 1 << 30


def test_a_worker_that_dies_is_told_of() -> None:
    with pytest.raises(AntiphonError, match="died"):
        measure([Plan(kind="naive", layers=0, width=64, rows=1, tokens=16, threads=1)], rounds=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rounds", "0"], "0 rounds measure nothing"),
        (["--sizes", "big"], "'big' is no size"),
        (["--sizes", "6x100"], "width must be a multiple of 64"),
        (["--batch-tokens", "1000"], "batch_tokens must be a multiple of context"),
    ],
)
def test_a_mistake_is_told_in_one_clear_line(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["bench", "train", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
