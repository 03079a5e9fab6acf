"""The command line: finds the command, runs it, and turns what goes wrong into one clear line.

Exit codes: 0 done; 1 it could not be done; 2 the command, a file or the configuration is wrong; 130 interrupted.
A command is a module with `add_parser(commands)` and `run(args) -> int`; it imports what is heavy inside `run`.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from antiphon.cli import (
    answer,
    bench,
    check,
    daemon,
    demo,
    detokenize,
    dump,
    evaluate,
    listen,
    models,
    pairs,
    ports,
    tokenize,
    train,
)
from antiphon.errors import AntiphonError, PortError

INTERRUPTED = 130  # 128 + SIGINT, what shells report
PIPE_CLOSED = 141  # 128 + SIGPIPE


class _Version(argparse.Action):
    """Prints the installed version; looked up only when asked for, because that takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"antiphon {version('antiphon')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the chosen command's `run` is in `args.run`."""
    root = argparse.ArgumentParser(
        prog="antiphon", description="Call and response: play some bars, and the box answers on the next bar line."
    )
    root.add_argument("--version", action=_Version, nargs=0, help="print the version")
    root.set_defaults(run=None)
    commands = root.add_subparsers(title="commands", metavar="COMMAND")
    daemon.add_parser(commands)
    check.add_parser(commands)
    dump.add_parser(commands)
    ports.add_parser(commands)
    demo.add_parser(commands)
    answer.add_parser(commands)
    listen.add_parser(commands)
    tokenize.add_parser(commands)
    detokenize.add_parser(commands)
    pairs.add_parser(commands)
    train.add_parser(commands)
    evaluate.add_parser(commands)
    models.add_parser(commands)
    bench.add_parser(commands)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        root = parser()
        args = root.parse_args(argv)
        if args.run is None:
            root.print_help(sys.stderr)
            return 2
        code: int = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can still be met quietly
        return code
    except AntiphonError as error:
        print(f"antiphon: {error}", file=sys.stderr)
        return 1 if isinstance(error, PortError) else 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone, as `| head` does
        _drop_output()
        return PIPE_CLOSED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"antiphon: {(error.strerror or str(error)).lower()}", file=sys.stderr)
            _drop_output()
            return 1
        traceback.print_exc()
        print("antiphon: that is a defect of Antiphon; the lines above tell where", file=sys.stderr)
        return 1


def _drop_output() -> None:
    """Let what is still to be written go nowhere; Python would fail on it again at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
