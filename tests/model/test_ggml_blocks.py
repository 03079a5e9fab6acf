"""Blocks of 32 numbers are rounded as ggml rounds them (S0-158, S1-076), and read again as what they stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from antiphon.model.ggml_blocks import BlockType, to_blocks
from antiphon.model.rwkv_cpp_file import from_blocks

Floats = npt.NDArray[np.float32]
KINDS = list(BlockType)
STEPS = {BlockType.Q4_0: 8, BlockType.Q4_1: 15, BlockType.Q5_0: 16, BlockType.Q5_1: 31, BlockType.Q8_0: 127}


def back(values: Floats, kind: BlockType) -> Floats:
    table = torch.from_numpy(to_blocks(values, kind)).view(-1, kind.block_bytes)
    return from_blocks(table, kind).view(values.shape).numpy()


def by_hand(x: list[float], kind: BlockType) -> bytes:
    """ggml's reference for one block, number by number."""

    def half(value: np.float32) -> bytes:
        return bytes(np.float16(value).tobytes())

    one = np.float32(1)
    values = [np.float32(value) for value in x]
    if kind is BlockType.Q8_0:
        step = max(abs(v) for v in values) / np.float32(127)
        inverse = one / step if step else np.float32(0)
        q = [int(np.trunc(v * inverse + np.copysign(np.float32(0.5), v))) for v in values]
        return half(step) + bytes(i & 255 for i in q)
    levels = 16 if kind in (BlockType.Q4_0, BlockType.Q4_1) else 32
    if kind in (BlockType.Q4_0, BlockType.Q5_0):
        extreme = values[int(np.argmax([abs(v) for v in values]))]
        step = extreme / np.float32(-(levels // 2))
        inverse = one / step if step else np.float32(0)
        q = [min(levels - 1, int(v * inverse + np.float32(levels // 2 + 0.5))) for v in values]
        start = half(step)
    else:
        least = min(values)
        step = (max(values) - least) / np.float32(levels - 1)
        inverse = one / step if step else np.float32(0)
        q = [min(levels - 1, int((v - least) * inverse + np.float32(0.5))) for v in values]
        start = half(step) + half(least)
    if levels == 32:
        start += sum((i >> 4) << place for place, i in enumerate(q)).to_bytes(4, "little")
    return start + bytes((q[j] & 15) | ((q[j + 16] & 15) << 4) for j in range(16))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_ggmls_own(kind: BlockType) -> None:
    rng = np.random.default_rng(3)
    values = (rng.standard_normal((5, 96)) * rng.uniform(0.01, 9, (5, 1))).astype(np.float32)
    values[4] = 0  # has no step
    values[3, :32] = 2.5  # has no spread
    found = to_blocks(values, kind)
    assert found.shape == (5, 3 * kind.block_bytes)
    expected = b"".join(by_hand(block.tolist(), kind) for block in values.reshape(-1, 32))
    assert found.tobytes() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_comes_back_within_a_step(kind: BlockType) -> None:
    values = np.random.default_rng(4).standard_normal((3, 64)).astype(np.float32)
    spread = np.abs(values.reshape(-1, 32)).max(1) if kind in (BlockType.Q4_0, BlockType.Q5_0, BlockType.Q8_0) else None
    if spread is None:
        spread = np.ptp(values.reshape(-1, 32), axis=1)
    error = np.abs(back(values, kind) - values).reshape(-1, 32)
    # Half a step, a whole one at the clipped end of the even types, and float16's rounding of the step.
    assert (error <= (spread / STEPS[kind])[:, None] * 1.02).all()
    assert error.max() > (spread / STEPS[kind]).min() / 4


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_divide_are_refused(kind: BlockType) -> None:
    with pytest.raises(ValueError, match="rows of 40 numbers"):
        to_blocks(np.zeros((2, 40), np.float32), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_beyond_float16_is_refused(kind: BlockType) -> None:
    values = np.full((1, 32), 1e9, np.float32)
    values[0, 0] = -1e9
    with pytest.raises(OverflowError):
        to_blocks(values, kind)
