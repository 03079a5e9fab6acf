"""What the interpreter runs, the compiler may still refuse: every launch of the runner, compiled for a GPU (S0-083)."""

from __future__ import annotations

import pytest
from gpu_process import compile_for_a_gpu
from triton_here import needs_triton

COMPILE = """
import sys
import gpu_compiler
import numpy as np
from held_tensors import HeldTensors
from antiphon.engine import gpu_operations, gpu_rwkv456, gpu_weights
from antiphon.engine.gpu_network import Part, Store
from antiphon.engine.gpu_rwkv456 import NetworkOld
from antiphon.engine.gpu_rwkv7 import Network7
from antiphon.model.precision import Precision
from antiphon.model.random_weights import random_weights
from antiphon.model.spec import ModelSpec, Version
import torch

precision, version = Precision(sys.argv[1]), Version(sys.argv[2])
spec = ModelSpec.of_width(n_layer=2, n_embd=128, vocab_size=192, version=version)
tensors = HeldTensors(spec=spec, tensors=random_weights(spec, seed=1), quantized={})
kind, load = (Network7, gpu_weights.load) if version is Version.V7 else (NetworkOld, gpu_rwkv456.load)
store = Store(4, spec.state_floats, spec.vocab_size, torch.device("cpu"))
weights = load(tensors, precision, torch.device("cpu"))
network = kind(weights, store, operations=gpu_operations.fast(spec.head_size))
for length in (1, 40):
    passage = network.begin([Part(slot=1, ids=np.zeros(length, np.int32), ends=True)])
    while passage.ahead is not None:
        passage.step()
kernels = {line.split()[0].rpartition(".")[2] for line in gpu_compiler.compiled}
assert kernels == {f"_{name.rstrip('45')}" for name in kind.uses(spec)}, kernels
"""


@needs_triton
@pytest.mark.parametrize(("precision", "version"), [("int4", "7"), ("fp16", "4"), ("bf16", "6")])
def test_every_kernel_of_the_runner_compiles_for_a_gpu_that_is_not_here(precision: str, version: str) -> None:
    compile_for_a_gpu(COMPILE, precision, version)
