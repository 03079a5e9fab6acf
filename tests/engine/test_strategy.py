"""Strategy strings of RWKV's own tools (S0-003, S0-083, S0-084)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.strategy import Part, Placement, parts_of, placement_of
from antiphon.errors import AntiphonError
from antiphon.model.precision import Precision


@pytest.mark.parametrize(
    ("text", "device", "precision"),
    [
        ("cpu fp32", "cpu", Precision.FP32),
        ("cuda fp16", "cuda", Precision.FP16),
        ("cuda:1 bf16", "cuda:1", Precision.BF16),
        ("cuda fp16i8", "cuda", Precision.INT8),
        ("cuda fp16*i8", "cuda", Precision.INT8),
        ("cuda fp16 *i8", "cuda", Precision.INT8),
        ("cuda fp16 i8", "cuda", Precision.INT8),
        ("cuda fp16*i4", "cuda", Precision.INT4),
        ("cpu fp32i8", "cpu", Precision.INT8),
        ("  CUDA   FP16I8  ", "cuda", Precision.INT8),
        ("cuda fp16i8 *10", "cuda", Precision.INT8),
        ("cuda fp16i8 * 10 -> cuda bf16i8", "cuda", Precision.INT8),
        ("cuda fp16i8*10->cuda fp16i8*20", "cuda", Precision.INT8),
    ],
)
def test_both_spellings_are_read_as_what_we_do(text: str, device: str, precision: Precision) -> None:
    assert placement_of(text) == Placement(device=device, precision=precision)


def test_every_part_of_the_grammar_is_read() -> None:
    assert parts_of("cuda fp16i8 *10 -> cuda:1 fp16 *5+ -> cpu fp32") == (
        Part(device="cuda", dtype="fp16", kept="i8", layers=10),
        Part(device="cuda:1", dtype="fp16", layers=5, streamed=True),
        Part(device="cpu", dtype="fp32"),
    )
    assert parts_of("webgpu fp16i4 layer32 chunk128") == (Part(device="webgpu", dtype="fp16", kept="i4"),)
    assert parts_of("mps fp32") == (Part(device="mps", dtype="fp32"),)
    assert parts_of("dml fp16i3 *2")[0].kept == "i3"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cuda fp16i8 *10 -> cpu fp32", "not divided between devices, here cuda and cpu.*'cuda fp16i8'"),
        ("cuda:0 fp16 -> cuda:1 fp16", "not divided between devices"),
        ("cuda fp16i8 *10 -> cuda fp16", "one precision, here int8 and fp16"),
        ("cuda fp16i8 *10+", "not streamed"),
        ("cuda fp16i3", "three bits"),
        ("mps fp32", "nothing runs on mps"),
        ("webgpu fp16", "nothing runs on webgpu"),
        ("dml fp16", "nothing runs on dml"),
        ("cpu:1 fp32", "no number"),
    ],
)
def test_what_we_do_not_do_is_refused_with_what_to_write(text: str, named: str) -> None:
    with pytest.raises(AntiphonError, match=named) as caught:
        placement_of(text)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("cuda fp16 ->", "empty"),
        ("cuda", "in which type"),
        ("tpu fp16", "no device is called 'tpu'"),
        ("cuda:x fp16", "no device"),
        ("cuda fp8", "no type is called 'fp8'"),
        ("cuda i8", "no device is called 'cudai8'|no type"),
        ("cuda fp16 layer3", "'layer3' cannot be understood"),
        ("cuda fp16 *3 *4", "cannot be understood"),
        ("cuda fp16 *99999", "cannot be understood"),
        ("cuda fp16 " * 500, "length"),
        ("->" * 70, "more than 64 parts"),
    ],
)
def test_what_is_no_strategy_is_refused_with_the_place(text: str, named: str) -> None:
    with pytest.raises(AntiphonError, match=named):
        parts_of(text)


@given(st.text(max_size=1200))
def test_any_text_is_a_strategy_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(AntiphonError):
        assert placement_of(text).device
