"""Peers: what other engines' benchmarks print is understood, and what goes wrong with them is told."""

from __future__ import annotations

import json
import re
import sys

import pytest

from antiphon.cli import peer
from antiphon.errors import AntiphonError

TESTS = [
    {"n_prompt": 512, "n_gen": 0, "avg_ts": 480.0, "samples_ts": [470.0, 490.0]},
    {"n_prompt": 0, "n_gen": 128, "avg_ts": 120.0, "samples_ts": [118.5, 121.5]},
    {"n_prompt": 512, "n_gen": 128, "avg_ts": 9.0, "samples_ts": [9.0]},
]
CSV = (
    '"build_commit","n_prompt","n_gen","avg_ts","stddev_ts"\n'
    '"0c1e570","512","0","480.0","1.0"\n"0c1e570","0","128","120.0","1.0"\n'
)


def python(text: str) -> str:
    return f"{sys.executable} -c {json.dumps(text)}"


@pytest.mark.parametrize(
    "text", [json.dumps(TESTS), json.dumps(TESTS, indent=2), "\n".join(map(json.dumps, TESTS)) + "\n"],
    ids=["json", "indented", "jsonl"],
)  # fmt: skip
def test_llama_benchs_json_tells_every_repetition_of_the_kind_asked_for(text: str) -> None:
    assert peer.figures_in(text, kind=peer.DECODE, pattern=None) == [118.5, 121.5]
    assert peer.figures_in(text, kind=peer.PREFILL, pattern=None) == [470.0, 490.0]


def test_llama_benchs_csv_tells_the_mean() -> None:
    assert peer.figures_in(CSV, kind=peer.DECODE, pattern=None) == [120.0]
    assert peer.figures_in(CSV, kind=peer.PREFILL, pattern=None) == [480.0]


def test_a_pattern_finds_every_figure_in_any_text() -> None:
    text = "warm-up\n1,234.5 tok/s\n99 tok/s\n"
    assert peer.figures_in(text, kind=peer.DECODE, pattern=re.compile(r"([0-9.,]+) tok/s")) == [1234.5, 99.0]


def test_a_pattern_does_not_keep_llama_bench_from_being_understood() -> None:
    pattern = re.compile(r"([0-9.]+)")
    assert peer.figures_in(json.dumps(TESTS), kind=peer.DECODE, pattern=pattern) == [118.5, 121.5]


def test_a_pattern_whose_group_is_no_number_is_refused() -> None:
    with pytest.raises(AntiphonError, match="no number"):
        peer.figures_in("fast tok/s", kind=peer.DECODE, pattern=re.compile(r"(\w+) tok/s"))


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1, 2]", "{not json", "a,b\n1,2\n", "| model | t/s |\n"])
def test_other_text_tells_nothing(text: str) -> None:
    assert peer.figures_in(text, kind=peer.DECODE, pattern=None) == []


def test_a_peer_is_run_with_the_numbers_filled_in() -> None:
    command = python("import sys; print(sys.argv[1], 'tok/s')") + " {threads}{tokens}.{batch}"
    run = peer.peer(
        command, kind=peer.DECODE, pattern=re.compile(r"([0-9.]+) tok/s"), timeout_s=60,
        fill={"threads": 2, "tokens": 16, "batch": 5},
    )  # fmt: skip
    assert run() == [216.5]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/nonexistent/llama-bench", "cannot be run"),
        ("", "cannot be run"),
        (python("import sys; sys.exit('no such model')"), "no such model"),
        (python("print('hello')"), "told no figure"),
        (python("import time; time.sleep(9)"), "not done after"),
    ],
    ids=["missing", "empty", "fails", "mute", "slow"],
)
def test_a_peer_that_cannot_race_is_an_error_that_says_why(command: str, told: str) -> None:
    run = peer.peer(command, kind=peer.DECODE, pattern=None, timeout_s=2, fill={})
    with pytest.raises(AntiphonError, match=told):
        run()


@pytest.mark.parametrize("pattern", ["(", "tok/s"])
def test_a_pattern_that_finds_no_number_is_refused(pattern: str) -> None:
    with pytest.raises(AntiphonError, match="--peer-pattern"):
        peer.checked_pattern(pattern)
    assert peer.checked_pattern(None) is None


def test_a_peers_name_is_its_program_and_its_model() -> None:
    assert peer.name_of("/opt/llama-bench -m models/a-q8_0.gguf -t 2") == "llama-bench a-q8_0.gguf"
    assert peer.name_of("env GLIBC_TUNABLES=glibc.malloc.hugetlb=1 llama-bench -t 1") == "llama-bench"
    assert peer.name_of("env -u PYTHONPATH nice -n 5 /venv/bin/python bench.py") == "python"
    assert peer.name_of("") == ""
