"""`antiphon bench …`: measure, beside a peer or a limit in the same run, and name the machine."""

from __future__ import annotations

from typing import Any

from antiphon.cli import (
    bench_batch,
    bench_decode,
    bench_kernel,
    bench_live,
    bench_long,
    bench_music_first,
    bench_prefill,
    bench_train,
)


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("bench", help="measure how fast and how punctual it is", description=__doc__)
    benches = parser.add_subparsers(title="benchmarks", metavar="BENCH", required=True)
    bench_live.add_parser(benches)
    bench_decode.add_parser(benches)
    bench_prefill.add_parser(benches)
    bench_batch.add_parser(benches)
    bench_music_first.add_parser(benches)
    bench_long.add_parser(benches)
    bench_kernel.add_parser(benches)
    bench_train.add_parser(benches)
