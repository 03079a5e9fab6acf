"""Every form of every version is written so that it is the same model when it is read again (S0-156…159, S1-076,
S1-078, S4-001…004, S4-040)."""

from __future__ import annotations

import json
import os
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from model import model_files
from model.any_version import SMALL, SPECS, random_ids, random_weights
from safetensors.torch import load_file, save_file
from torch import Tensor

from antiphon.errors import AntiphonError, FileError
from antiphon.model import reference
from antiphon.model.convert import Form, convert
from antiphon.model.own_form import is_linear
from antiphon.model.precision import Precision, dequantize, quantize
from antiphon.model.rwkv_cpp_file import parts_of
from antiphon.model.source import Kind, OpenedSource, Source, open_source
from antiphon.model.spec import ModelSpec, Version

FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def model(
    folder: Path, name: str, *, dtype: torch.dtype = torch.float32, more: dict[str, Tensor] | None = None
) -> OpenedSource:
    """A model as its trainer leaves it."""
    torch.save({**random_weights(SPECS[name], dtype=dtype), **(more or {})}, folder / "given.pth")
    return open_source(folder / "given.pth")


def states_of(spec: ModelSpec) -> dict[str, Tensor]:
    shape = (spec.n_head, spec.head_size, spec.head_size)
    return {f"blocks.{i}.att.time_state": torch.randn(shape).half().float() for i in range(spec.n_layer)}


def same(found: Source, given: Source, *, but: str = "$^") -> None:
    """Every tensor is equal to the bit, except those whose names match `but`."""
    assert found.spec == given.spec
    for name in given.shapes:
        if re.search(but, name) is None:
            assert torch.equal(found.read(name).float(), given.read(name).float()), name


def logits_of(source: Source, *, ln_x_eps: float | None = None) -> Tensor:
    """What the definition foretells, with the file's own eps or another."""
    spec = source.spec
    weights = {name: source.read(name).float() for name in source.shapes}
    logits, _ = reference.sequence(spec, weights, random_ids(spec, 12), ln_x_eps=ln_x_eps or source.ln_x_eps)
    return logits


