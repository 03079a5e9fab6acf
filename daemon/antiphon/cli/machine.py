"""What machine this is, for the head of a benchmark's table: a figure without its machine means nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    """The processor, how many of its cores we may use, the system, and how busy it was when we began."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{model}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}, load {load:.1f}"
