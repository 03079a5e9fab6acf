"""Drawing on a GPU gives the ids of the definition: temperature, top-k, top-p, min-p, masks, ties (S0-086)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_process import compile_for_a_gpu
from triton_here import DEVICE, WANTING, needs_triton

from antiphon_kernels.sample import reference

if WANTING is None:
    from antiphon_kernels.sample import triton_gpu

pytestmark = needs_triton

Logits = np.ndarray

SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 1.1, "top_k": 12, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 1.0, "top_k": 1000},
]


def drawn(logits: Logits, settings: dict[str, float], uniforms: list[float]) -> tuple[list[int], list[int]]:
    """What the kernel and what the definition draws from the same logits with each uniform number."""
    full = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, **settings}
    rows = torch.from_numpy(np.repeat(logits[None], len(uniforms), axis=0)).to(DEVICE)
    numbers = [
        [full["temperature"], full["top_k"], full["top_p"], full["min_p"], u, row] for row, u in enumerate(uniforms)
    ]
    fast = triton_gpu.sample(rows, torch.tensor(numbers, dtype=torch.float64, device=DEVICE)).tolist()
    wanted = [
        reference.sample(
            logits, None, temperature=full["temperature"], top_k=int(full["top_k"]), top_p=full["top_p"],
            min_p=full["min_p"], uniform=uniform,
        )
        for uniform in uniforms
    ]  # fmt: skip
    return fast, wanted


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_ids_are_those_of_the_definition(settings: dict[str, float]) -> None:
    logits = np.random.default_rng(0).normal(0, 2, 50).astype(np.float32)
    fast, wanted = drawn(logits, settings, [0.0, 0.31, 0.999999])
    assert fast == wanted


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_ties_go_to_the_lowest_ids(settings: dict[str, float]) -> None:
    logits = np.random.default_rng(1).integers(0, 3, 30).astype(np.float32)
    logits[4] = -0.0
    logits[7:12] = -np.inf
    fast, wanted = drawn(logits, settings, [0.05, 0.93])
    assert fast == wanted


def test_a_vocabulary_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_gpu, "_BLOCK", 16)
    logits = np.random.default_rng(2).normal(0, 2, 50).astype(np.float32)
    for settings in (SETTINGS[0], SETTINGS[1], SETTINGS[7]):
        fast, wanted = drawn(logits, settings, [0.1, 0.8])
        assert fast == wanted


def test_each_draw_has_its_own_settings_and_row() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1, (3, 20)).astype(np.float32)
    settings = torch.tensor(
        [[1.0, 3, 1.0, 0.0, 0.5, 2], [0.0, 0, 1.0, 0.0, 0.5, 0], [2.0, 0, 0.5, 0.0, 0.9, 2]], dtype=torch.float64
    )
    together = triton_gpu.sample(torch.from_numpy(logits).to(DEVICE), settings.to(DEVICE)).tolist()
    for draw in range(3):
        temperature, top_k, top_p, min_p, uniform, row = settings[draw].tolist()
        assert together[draw] == reference.sample(
            logits[int(row)], None, temperature=temperature, top_k=int(top_k), top_p=top_p, min_p=min_p, uniform=uniform
        )


@pytest.mark.parametrize(("worst", "message"), [(np.nan, "finite"), (np.inf, "finite"), (-np.inf, "mask")])
def test_what_cannot_be_drawn_from_is_refused(worst: float, message: str) -> None:
    logits = np.full(20, -np.inf, np.float32)
    logits[3] = worst
    rows = torch.from_numpy(logits[None]).to(DEVICE)
    settings = torch.tensor([[1.0, 0, 1.0, 0.0, 0.5, 0]], dtype=torch.float64, device=DEVICE)
    chosen = triton_gpu.sample(rows, settings).tolist()[0]
    with pytest.raises(ValueError, match=message):
        triton_gpu.refuse(chosen)
    with pytest.raises(ValueError, match=message):
        reference.sample(logits, None, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.5)


COMPILE = """
import gpu_compiler
import torch
from antiphon_kernels.sample import triton_gpu

for vocab in (500, 65536):
    triton_gpu.sample(torch.zeros(1, vocab), torch.zeros(1, 6, dtype=torch.float64))
assert len(gpu_compiler.compiled) == 2
"""


def test_the_kernel_compiles_for_a_gpu_that_is_not_here() -> None:
    compile_for_a_gpu(COMPILE)
