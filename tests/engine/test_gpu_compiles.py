"""What the interpreter runs, the compiler may still refuse: every launch of the runner, compiled for a GPU (S0-083)."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_process import compile_for_a_gpu
from triton_here import needs_triton

COMPILE = """
import sys
import gpu_compiler
import numpy as np
from held_tensors import HeldTensors
from antiphon.engine import gpu_operations
from antiphon.engine.gpu_network import Part, Store
from antiphon.engine.gpu_rwkv7 import Network7
from antiphon.engine.gpu_weights import load
from antiphon.model.precision import Precision
from antiphon.model.random_weights import random_weights
from antiphon.model.spec import ModelSpec
import torch

precision = Precision(sys.argv[1])
spec = ModelSpec(
    n_layer=2, n_embd=128, vocab_size=192, head_size=64, ffn_dim=256,
    decay_rank=32, iclr_rank=32, value_rank=16, gate_rank=64,
)
tensors = HeldTensors(spec=spec, tensors=random_weights(spec, seed=1), quantized={})
weights = load(tensors, precision, torch.device("cpu"))
store = Store(4, spec.state_floats, spec.vocab_size, torch.device("cpu"))
network = Network7(weights, store, operations=gpu_operations.fast(64))
for length in (1, 40):
    passage = network.begin([Part(slot=1, ids=np.zeros(length, np.int32), ends=True)])
    while passage.ahead is not None:
        passage.step()
kernels = {line.split()[0].rpartition(".")[2] for line in gpu_compiler.compiled}
assert kernels == {"_multiply", "_embed", "_shift_mix", "_prepare", "_advance", "_finish", "_norm"}, kernels
"""


@needs_triton
@pytest.mark.parametrize("precision", ["int4", "fp16"])
def test_every_kernel_of_the_runner_compiles_for_a_gpu_that_is_not_here(precision: str, tmp_path: Path) -> None:
    compile_for_a_gpu(COMPILE, precision, cache=tmp_path)
