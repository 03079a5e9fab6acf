"""Reading YAML: the scalars of YAML 1.2, and files that are none or mean harm."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from antiphon.config import InvalidConfig, load
from antiphon.config.problem import Problem
from antiphon.config.tree import MOST_BYTES, Mapping, Scalar, read_tree


def value_of(tmp_path: Path, text: str) -> object:
    path = tmp_path / "a.yaml"
    path.write_text(f"key: {text}\n")
    problems: list[Problem] = []
    scalar = read_tree(path, problems).entries["key"]
    assert problems == []
    assert isinstance(scalar, Scalar)
    return scalar.value


def problem_of(path: Path) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(path)
    [problem] = caught.value.problems
    return str(problem).removeprefix(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "6:8",
        "128:0",
        "1:30:00",
        "on",
        "off",
        "yes",
        "No",
        "y",
        "2026-11-21",
        "1_000",
        "0b11",
        "<<",
        "=",
        "1e",
        ".",
        "0x",
        "+.e3",
        "tRue",
    ],
)
def test_what_only_yaml_1_1_would_convert_stays_text(tmp_path: Path, text: str) -> None:
    assert value_of(tmp_path, text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("+7", 7),
        ("-0", 0),
        ("0o17", 15),
        ("0xff", 255),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'null'", "null"),
        ('"10"', "10"),
        ("!!str 10", "10"),
        ("!!int 10", 10),
    ],
)
def test_scalars_are_those_of_the_core_schema(tmp_path: Path, text: str, value: object) -> None:
    read = value_of(tmp_path, text)
    assert read == value
    assert type(read) is type(value)


def test_names_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("players:\n- {name: 010, input: on, output: 1e3}\nclock: {meter: 6/8}\n")
    [player] = load(path).players
    assert (player.name, player.input, player.output) == ("010", "on", "1e3")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfclock:\r\n  bpm: 90\r\n")
    assert load(path).clock.bpm == 90.0


def test_aliases_may_share_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("players:\n- {name: a, sampling: &calm {temperature: 0.5}}\n- {name: b, sampling: *calm}\n")
    assert [player.sampling.temperature for player in load(path).players] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"clock: [1, 2", ":1: not YAML: "),
        (b"clock:\n\tbpm: 90", ":2: not YAML: "),
        (b"clock: {bpm: 90}\n---\nclock: {}", ":2: not YAML: "),
        (b"clock: *nothing", ":1: not YAML: "),
        (b"clock: \x01", ":1: not YAML: "),
        (b"\x7fELF\x02\x01\x01", ":1: not YAML: holds a control character"),
        (b"clock:\n  bpm: \xff\xfe", ":2: not text in UTF-8 (byte 0xff)"),
        (b"MThd\x00\x00\x00\x06\x00\x01\x00\x02\x01\xe0MTrk\x90\x80", ":1: not text in UTF-8 (byte 0xe0)"),
        (b"just words", ":1: not a configuration"),
        (b"- clock", ":1: not a configuration"),
        (b"clock: {bpm: 90}\nclock: {bpm: 80}", ":2: clock: stands here a second time, first in line 1"),
        (b"clock: {bpm: 90, bpm: 80}", ":1: clock.bpm: stands here a second time, first in line 1"),
        (b"? [a, b]\n: 1", ":1: a key must be a word"),
        (b"clock: {bpm: !!python/object/apply:os.system [x]}", ":1: clock.bpm: the tag "),
        (b"log: {level: !secret info}", ":1: log.level: the tag !secret is not used here"),
        (b"[" * 50_000, ":1: nested more than 16 levels deep"),
        (b"a: &a [*a]", ":1: a[0][0]"),
        (b"x" * (MOST_BYTES + 1), ": longer than 128 KiB: not a configuration"),
        (b"model: {path: " + b"x" * 2000 + b"}", ":1: model.path: longer than 1024 characters"),
        (b"clock: {bpm: " + b"9" * 1000 + b"}", ":1: clock.bpm: '999"),
        (b"clock: {bpm: 0x" + b"f" * 1000 + b"}", ":1: clock.bpm: '0xf"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    with pytest.raises(InvalidConfig) as caught:
        load(path)
    assert str(caught.value.problems[0]).removeprefix(str(path)).startswith(expected)


def test_a_directory_says_so(tmp_path: Path) -> None:
    assert problem_of(tmp_path) == ": is a directory, not a file"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert problem_of(Path("/dev/zero")) == ": longer than 128 KiB: not a configuration"


def test_a_billion_laughs_do_not_exhaust_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    path.write_text("\n".join(lines))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidConfig, match="aliases unfold into too much") as caught:
        load(path)
    assert sum("aliases" in problem.what for problem in caught.value.problems) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_an_unreadable_file_still_gives_a_tree(tmp_path: Path) -> None:
    problems: list[Problem] = []
    assert read_tree(tmp_path / "none.yaml", problems) == Mapping(problems[0].place)
    assert "no such file" in problems[0].what