@pytest.mark.parametrize("dtype", list(FLOATS.values()))
@pytest.mark.parametrize("name", SMALL)
def test_the_official_form_is_the_file_itself(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    given = model(tmp_path, name, dtype=dtype)
    assert convert(given, tmp_path / "m.safetensors", form=Form.SAFETENSORS) == []
    found = open_source(tmp_path / "m.safetensors")
    same(found, given)
    assert found.dtypes == given.dtypes
    assert set(load_file(tmp_path / "m.safetensors")) == set(given.shapes)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("to", list(FLOATS))
@pytest.mark.parametrize("name", SMALL)
def test_a_float_precision_changes_the_matrices_and_leaves_the_vectors(tmp_path: Path, name: str, to: str) -> None:
    given = model(tmp_path, name)
    convert(given, tmp_path / "m", form=Form.SAFETENSORS, quantize=to)
    found = open_source(tmp_path / "m")
    for key in given.shapes:
        matrix = re.search(
            r"(emb|head|receptance|key|value|output|gate)\.weight$|\.([wavg]|time_(maa|decay)_w)[12]$", key
        )
        assert found.dtypes[key] == (FLOATS[to] if matrix else torch.float32)
        assert torch.equal(found.read(key), given.read(key).to(found.dtypes[key]))


@pytest.mark.parametrize("to", ["int8", "int8-groups", "int4"])
@pytest.mark.parametrize("name", ["4", "5.0", "5.1", "5.2", "6", "7", "7 wide"])
def test_whole_numbers_and_scales_are_read_as_they_were_made(tmp_path: Path, name: str, to: str) -> None:
    given = model(tmp_path, name)
    convert(given, tmp_path / "m", form=Form.SAFETENSORS, quantize=to)
    found = open_source(tmp_path / "m")
    assert found.spec == given.spec
    quantized = 0
    for key, shape in given.shapes.items():
        kept = found.read_quantized(key)
        if not (is_linear(key) or (key == "emb.weight" and to == "int8")):
            assert kept is None
            assert torch.equal(found.read(key), given.read(key))
            continue
        made = quantize(given.read(key), Precision(to))
        assert kept is not None
        assert torch.equal(kept[0], made.values)
        assert torch.equal(kept[1], made.scale)
        assert torch.equal(found.read(key), dequantize(made))
        by_group = to != "int8" and shape[1] % 32 == 0
        assert found.stored[key] == ("INT4" if to == "int4" and by_group else "INT8")
        quantized += 1
    assert quantized >= 6 * given.spec.n_layer
    assert found.kind is Kind.ANTIPHON


@pytest.mark.parametrize("to", ["int8", "int8-groups", "int4"])
def test_what_is_quantized_already_is_copied_and_not_rounded_again(tmp_path: Path, to: str) -> None:
    given = model(tmp_path, "7 wide")
    convert(given, tmp_path / "one", form=Form.SAFETENSORS, quantize=to)
    convert(open_source(tmp_path / "one"), tmp_path / "two", form=Form.SAFETENSORS, quantize=to)
    convert(open_source(tmp_path / "one"), tmp_path / "three", form=Form.SAFETENSORS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_whole_numbers_become_the_floats_they_stand_for(tmp_path: Path) -> None:
    given = model(tmp_path, "7 wide")
    convert(given, tmp_path / "int4", form=Form.SAFETENSORS, quantize="int4")
    int4 = open_source(tmp_path / "int4")
    for form, quantized in ((Form.SAFETENSORS, "fp32"), (Form.CANDLE, ""), (Form.RWKV_CPP, "fp32")):
        convert(int4, tmp_path / "back", form=form, quantize=quantized)
        same(open_source(tmp_path / "back"), int4)


@pytest.mark.parametrize("to", ["int8", "int8-groups", "int4"])
def test_each_precision_costs_what_its_bits_say(tmp_path: Path, to: str) -> None:
    given = model(tmp_path, "7 wide")
    convert(given, tmp_path / "m", form=Form.SAFETENSORS, quantize=to)
    exact, rounded = logits_of(given), logits_of(open_source(tmp_path / "m"))
    error = float((exact - rounded).std() / exact.std())
    low, high = {"int8": (1e-4, 0.05), "int8-groups": (1e-4, 0.05), "int4": (0.02, 0.4)}[to]
    assert low < error < high


@pytest.mark.parametrize("name", ["7", "7 wide"])
def test_candles_form_is_as_its_own_converter_writes_it(tmp_path: Path, name: str) -> None:
    given = model(tmp_path, name)
    assert convert(given, tmp_path / "m.safetensors", form=Form.CANDLE) == []
    found, spec = load_file(tmp_path / "m.safetensors"), given.spec
    expected = load_file(model_files.write_candle(tmp_path / "other", random_weights(spec)))
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype is torch.float32
        assert torch.equal(found[key], tensor), key
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "vocab_size": spec.vocab_size, "hidden_size": spec.n_embd, "num_hidden_layers": spec.n_layer,
        "head_dim": spec.head_size, "intermediate_size": spec.ffn_dim, "a_low_rank_dim": spec.iclr_rank,
        "decay_low_rank_dim": spec.decay_rank, "v_low_rank_dim": spec.value_rank,
        "gate_low_rank_dim": spec.gate_rank, "norm_eps": 1e-5,
    }  # fmt: skip
    same(open_source(tmp_path / "m.safetensors"), given)


def test_candle_knows_no_other_version(tmp_path: Path) -> None:
    for name in SMALL[:-1]:
        with pytest.raises(FileError, match="the candle form knows RWKV-7 only"):
            convert(model(tmp_path, name), tmp_path / "m", form=Form.CANDLE)
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", SMALL)
def test_web_rwkvs_form_is_as_its_own_converter_writes_it(tmp_path: Path, name: str) -> None:
    given = model(tmp_path, name, dtype=torch.float16)
    version = given.spec.version
    convert(given, tmp_path / "m.st", form=Form.WEB_RWKV)
    found = load_file(tmp_path / "m.st")
    weights = random_weights(SPECS[name], dtype=torch.float16)
    expected = load_file(model_files.write_web_rwkv(tmp_path / "other", weights, version))
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype is torch.float16
        assert torch.equal(found[key], tensor), key
    again = open_source(tmp_path / "m.st")
    if version is Version.V5_1:
        assert again.spec.version is Version.V5_2
        torch.testing.assert_close(logits_of(again), logits_of(given))
    else:
        same(again, given)


def test_numbers_beyond_float16_are_refused_by_name(tmp_path: Path) -> None:
    weights = random_weights(SPECS["7"])
    weights["blocks.1.ffn.key.weight"][3, 4] = 70_000
    save_file(weights, tmp_path / "given")
    (tmp_path / "m").write_text("before")
    for form, to in ((Form.WEB_RWKV, ""), (Form.RWKV_CPP, "fp16"), (Form.SAFETENSORS, "fp16")):
        with pytest.raises(FileError, match=r"blocks\.1\.ffn\.key\.weight holds numbers that float16 cannot"):
            convert(open_source(tmp_path / "given"), tmp_path / "m", form=form, quantize=to)
    assert (tmp_path / "m").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "m"]


