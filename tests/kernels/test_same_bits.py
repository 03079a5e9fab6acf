"""The step gives the same bits on every processor, and from the cache as freshly compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent

RUN = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from kernels.random_tensors import Shape, random_tensors
from antiphon_kernels.linear.processor import vnni_bits
from model.any_version import SMALL, SPECS, random_weights
from antiphon_kernels.program import numba_cpu
from antiphon_kernels.program.any_version import build
from antiphon_kernels.program.given import Given
from antiphon_kernels.program.slab import Segment, feed
several = [random_tensors(Shape(layers=2, width=128, heads=2, vocab=37, ffn=301, ranks=(30, 33, 5, 50)))]
several += [{name: t.numpy() for name, t in random_weights(SPECS[version]).items()} for version in (*SMALL, "6 wide")]
digest = hashlib.sha256()
for tensors in several:
    program = build(Given(tensors), interleave=vnni_bits() > 0)
    state, logits = program.start.copy(), np.zeros(program.vocab_size, np.float32)
    for first, last in ((0, 1), (1, 4), (4, 29)):
        feed(program, [Segment(state=state, logits=logits, ids=np.arange(first, last, dtype=np.int32))])
    digest.update(state.tobytes() + logits.tobytes())
hits = sum(numba_cpu.run.stats.cache_hits.values())
print(vnni_bits(), hits, digest.hexdigest())
"""


def run(folder: Path | None, **environment: str) -> tuple[int, int, str]:
    """(VNNI bits, cache hits, hash of state and logits) of one process."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(TESTS)],
        env=os.environ | environment | ({"NUMBA_CACHE_DIR": str(folder)} if folder else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bits, hits, digest = done.stdout.split()
    return int(bits), int(hits), digest


def test_fresh_cached_and_for_the_plainest_processor(tmp_path: Path) -> None:
    fresh, cached = run(tmp_path), run(tmp_path)
    assert (fresh[1], cached[1]) == (0, 1)
    assert fresh[2] == cached[2]
    # No vector unit beyond SSE2, no fused product and sum, no VNNI: other code throughout.
    bits, _, digest = run(None, NUMBA_CPU_NAME="generic")
    assert (bits, digest) == (0, fresh[2])
