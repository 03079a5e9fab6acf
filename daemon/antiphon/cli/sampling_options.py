"""How boldly an answer is chosen, as options of a command; what they begin with is what a player's settings do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from antiphon.config.sections import Sampling as Settings

if TYPE_CHECKING:
    from antiphon.engine.sampling import Sampling


def add_sampling_options(parser: Any) -> None:
    """Add --temperature, --top-p, --top-k and --min-p to a parser or a group of one."""
    usual = Settings()
    for name, default, letter, text in (
        ("--temperature", usual.temperature, "T", "below 1 plays safer; 0 always takes the likeliest"),
        ("--top-p", usual.top_p, "P", "only the likeliest choices that share this much probability"),
        ("--top-k", usual.top_k, "K", "only so many of the likeliest choices; 0 for no limit"),
        ("--min-p", usual.min_p, "P", "only choices at least so likely, beside the likeliest one"),
    ):
        told = f"{text} (default {default:g})"
        parser.add_argument(name, type=type(default), default=default, metavar=letter, help=told)


def sampling_of(args: argparse.Namespace) -> Sampling:
    """What the options say. Raises AntiphonError for what cannot be."""
    from antiphon.engine.sampling import Sampling
    from antiphon.errors import AntiphonError

    try:
        return Sampling(temperature=args.temperature, top_p=args.top_p, top_k=args.top_k, min_p=args.min_p)
    except ValueError as error:
        raise AntiphonError(str(error)) from error
