"""10,000 bars on a clock turned by hand (S2-052): never late, and no larger at its end than at its beginning."""

from __future__ import annotations

import gc
import os

import numpy as np

from antiphon.engine.loaded import LoadedModel
from antiphon.music.meter import Meter
from antiphon.music.note import Note
from antiphon.session.policy import Policy
from antiphon.session.pulse import InternalPulse
from tests.session.stage import Stage

BAR_NS = 1_000_000_000  # four quarters at 240 a minute
BARS = 10_000
MIB = 1 << 20


def resident_bytes() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_bars_are_answered_in_time_in_constant_memory(model: LoadedModel) -> None:
    on = Stage(
        model=model,
        policy=Policy(listen_bars=1, answer_bars=1, seed=9),
        pulse=InternalPulse(240.0, Meter(4, 4)),
        job_ns=5_000_000,
    )
    random = np.random.default_rng(4)
    start_ns = 2_000_000_000
    state_bytes = on.tree.trunk.state.nbytes
    at_bar_1000 = 0
    for exchange in range(BARS // 2):
        bar_tick = 2 * exchange * 4 * 960
        first = Note(bar_tick, 60, 500, 90)
        rest = [
            Note(bar_tick + int(tick), int(random.integers(48, 84)), int(random.integers(60, 2500)), 80)
            for tick in random.integers(100, 3700, size=5)
        ]
        on.play_notes([first, *rest], from_ns=start_ns)
        on.run(until_ns=start_ns + (2 * exchange + 1) * BAR_NS + BAR_NS // 2)
        # Half a bar into the answer: all that belongs on its bar line has been sent before it, and has sounded.
        line_ns = start_ns + (2 * exchange + 1) * BAR_NS
        first_sent = [now_ns for now_ns, _, replaces_from_ns in on.sent if replaces_from_ns == line_ns]
        assert first_sent, f"no plan for bar {2 * exchange + 1}"
        assert min(first_sent) < line_ns
        assert any(due.at_ns == line_ns and due.data[0] & 0xF0 == 0x90 for due in on.released)
        on.forget()
        if exchange == 500:
            at_bar_1000 = resident_bytes()
    assert on.tree.trunk.state.nbytes == state_bytes
    assert on.tree.trunk.count > 100_000
    grown = resident_bytes() - at_bar_1000
    assert grown < MIB, f"{grown / MIB:.2f} MiB more at bar {BARS} than at bar 1,000"
