"""`antiphon models inspect`: what is in a model file, and what it takes to run it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from antiphon.library.bundled import named

if TYPE_CHECKING:
    from antiphon.library.description import Description


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "inspect",
        help="what is in a model file, and the memory it takes",
        description="Tell the version, form and sizes of a model, its tokenizer as far as it can be guessed, and the "
        "memory that it takes in each precision. Only the file's index is read. A folder is searched for models.",
    )
    parser.add_argument("path", type=named, metavar="FILE|DIR", help="a model file, a folder of them, or: bundled")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Describe one file, or every model in a folder; 1 when a folder holds none."""
    import json
    import sys

    from antiphon.errors import AntiphonError
    from antiphon.library.description import describe, model_files

    if not args.path.is_dir():
        description = describe(args.path)
        if args.json:
            print(json.dumps(description.told(), indent=1))
        else:
            _show(description)
        return 0
    found = []
    for path in model_files(args.path):
        try:
            found.append(describe(path))
        except AntiphonError as error:
            print(f"antiphon: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps([description.told() for description in found], indent=1))
    else:
        for description in found:
            spec = description.spec
            sizes = f"{spec.n_layer} x {spec.n_embd}, {spec.parameters / 1e6:,.1f} M"
            print(f"{description.path}: RWKV-{spec.version} {description.size}, {sizes}, {description.kind}")
    return 0 if found else 1


def _show(description: Description) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from antiphon.library.description import fits_here

    spec = description.spec
    ranks = {"decay": spec.decay_rank, "in-context rate": spec.iclr_rank, "value": spec.value_rank}
    ranks |= {"gate": spec.gate_rank, "mix": spec.mix_rank}
    rows = {
        "version": f"RWKV-{spec.version}",
        "form": f"{description.kind}, matrices {', '.join(description.stored)}",
        "size": f"{description.size}: {spec.parameters:,} parameters",
        "layers x width": f"{spec.n_layer} x {spec.n_embd}",
        "heads": f"{spec.n_head} of {spec.head_size}" if spec.head_size > 1 else "none",
        "hidden": f"{spec.ffn_dim:,}",
        "ranks": ", ".join(f"{name} {rank}" for name, rank in ranks.items() if rank) or "none",
        "vocabulary": f"{spec.vocab_size:,}",
        "tokenizer": description.tokenizer,
        "start state": "yes" if description.has_start_state else "no",
        "state of one timeline": _bytes(description.state_bytes),
    }
    rows |= {f"weights in {name}": _bytes(count) for name, count in description.memory.items()}
    rows |= {f"fits here on {device} in": word or "nothing" for device, word in fits_here(spec).items()}
    table = Table(title=Text(str(description.path)), show_header=False, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("")
    for name, text in rows.items():
        table.add_row(name, Text(text))  # what a file says of itself is no markup
    Console().print(table)


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
