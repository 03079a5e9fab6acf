"""A peer in a race: another engine's own benchmark, given as a command, whose figures are read from what it prints.

llama.cpp's `llama-bench -o json` (or jsonl, csv) is understood as it is; of other programs a pattern says where the
figure stands. The command is run without a shell, its words as a shell would part them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from antiphon.errors import AntiphonError

DECODE, PREFILL, OTHER = "decode", "prefill", "other"
_BEFORE = ("env", "nice")  # what may stand before a program, with options and settings of its own
_TELLING = 400  # characters of a failed peer's last words


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --peer and what belongs to it."""
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="CMD",
        help="a command to race against, run in turn with ours; {threads}, {tokens} and {batch} in it are filled in. "
        "May be given again",
    )
    parser.add_argument(
        "--peer-pattern",
        metavar="REGEX",
        help="where the peer's figure stands in what it prints: the first group, each match a figure "
        "(llama-bench's json, jsonl and csv need none)",
    )
    parser.add_argument("--peer-timeout-s", type=float, default=900.0, metavar="S", help="give up on it after S")


def checked_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """The compiled pattern; AntiphonError when it is none, or has no group."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise AntiphonError(f"no regular expression: {error}", where="--peer-pattern") from error
    if not compiled.groups:
        raise AntiphonError(
            f"{pattern!r} has no group", where="--peer-pattern", fix="put the number in brackets: ([0-9.]+) tok/s"
        )
    return compiled


def name_of(command: str) -> str:
    """A short name: the program's, and llama-bench's model."""
    words = shlex.split(command)
    at = 0
    while at < len(words) - 1 and (words[at] in _BEFORE or words[at].startswith("-") or "=" in words[at]):
        at += 2 if words[at] in ("-u", "-n") else 1
    models = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-m", "--model")]
    return " ".join(word.rpartition("/")[2] for word in (*words[at : at + 1], *models[:1]))


def peer(
    command: str, *, kind: str, pattern: re.Pattern[str] | None, timeout_s: float, fill: dict[str, int]
) -> Callable[[], Sequence[float]]:
    """Runs `command` once and gives its figures. AntiphonError when it fails or tells none."""
    for name, number in fill.items():
        command = command.replace(f"{{{name}}}", str(number))
    words = shlex.split(command)

    def run() -> list[float]:
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout_s)
        except (OSError, ValueError, IndexError) as error:
            raise AntiphonError(f"cannot be run: {error}", where=command) from error
        except subprocess.TimeoutExpired as error:
            raise AntiphonError(f"not done after {timeout_s:g} s", where=command) from error
        if done.returncode:
            raise AntiphonError(f"ended with {done.returncode}: {done.stderr.strip()[-_TELLING:]}", where=command)
        figures = figures_in(done.stdout, kind=kind, pattern=pattern)
        if not figures and pattern is not None:
            figures = figures_in(done.stderr, kind=kind, pattern=pattern)
        if not figures:
            raise AntiphonError(
                f"told no figure: {done.stdout.strip()[-_TELLING:]!r}",
                where=command,
                fix="give llama-bench -o json, or another program a --peer-pattern",
            )
        return figures

    return run


def figures_in(text: str, *, kind: str, pattern: re.Pattern[str] | None) -> list[float]:
    """All figures in what a peer printed: of llama-bench's tests those of `kind`, of other text the pattern's."""
    found = [figure for test in _tests(text) if _kind(test) == kind for figure in _figures(test)]
    if found or pattern is None:
        return found
    try:
        return [float(match.group(1).replace(",", "")) for match in pattern.finditer(text)]
    except ValueError as error:
        raise AntiphonError(f"the first group is no number: {error}", where="--peer-pattern") from error


def _tests(text: str) -> list[dict[str, Any]]:
    """llama-bench's tests, from any of its formats; none for other text."""
    try:
        told = json.loads(text)
    except ValueError:
        pass
    else:
        return [test for test in told if isinstance(test, dict)] if isinstance(told, list) else []
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            return []
    return list(csv.DictReader(io.StringIO(text)))


def _kind(test: dict[str, Any]) -> str:
    try:
        prompt, generated = int(test["n_prompt"]), int(test["n_gen"])
    except (KeyError, TypeError, ValueError):
        return OTHER
    if prompt and generated:
        return OTHER
    return PREFILL if prompt else DECODE


def _figures(test: dict[str, Any]) -> list[float]:
    """Tokens a second of each repetition; their mean where only that is told."""
    try:
        return [float(figure) for figure in test.get("samples_ts") or [test["avg_ts"]]]
    except (KeyError, TypeError, ValueError):
        return []
