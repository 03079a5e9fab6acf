"""A process in which launches are compiled for a GPU that is not here, and not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def compile_for_a_gpu(program: str, *arguments: str) -> None:
    """Run `program`, which begins with `import gpu_compiler`; AssertionError when it fails.

    What was compiled stays in Triton's own cache, so that only the first run takes long.
    """
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