THROUGH_AN_EXPONENTIAL = {"4": "time_decay$", "5.0": "time_(decay|first)$", "5.2": "time_decay$"}


@pytest.mark.parametrize("name", SMALL)
def test_rwkv_cpps_form_is_as_its_own_converter_writes_it(tmp_path: Path, name: str) -> None:
    given = model(tmp_path, name)
    spec, weights = given.spec, random_weights(SPECS[name])
    convert(given, tmp_path / "m.bin", form=Form.RWKV_CPP, quantize="fp32")
    again, found = open_source(tmp_path / "m.bin"), parts_of(tmp_path / "m.bin")
    if spec.version is Version.V5_1:  # for which it has no form: it becomes a 5.2 that does the same
        assert again.spec.version is Version.V5_2
        torch.testing.assert_close(logits_of(again), logits_of(given, ln_x_eps=1e-5), rtol=0, atol=1e-4)
        return
    late = {key: weights.pop(key) for key in list(weights) if spec.version is Version.V6 and key.endswith("_decay")}
    expected = model_files.rwkv_cpp_tensors(weights, spec.version)
    expected |= {key: tensor.view(spec.n_head, -1, 1) for key, tensor in late.items()}
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].shape == tuple(tensor.shape), key
        torch.testing.assert_close(found[key].read(), tensor, rtol=2e-7, atol=0)
    same(again, given, but=THROUGH_AN_EXPONENTIAL.get(spec.version, "$^"))
    torch.testing.assert_close(logits_of(again), logits_of(given, ln_x_eps=again.ln_x_eps), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_rwkv_cpp_fp16_halves_matrices_alone(tmp_path: Path, name: str) -> None:
    given = model(tmp_path, name)
    convert(given, tmp_path / "m.bin", form=Form.RWKV_CPP)
    for key, part in parts_of(tmp_path / "m.bin").items():
        last = key.rpartition(".")[2]
        wide = (
            len(part.shape) == 1
            or "time_" in last
            or last in ("x_rwkvag", "x_k", "k_k", "k_a", "r_k", "w0", "a0", "v0")
        )
        assert part.stored == ("F32" if wide else "F16"), key
    assert int.from_bytes((tmp_path / "m.bin").read_bytes()[20:24], "little") == 1


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("name", ["4 wide", "5.0", "5.1", "5.2", "6", "7 wide"])
def test_rwkv_cpps_blocks_hold_the_layers_matrices(tmp_path: Path, name: str, kind: str) -> None:
    given = model(tmp_path, name)
    convert(given, tmp_path / "m.bin", form=Form.RWKV_CPP, quantize=kind.lower())
    found = open_source(tmp_path / "m.bin")
    step = {"Q4_0": 1 / 8, "Q4_1": 2 / 15, "Q5_0": 1 / 16, "Q5_1": 2 / 31, "Q8_0": 1 / 127}[kind]
    blocks = 0
    for key, shape in given.shapes.items():
        divides = is_linear(key) and key != "head.weight" and shape[1] % 32 == 0
        assert (found.stored[key] == kind) == divides, key
        if divides:
            exact = given.read(key)
            error = (found.read(key) - exact).abs().view(-1, 32).amax(1)
            assert (error <= exact.abs().view(-1, 32).amax(1) * step * 1.02).all(), key
            blocks += 1
    assert blocks >= (6 * given.spec.n_layer if "wide" in name else 0)
    assert found.spec.n_layer == given.spec.n_layer


@pytest.mark.parametrize("form", [Form.SAFETENSORS, Form.WEB_RWKV])
@pytest.mark.parametrize("name", ["5.2", "6", "7"])
def test_a_start_state_comes_along(tmp_path: Path, name: str, form: Form) -> None:
    states = states_of(SPECS[name])
    given = model(tmp_path, name, dtype=torch.float16, more=states)
    assert convert(given, tmp_path / "m", form=form) == []
    found = open_source(tmp_path / "m")
    assert found.start_state_names == tuple(states)
    for key, tensor in states.items():
        assert torch.equal(found.read(key).float(), tensor)


def test_what_a_form_cannot_say_is_told(tmp_path: Path) -> None:
    spec = SPECS["7"]
    with_state = model(tmp_path, "7", more=states_of(spec))
    assert "start state is left out" in convert(with_state, tmp_path / "m", form=Form.CANDLE)[0]
    convert(model(tmp_path, "7"), tmp_path / "p", form=Form.SAFETENSORS)
    save_file(load_file(tmp_path / "p"), tmp_path / "named", {"format": "antiphon-rwkv7", "tokenizer": "{}"})
    for form in Form:
        lost = convert(open_source(tmp_path / "named"), tmp_path / "m", form=form)
        assert ["tokenizer is left out" in word for word in lost] == [True] * (form is not Form.SAFETENSORS)
    fifth = model(tmp_path, "5.2")
    assert "1e-5, not the 64e-5" in convert(fifth, tmp_path / "m.bin", form=Form.RWKV_CPP)[0]
    # The other way round our own form remembers it.
    assert convert(open_source(tmp_path / "m.bin"), tmp_path / "n", form=Form.SAFETENSORS) == []
    assert open_source(tmp_path / "n").ln_x_eps == 1e-5
    torch.testing.assert_close(logits_of(open_source(tmp_path / "n")), logits_of(open_source(tmp_path / "m.bin")))


@pytest.mark.parametrize(
    ("form", "to", "message"),
    [(Form.SAFETENSORS, "q8_0", "no precision q8_0"), (Form.CANDLE, "int8", "candle form is fp32"),
     (Form.WEB_RWKV, "int4", "web-rwkv form is fp16"), (Form.RWKV_CPP, "bf16", "rwkv.cpp has no type bf16")],
)  # fmt: skip
def test_a_precision_that_a_form_lacks_is_refused(tmp_path: Path, form: Form, to: str, message: str) -> None:
    with pytest.raises(AntiphonError, match=message):
        convert(model(tmp_path, "7"), tmp_path / "m", form=form, quantize=to)


def test_a_file_is_never_written_over_itself(tmp_path: Path) -> None:
    given = model(tmp_path, "7")
    (tmp_path / "link").symlink_to(tmp_path / "given.pth")
    with pytest.raises(FileError, match="over itself"):
        convert(given, tmp_path / "link", form=Form.SAFETENSORS)
    same(open_source(tmp_path / "given.pth"), given)


class Watched:
    """A source that knows how many of the tensors it gave out are still held, and can fail at one of them."""

    def __init__(self, source: OpenedSource, *, fail_at: str = "") -> None:
        self._source, self._fail_at = source, fail_at
        self._given: list[weakref.ref[Tensor]] = []
        self.most = 0
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, name: str) -> Tensor:
        if name == self._fail_at:
            raise FileError("the disk is gone", where=name)
        tensor = self._source.read(name).clone()
        self._given.append(weakref.ref(tensor))
        self.reads += 1
        self.most = max(self.most, sum(ref() is not None for ref in self._given))
        return tensor


