"""`antiphon models compare`: whether two verifications agree. Exit code 0 when they do, 1 when they do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.figures import write_figures

if TYPE_CHECKING:
    from antiphon.library.parity import Comparison


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "compare",
        help="whether two verifications agree",
        description="Compare what two runs of `antiphon models verify`, or of another program that writes the same "
        "files, foretell. They agree when the largest difference of a logit, in standard deviations of A's logits, is "
        "below the limit: exit code 0, otherwise 1.",
    )
    parser.add_argument("a", type=Path, metavar="DIR_A", help="the reference")
    parser.add_argument("b", type=Path, metavar="DIR_B", help="what is judged")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="X",
        help="how far a logit may differ, in standard deviations (default: 1e-5 where both are fp32, else what the "
        "coarser precision of the two costs at most)",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, show a table, and write the figures where asked; 1 when they disagree."""
    from antiphon.errors import AntiphonError, FileError
    from antiphon.library.parity import compare, folders_of, limit_of, read_outcome

    if args.limit is not None and not args.limit > 0:
        raise AntiphonError(f"a limit of {args.limit} lets nothing pass", where="--limit", fix="give more than 0")
    told = []
    agree = True
    for name, folder_a, folder_b in folders_of(args.a, args.b):
        a, b = read_outcome(folder_a), read_outcome(folder_b)
        try:
            comparison = compare(a, b)
        except ValueError as error:
            raise FileError(str(error), where=f"{folder_a} and {folder_b}") from error
        limit = args.limit if args.limit is not None else limit_of(a, b)
        passed = comparison.deviation < limit
        agree = agree and passed
        _show(comparison, title=name or f"{folder_b} against {folder_a}", limit=limit, passed=passed)
        told.append({"prompt": name, "limit": limit, "passed": passed, **_told(comparison)})
    if args.json is not None:
        write_figures(args.json, told)
    return 0 if agree else 1


def _told(comparison: Comparison) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(comparison), "same_top": comparison.same_top, "top_overlap": comparison.top_overlap}


def _show(comparison: Comparison, *, title: str, limit: float, passed: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right", no_wrap=True)
    rows = [
        ("probabilities: largest difference (Linf)", f"{comparison.linf:.6e}"),
        ("probabilities: sum of differences (L1)", f"{comparison.l1:.6e}"),
        ("probabilities: root of squares (L2)", f"{comparison.l2:.6e}"),
        ("logits: mean square (MSE)", f"{comparison.mse:.6e}"),
        ("logits: mean difference (MAE)", f"{comparison.mae:.6e}"),
        ("logits: correlation", f"{comparison.correlation:.9f}"),
        ("KL(A ‖ B), nats", f"{comparison.kl_ab:.6e}"),
        ("KL(B ‖ A), nats", f"{comparison.kl_ba:.6e}"),
        ("likeliest id", "the same" if comparison.same_top else f"{comparison.top_a[0]} and {comparison.top_b[0]}"),
        (f"likeliest {len(comparison.top_a)} in common", str(comparison.top_overlap)),
        ("largest difference / standard deviation", f"{comparison.deviation:.6e}"),
    ]
    if comparison.speed_a and comparison.speed_b:
        rows.append(("ids a second, A and B", f"{comparison.speed_a:,.1f} and {comparison.speed_b:,.1f}"))
        rows.append(("B's speed over A's", f"{comparison.speed_b / comparison.speed_a:.2f}"))
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"{'they agree' if passed else 'they disagree'}: the limit is {limit:g}", highlight=False)
