"""Every kernel that can be timed does what its definition says on what it is timed on (S3-050, S1-071, S0-086)."""

from __future__ import annotations

import pytest

from antiphon.engine.bench_case import Kernel, Load, timed
from antiphon.engine.bench_kernels import kernels
from antiphon.model.published import parsed

ELSEWHERE = {
    f"wkv7_{way}_{direction}" for way in ("pretrain", "statepass", "statetune") for direction in ("forward", "backward")
} | {"wkv7_infer_forward", "rapid_sample_forward"}
BOUNDS = {"sample": 0.0}
EVERY = kernels()


@pytest.mark.parametrize("kernel", EVERY, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("rows", [1, 19])
def test_a_kernel_is_as_near_to_its_definition_as_float32_allows(kernel: Kernel, rows: int) -> None:
    case = kernel.case(Load(spec=parsed("2x128x70"), rows=rows))
    case.call()
    assert case.difference() <= BOUNDS.get(kernel.name, 3e-6)
    case.plain()
    assert case.nbytes > 0
    assert case.operations > 0
    assert case.size


def test_every_kernel_benched_elsewhere_has_a_name_here() -> None:
    names = [name for kernel in EVERY for name in (kernel.name, *kernel.aliases)]
    assert set(names) >= ELSEWHERE
    assert len(names) == len(set(names))


def test_what_is_timed_is_called_and_told_as_often_as_asked() -> None:
    calls: list[int] = []
    figures = timed(lambda: calls.append(1), repeats=3)()
    assert len(figures) == 3
    assert min(figures) > 0
    assert len(calls) > 100
