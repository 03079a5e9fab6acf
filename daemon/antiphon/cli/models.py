"""`antiphon models …`: look into model files, turn them into other forms, and see whether two engines agree."""

from __future__ import annotations

from typing import Any

from antiphon.cli import (
    models_compare,
    models_convert,
    models_estimate,
    models_inspect,
    models_merge,
    models_verify,
)


def add_parser(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser("models", help="inspect, convert, merge and verify model files", description=__doc__)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    models_inspect.add_parser(actions)
    models_convert.add_parser(actions)
    models_merge.add_parser(actions)
    models_verify.add_parser(actions)
    models_compare.add_parser(actions)
    models_estimate.add_parser(actions)
