"""`antiphon models estimate`: the memory a model of given sizes takes, to run and to learn."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "estimate",
        help="the memory that a model of given sizes takes",
        description="Count the parameters of an RWKV-7 exactly, and tell the memory that it takes to run and to learn.",
    )
    sizes = parser.add_argument
    sizes("size", nargs="?", metavar="SIZE", help="a published size: 0.1B, 0.4B, 1.5B, 2.9B, 7.2B or 13.3B")
    sizes("--layers", type=int, metavar="N")
    sizes("--width", type=int, metavar="N", help="a multiple of 64")
    sizes("--vocabulary", type=int, default=65536, metavar="N", help="default 65536")
    sizes("--batch", type=int, default=1, metavar="N", help="sequences at a time (default 1)")
    sizes("--context", type=int, default=1024, metavar="N", help="ids of a sequence, in training (default 1024)")
    sizes("--precision", default="bf16", metavar="P", help="fp32, bf16 (default), fp16, int8, int8-groups or int4")
    sizes("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the estimate. Raises AntiphonError for sizes that no model has."""
    from antiphon.errors import AntiphonError
    from antiphon.library.memory import estimate_model_memory
    from antiphon.model.published import names, published

    if args.size is not None and (args.layers is not None or args.width is not None):
        raise AntiphonError(f"{args.size} says how many layers and how wide", fix="leave out --layers and --width")
    if args.size is None and args.layers is None and args.width is None:
        raise AntiphonError("say how large it is", fix="give a size such as 0.4B, or --layers and --width")
    if args.size is not None:
        try:
            spec = published(args.size)
        except KeyError as error:
            raise AntiphonError(f"{args.size} is no published size", fix=f"give one of {', '.join(names())}") from error
        layers, width = spec.n_layer, spec.n_embd
    elif args.layers is None or args.width is None:
        raise AntiphonError("--layers and --width go together", fix="give both")
    else:
        layers, width = args.layers, args.width
    try:
        told = estimate_model_memory(layers, width, args.vocabulary, args.batch, args.context, args.precision)
    except ValueError as error:
        raise AntiphonError(str(error)) from error
    if args.json:
        import json

        print(json.dumps(told, indent=1))
        return 0
    print(f"{layers} layers x {width}, vocabulary {args.vocabulary:,}: {told['model_params']:,} parameters")
    rows = {
        "to run": {"weights": told["parameters_gb"], f"state of {args.batch}": told["state_gb"]},
        "to learn": {
            "weights": told["parameters_gb"],
            "gradients": told["gradients_gb"],
            "optimizer": told["optimizer_gb"],
            "activations": told["activations_gb"],
            "in all": told["total_gb"],
        },
    }
    for what, parts in rows.items():
        print(f"{what} ({args.precision}): " + ", ".join(f"{name} {gib:.3f} GiB" for name, gib in parts.items()))
    return 0