@pytest.mark.parametrize(
    ("form", "to"),
    [(Form.SAFETENSORS, ""), (Form.SAFETENSORS, "int4"), (Form.CANDLE, ""), (Form.WEB_RWKV, ""),
     (Form.RWKV_CPP, "q8_0")],
)  # fmt: skip
def test_tensors_are_read_once_and_let_go(tmp_path: Path, form: Form, to: str) -> None:
    """Six mixes of an RWKV-7 make one tensor of rwkv.cpp's; nothing else is held together."""
    watched = Watched(model(tmp_path, "7"))
    convert(watched, tmp_path / "m", form=form, quantize=to)
    assert watched.reads == len(SPECS["7"].shapes())
    assert watched.most <= (7 if form is Form.RWKV_CPP else 2)


@pytest.mark.parametrize("form", list(Form))
def test_a_failure_leaves_what_was_there(tmp_path: Path, form: Form) -> None:
    (tmp_path / "m").write_text("before")
    watched = Watched(model(tmp_path, "7"), fail_at="head.weight")
    with pytest.raises(FileError, match="the disk is gone"):
        convert(watched, tmp_path / "m", form=form)
    assert (tmp_path / "m").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.pth", "m"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written: No such file or directory"):
        convert(model(tmp_path, "7"), tmp_path / "none" / "m", form=Form.SAFETENSORS)


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    """A pipe or a device would be replaced by a file."""
    torch.save(random_weights(SPECS["7 wide"]), tmp_path / "m.pth")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="no file"):
        convert(open_source(tmp_path / "m.pth"), tmp_path / "pipe", form=Form.SAFETENSORS)
    assert (tmp_path / "pipe").is_fifo()
