"""The race of a model against memory, plain PyTorch and peers, and its table: what decode, prefill and batch share."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from antiphon.cli import bench_options, peer
from antiphon.cli.bench_options import Subject
from antiphon.cli.figures import write_figures

if TYPE_CHECKING:
    from antiphon.engine.bench import Contender, Speed
    from antiphon.engine.bench_memory import Memory
    from antiphon.engine.runner import Runner

OURS, PLAIN, PEER = "antiphon", "plain PyTorch", "peer"
CACHED, LARGE = "memory, as much as a token reads", "memory, more than caches hold"
_PLAIN_PARAMETERS = 50_000_000  # larger models take the definition seconds a token
_PLAIN_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is timed: `kind` as peers call it, `tokens` fed to each of so many `timelines`, for every such number."""

    kind: str
    tokens: int
    timelines: Sequence[int] = (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A contender and what the table says of it. token_bytes: what a token of ours reads; 0 for others."""

    role: str
    timelines: int
    contender: Contender
    token_bytes: int = 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what all three commands take."""
    bench_options.add_model(parser)
    peer.add_options(parser)
    parser.add_argument(
        "--pytorch",
        action=argparse.BooleanOptionalAction,
        help="race plain PyTorch too (default: if the model has less than 50 million parameters)",
    )
    parser.add_argument(
        "--memory-mb", type=int, metavar="N", help="memory to read that no cache holds (default: twice the last cache)"
    )


def run(args: argparse.Namespace, work: Work) -> int:
    """Measure, show a table, and write the figures where asked. Raises AntiphonError."""
    from rich.console import Console
    from rich.progress import Progress

    from antiphon.cli.machine import describe
    from antiphon.engine import bench_memory, bench_model
    from antiphon.engine.bench import race

    for value, option in ((args.rounds, "--rounds"), (args.repeats, "--repeats"), (work.tokens, "--tokens")):
        bench_options.positive(value, option)
    pattern, threads, machine = peer.checked_pattern(args.peer_pattern), bench_options.threads(args), describe()
    with Progress(console=Console(stderr=True), transient=True) as bar, contextlib.ExitStack() as models:
        task = bar.add_task("loading", total=None)
        subject = bench_options.subject(args)
        counts = threads if args.device == "cpu" else threads[:1]
        runners = [models.enter_context(_opened(args, subject, number)) for number in counts]
        memory = bench_memory.memory_of(args.memory_mb * 1_000_000 if args.memory_mb else bench_memory.large_bytes())
        lanes: list[Lane] = []
        for number, runner in zip(counts, runners, strict=True):
            lanes += _lanes(args, work, subject, runner, number, pattern)
            lanes += _limits(runner, memory, number)
        bar.update(task, description=work.kind, total=args.rounds * len(lanes))
        contenders = [lane.contender for lane in lanes]
        speeds = race(contenders, rounds=args.rounds, progress=lambda done: bar.update(task, completed=done))
        costs = asdict(bench_model.costs(runners[0]))
    told = _told(lanes, speeds)
    _show(work, subject, told, costs, precision=args.precision, machine=machine, rounds=args.rounds)
    if args.json is not None:
        spec = subject.source.spec
        model = {"name": subject.name, "spec": json.loads(spec.to_json()), "parameters": spec.parameters}
        head = {"machine": machine, "model": model, "tokens": work.tokens, "rounds": args.rounds}
        head |= {"precision": args.precision, "device": args.device}
        write_figures(args.json, head | costs | {work.kind: told})
    return 0


@contextlib.contextmanager
def _opened(args: argparse.Namespace, subject: Subject, threads: int) -> Iterator[Runner]:
    """The subject on so many threads, and off them again."""
    model = bench_options.loaded(subject, precision=args.precision, device=args.device, threads=threads)
    try:
        yield model.runner
    finally:
        model.close()


def _lanes(
    args: argparse.Namespace,
    work: Work,
    subject: Subject,
    runner: Runner,
    threads: int,
    pattern: re.Pattern[str] | None,
) -> Iterator[Lane]:
    """Whoever does the work with so many threads."""
    from antiphon.engine import bench_model
    from antiphon.engine.bench import Contender

    spec, source = runner.spec, subject.source
    ids = (bench_model.random_ids if subject.random else bench_model.drawn_ids)(runner, work.tokens)
    idle = 0.0 if work.kind == peer.PREFILL else bench_model.idle_share(runner, source, ids)
    for timelines in work.timelines:
        rows = timelines if work.kind != peer.PREFILL else min(work.tokens, bench_model.SLAB)
        nbytes = bench_model.token_bytes(runner, idle=idle, rows=rows)
        if work.kind == peer.PREFILL:
            ours = bench_model.prefilling(runner, ids, repeats=args.repeats)
        else:
            ours = bench_model.decoding(runner, ids, timelines=timelines, repeats=args.repeats)
        contender = Contender(name=OURS, threads=threads, run=ours)
        yield Lane(role=OURS, timelines=timelines, contender=contender, token_bytes=nbytes)
        for command in args.peer:
            fill = {"threads": threads, "tokens": work.tokens, "batch": timelines}
            peering = peer.peer(command, kind=work.kind, pattern=pattern, timeout_s=args.peer_timeout_s, fill=fill)
            contender = Contender(name=peer.name_of(command), threads=threads, run=peering)
            yield Lane(role=PEER, timelines=timelines, contender=contender)
    wanted = args.pytorch
    if wanted is None:
        wanted = spec.parameters < _PLAIN_PARAMETERS
    if wanted and 1 in work.timelines:
        at_once = work.tokens if work.kind == peer.PREFILL else 1
        few = ids if work.kind == peer.PREFILL else ids[:_PLAIN_TOKENS]
        weights = {name: source.read(name).float() for name in source.shapes}
        plain = bench_model.plain(spec, weights, few, at_once=at_once, threads=threads)
        yield Lane(role=PLAIN, timelines=1, contender=Contender(name=PLAIN, threads=threads, run=plain))


def _limits(runner: Runner, memory: Memory, threads: int) -> Iterator[Lane]:
    """How fast so many threads read memory."""
    from antiphon.engine import bench_memory, bench_model

    one = bench_model.token_bytes(runner, idle=0.0, rows=1)
    for role, nbytes in ((CACHED, one), (LARGE, memory.nbytes)):
        if runner.device == "cpu":
            contender = bench_memory.reader(memory, name=role, nbytes=nbytes, threads=threads)
        else:
            contender = bench_memory.device_reader(runner.device, name=role, nbytes=nbytes)
        yield Lane(role=role, timelines=0, contender=contender)


def _told(lanes: Sequence[Lane], speeds: Sequence[Speed]) -> list[dict[str, Any]]:
    """The rows of the table, as they go into the JSON."""
    told = []
    for lane, speed in zip(lanes, speeds, strict=True):
        row: dict[str, Any] = {"what": speed.name, "role": lane.role, "threads": speed.threads}
        unit = "gb_per_s" if lane.role in (CACHED, LARGE) else "tokens_per_s"
        row[unit] = {"median": _rounded(speed.median), "best": _rounded(speed.best)}
        row["figures"] = [_rounded(figure) for figure in speed.figures]
        if lane.timelines:
            row["timelines"] = lane.timelines
            row["us_per_token"] = _rounded(1e6 * lane.timelines / speed.median)
        if lane.token_bytes:
            row["bytes_per_token"] = lane.token_bytes
            row["gb_per_s"] = _rounded(speed.median * lane.token_bytes / 1e9)
            for key, role in (("share_of_cached_memory", CACHED), ("share_of_memory", LARGE)):
                limit = _of(lanes, speeds, role=role, threads=speed.threads, timelines=0)
                row[key] = _rounded(speed.median * lane.token_bytes / 1e9 / limit.best)
        elif lane.timelines:
            ours = _of(lanes, speeds, role=OURS, threads=speed.threads, timelines=lane.timelines)
            row["ours_is"] = {
                "median": _rounded(ours.median / speed.median),
                "best": _rounded(ours.best / speed.best),
            }
        told.append(row)
    return told


def _of(lanes: Sequence[Lane], speeds: Sequence[Speed], *, role: str, threads: int, timelines: int) -> Speed:
    return next(
        speed
        for lane, speed in zip(lanes, speeds, strict=True)
        if (lane.role, speed.threads, lane.timelines) == (role, threads, timelines)
    )


def _rounded(figure: float) -> float:
    """Four digits tell all that a benchmark knows."""
    return float(f"{figure:.4g}")


def _show(
    work: Work,
    subject: Subject,
    told: list[dict[str, Any]],
    costs: dict[str, float],
    *,
    precision: str | None,
    machine: str,
    rounds: int,
) -> None:
    from rich.console import Console
    from rich.table import Table

    spec = subject.source.spec
    size = f"RWKV-{spec.version}, {spec.n_layer} layers x {spec.n_embd}, vocabulary {spec.vocab_size:,}"
    held = "" if precision is None else f", {precision}"
    table = Table(title=f"{work.kind} of {work.tokens} tokens: {subject.name} ({size}{held})")
    table.add_column("what", no_wrap=True)
    for heading in ("threads", "timelines", "per s", "best", "MB/token", "GB/s", "of memory", "cached", "ours is"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in told:
        memory = "timelines" not in row
        figures = row["gb_per_s"] if memory else row["tokens_per_s"]
        table.add_row(
            row["what"],
            str(row["threads"]),
            str(row.get("timelines", "")),
            f"{figures['median']:,.4g} GB" if memory else f"{figures['median']:,.0f}",
            f"{figures['best']:,.4g} GB" if memory else f"{figures['best']:,.0f}",
            f"{row['bytes_per_token'] / 1e6:,.1f}" if "bytes_per_token" in row else "",
            f"{row['gb_per_s']:,.1f}" if "bytes_per_token" in row else "",
            f"{row['share_of_memory']:.0%}" if "share_of_memory" in row else "",
            f"{row['share_of_cached_memory']:.0%}" if "share_of_cached_memory" in row else "",
            f"{row['ours_is']['median']:.2f}x" if "ours_is" in row else "",
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(
        f"fork {costs['fork_us']:.0f} µs · sample {costs['sample_us']:.0f} µs · state {costs['state_bytes']:,} bytes · "
        f"weights {costs['weights_bytes'] / 1e6:,.1f} MB",
        highlight=False,
    )
    console.print(f"{machine}; medians, all of {rounds} rounds in turn", highlight=False)
