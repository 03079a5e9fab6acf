"""`antiphon models …` as its user meets it (S0-155…161, S2-060, S4-001…005, S4-020…031)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model.any_version import SPECS, random_weights
from safetensors.torch import load_file, save_file
from torch import Tensor

from antiphon.cli.main import main
from antiphon.library.bundled import BUNDLED
from antiphon.model import reference
from antiphon.model.source import open_source
from antiphon.model.spec import ModelSpec

SPEC = SPECS["7 wide"]


def models(*args: str | Path | float) -> int:
    return main(["models", *map(str, args)])


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    torch.save(random_weights(SPEC), tmp_path / "m.pth")
    return tmp_path / "m.pth"


def told(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def definition(weights: dict[str, Tensor], ids: list[int], spec: ModelSpec = SPEC) -> Tensor:
    return reference.sequence(spec, weights, torch.tensor(ids))[0][-1]


def test_a_file_is_inspected(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("inspect", pth) == 0
    out = capsys.readouterr().out
    for words in ("RWKV-7", "pth, matrices F32", f"{SPEC.parameters:,} parameters", "2 x 128", "2 of 64", "ABC"):
        assert words in out
    assert models("inspect", pth, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == SPEC.parameters
    assert found["memory_bytes"]["fp32"] == 4 * SPEC.parameters


def test_a_folder_is_inspected_and_what_is_no_model_told(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(random_weights(SPECS["4"]), pth.with_name("a.pth"))
    pth.with_name("x.bin").write_text("no model at all")
    assert models("inspect", pth.parent) == 0
    out, err = capsys.readouterr()
    assert [line.split(": ")[1].split()[0] for line in out.splitlines()] == ["RWKV-4", "RWKV-7"]
    assert re.match(r"antiphon: .*x\.bin: ", err)
    (pth.parent / "empty").mkdir()
    assert models("inspect", pth.parent / "empty") == 1


def test_a_model_is_converted_to_candles_files(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S4-001, S4-003, S4-005: with the options of its converter, and the sizes of the input."""
    prepared = pth.parent / "prepared"
    prepared.mkdir()
    dest, config = prepared / "model.safetensors", prepared / "c.json"
    assert models("convert", "--src", pth, "--dest", dest, "--config", config, "--to", "candle") == 0
    assert "RWKV-7, 2 layers x 128" in capsys.readouterr().out
    assert told(config)["hidden_size"] == 128
    assert "model.layers.1.attn.w_lora.lora.0.weight" in load_file(dest)
    config.unlink()
    dest.unlink()
    assert models("convert", pth, prepared, "--to", "candle") == 0
    assert sorted(path.name for path in prepared.iterdir()) == ["config.json", "model.safetensors"]
    assert models("convert", pth, prepared) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--quantize", "int4"], ["--quantize", "INT8"], ["--strategy", "cuda fp16i8"], ["--to", "web-rwkv"],
     ["--to", "rwkv.cpp", "--quantize", "Q5_1"], ["--to", "rwkv.cpp"], []],
)  # fmt: skip
def test_every_form_can_be_read_again(pth: Path, options: list[str]) -> None:
    out = pth.with_name("out")
    assert models("convert", pth, out, *options) == 0
    source = open_source(out)
    assert source.spec == SPEC
    weights = {name: source.read(name).float() for name in source.shapes}
    exact, found = definition(random_weights(SPEC), [1, 2, 3]), definition(weights, [1, 2, 3])
    assert float((exact - found).std() / exact.std()) < 0.4
    if "--strategy" in options or "INT8" in options:
        assert source.stored["head.weight"] == "INT8"


def test_a_conversion_that_makes_no_sense_is_refused(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, words in (
        (["convert", pth], "name a model and the file to write"),
        (["convert", pth, pth], "over itself"),
        (["convert", pth, pth.with_name("o"), "--quantize", "int3"], "there is no precision int3"),
        (["convert", pth, pth.with_name("o"), "--quantize", "int4", "--strategy", "cpu fp32"], "say the same"),
        (["convert", pth, pth.with_name("o"), "--strategy", "cpu fp32i3"], "three bits"),
        (["convert", pth.with_name("none"), pth.with_name("o")], "there is no such file"),
    ):
        assert models(*args) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in pth.parent.iterdir()] == ["m.pth"]


def test_verify_writes_what_the_definition_foretells(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pth.with_name("a")
    assert models("verify", pth, "--tokens", "1,2,3", "--out", out) == 0
    logits = np.fromfile(out / "final_logits.bin", "<f4")
    np.testing.assert_allclose(logits, definition(random_weights(SPEC), [1, 2, 3]).numpy(), rtol=0, atol=1e-5)
    assert np.fromfile(out / "final_probs.bin", "<f4").sum() == pytest.approx(1, abs=5e-4)
    assert told(out / "final_logits.json")["tokens"] == [1, 2, 3]
    assert f"likeliest {logits.argmax()}" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in SPECS if "wide" not in name])
def test_every_version_agrees_with_itself_in_every_float32_form(tmp_path: Path, name: str) -> None:
    torch.save(random_weights(SPECS[name]), tmp_path / "m.pth")
    models("convert", tmp_path / "m.pth", tmp_path / "m.safetensors")
    for file in ("m.pth", "m.safetensors"):
        assert models("verify", tmp_path / file, "--tokens", "5,1,7,28", "--out", tmp_path / f"of-{file}") == 0
    assert models("compare", tmp_path / "of-m.pth", tmp_path / "of-m.safetensors") == 0


def test_compare_passes_and_fails_by_its_exit_code(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_weights(SPEC)
    weights["blocks.1.att.r_k"][0, 5] += 0.01  # what comparing sums would not see
    save_file(weights, pth.with_name("other"))
    for file in ("m.pth", "other"):
        models("verify", pth.with_name(file), "--tokens", "4,5,6,7", "--out", pth.with_name(f"of-{file}"))
    a, b = pth.with_name("of-m.pth"), pth.with_name("of-other")
    capsys.readouterr()
    assert models("compare", a, b, "--json", pth.with_name("told.json")) == 1
    out = capsys.readouterr().out
    assert "they disagree: the limit is 1e-05" in out
    for words in ("Linf", "L1", "L2", "MSE", "MAE", "correlation", "KL(A", "KL(B", "likeliest 5 in common"):
        assert words in out
    figures = json.loads(pth.with_name("told.json").read_text())[0]
    assert 1e-5 < figures["deviation"] < 0.5
    assert not figures["passed"]
    assert models("compare", a, b, "--limit", figures["deviation"] * 1.01) == 0
    assert models("compare", a, a) == 0
    assert models("compare", a, b, "--limit", "0") == 2
    assert models("compare", a, pth.parent) == 2


def test_ten_prompts_are_verified_and_compared_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S4-020."""
    small = ModelSpec.of_width(n_layer=1, n_embd=32, vocab_size=7, head_size=16)
    pth, out = tmp_path / "m.pth", tmp_path / "full"
    torch.save(random_weights(small), pth)
    assert models("verify", pth, "--full", "--out", out) == 0
    folders = sorted(out.iterdir())
    lengths = [told(folder / "final_logits.json")["num_tokens"] for folder in folders]
    assert (len(lengths), min(lengths), max(lengths)) == (10, 1, 100)
    capsys.readouterr()
    assert models("compare", out, out) == 0
    assert capsys.readouterr().out.count("they agree") == 10
    torch.save(random_weights(small, seed=1), pth)
    models("verify", pth, "--full", "--out", pth.with_name("other"))
    assert models("compare", out, pth.with_name("other")) == 1


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "fp32") for name in ("4 wide", "5.0", "5.1", "5.2", "6", "7")),
     *(("7 wide", precision) for precision in ("fp16", "bf16", "int8", "int8-groups", "int4")),
     ("4 wide", "int4"), ("5.2", "int8"), ("6", "bf16")],
)  # fmt: skip
def test_the_engine_agrees_with_the_definition(tmp_path: Path, name: str, precision: str) -> None:
    """S4-022, S4-031, S4-040: within 1e-5 in fp32, and within what rounding costs in the others."""
    torch.save(random_weights(SPECS[name]), tmp_path / "m.pth")
    model, ids = tmp_path / "m.pth", "5,1,7,28,3,3,11"
    assert models("verify", model, "--tokens", ids, "--out", tmp_path / "a") == 0
    assert models("verify", model, "--tokens", ids, "--quantize", precision, "--out", tmp_path / "b") == 0
    found = told(tmp_path / "b" / "final_logits.json")
    assert (found["by"], found["device"], found["precision"]) == ("engine", "cpu", precision)
    assert models("compare", tmp_path / "a", tmp_path / "b") == 0


@pytest.mark.parametrize("to", ["int8", "int8-groups", "int4"])
def test_a_converted_file_gives_the_very_numbers_of_converting_at_load(pth: Path, to: str) -> None:
    made = pth.with_name("made")
    models("convert", pth, made, "--quantize", to)
    for file, folder in ((pth, "a"), (made, "b")):
        assert models("verify", file, "--tokens", "1,2,3", "--quantize", to, "--out", pth.with_name(folder)) == 0
    a, b = (np.fromfile(pth.with_name(folder) / "final_logits.bin", "<f4") for folder in "ab")
    if to == "int8":  # whose embedding is int8 in the file, and float at load
        np.testing.assert_allclose(a, b, rtol=0, atol=0.2 * a.std())
    else:
        np.testing.assert_array_equal(a, b)


def test_adapters_and_states_are_merged_at_load(pth: Path) -> None:
    """S0-087, S1-073: the engine with both beside the definition of the merged file."""
    name = "blocks.0.att.value"
    torch.save({f"{name}.disha": 0.3 * torch.randn(5, SPEC.n_embd)}, pth.with_name("bone.pth"))
    shape = (SPEC.n_head, SPEC.head_size, SPEC.head_size)
    torch.save({f"blocks.{i}.att.time_state": torch.randn(shape) for i in range(2)}, pth.with_name("state.pth"))
    both = ["--adapter", pth.with_name("bone.pth"), "--state", pth.with_name("state.pth")]
    merged, ids = pth.with_name("merged"), ["--tokens", "9,8,7"]
    assert models("merge", pth, merged, *both) == 0
    assert models("verify", merged, *ids, "--out", pth.with_name("a")) == 0
    assert models("verify", pth, *ids, *both, "--quantize", "fp32", "--out", pth.with_name("b")) == 0
    assert models("verify", pth, *ids, *both, "--out", pth.with_name("c")) == 0
    assert models("verify", pth, *ids, "--out", pth.with_name("without")) == 0
    assert models("compare", pth.with_name("a"), pth.with_name("b")) == 0
    assert models("compare", pth.with_name("a"), pth.with_name("c")) == 0
    assert models("compare", pth.with_name("a"), pth.with_name("without")) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--tokens", "1,x"], "are no ids"), (["--tokens", "100"], "id 100 is not in the vocabulary of 0 to 99"),
     (["--tokens", "-1"], "id -1 is not"), (["--tokens", "1", "--quantize", "int3"], "no precision int3")],
)  # fmt: skip
def test_ids_and_precisions_that_are_none_are_refused(
    pth: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models("verify", pth, *options, "--out", pth.with_name("a")) == 2
    assert words in capsys.readouterr().err
    assert not pth.with_name("a").exists()


def test_an_adapter_is_merged_in_any_form(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S0-161."""
    name = "blocks.1.ffn.key"
    out, inputs = SPEC.shapes()[f"{name}.weight"]
    a, b = torch.randn(4, inputs), torch.randn(out, 4)
    lora = pth.with_name("lora.pth")
    torch.save({f"model.{name}.lora_A": a, f"model.{name}.lora_B": b}, lora)
    merged = pth.with_name("merged")
    assert models("merge", pth, merged, "--adapter", lora) == 2
    assert "whose alpha is not in the file" in capsys.readouterr().err
    assert (
        models("merge", pth, merged, "--adapter", lora, "--alpha", "8", "--to", "rwkv.cpp", "--quantize", "fp32") == 0
    )
    base = random_weights(SPEC)
    source = open_source(merged)
    torch.testing.assert_close(source.read(f"{name}.weight"), base[f"{name}.weight"] + 2 * (b @ a))
    assert torch.equal(source.read("head.weight"), base["head.weight"])
    lora.with_suffix(".json").write_text('{"alpha": 8}')
    assert models("merge", pth, merged, "--adapter", lora, "--adapter", lora) == 0
    found = open_source(merged)
    torch.testing.assert_close(found.read(f"{name}.weight"), base[f"{name}.weight"] + 4 * (b @ a))
    assert found.metadata["adapters"] == "lora.pth + lora.pth"


@pytest.mark.parametrize("name", ["5.2", "7 wide"])
def test_a_start_state_is_merged_and_judged(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """S0-087."""
    spec = SPECS[name]
    torch.save(random_weights(spec), tmp_path / "m.pth")
    shape = (spec.n_head, spec.head_size, spec.head_size)
    states = {f"blocks.{i}.att.time_state": torch.randn(shape) for i in range(spec.n_layer)}
    torch.save(states, tmp_path / "state.pth")
    turned = {key: tensor.transpose(1, 2).contiguous() for key, tensor in states.items()}
    save_file(turned, tmp_path / "web.state")  # web-rwkv's way round
    torch.save(turned, tmp_path / "turned.pth")
    assert models("merge", tmp_path / "m.pth", tmp_path / "with", "--state", tmp_path / "state.pth") == 0
    for file, options in {
        "with": [], "m.pth": ["--state", tmp_path / "state.pth"], "x": ["--state", tmp_path / "web.state"],
        "y": ["--state", tmp_path / "turned.pth", "--transpose-state"],
    }.items():  # fmt: skip
        given = tmp_path / (file if file in ("with", "m.pth") else "m.pth")
        assert models("verify", given, "--tokens", "3,1,4,1,5", "--out", tmp_path / f"of-{file}", *options) == 0
        assert models("compare", tmp_path / "of-with", tmp_path / f"of-{file}") == 0
    assert re.search(r"nats an id: \d+\.\d+ with the state, \d+\.\d+ with its axes swapped", capsys.readouterr().out)
    assert models("verify", tmp_path / "m.pth", "--tokens", "3,1,4,1,5", "--out", tmp_path / "of-none") == 0
    assert models("compare", tmp_path / "of-with", tmp_path / "of-none") == 1


def test_a_merge_of_nothing_is_refused(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("merge", pth, pth.with_name("o")) == 2
    assert "nothing to merge" in capsys.readouterr().err


def test_the_memory_of_a_size_is_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("estimate", "0.1B") == 0
    assert "12 layers x 768, vocabulary 65,536: 191," in capsys.readouterr().out
    sizes = ["--layers", 6, "--width", 256, "--vocabulary", 512, "--batch", 4, "--context", 128, "--precision", "fp32"]
    assert models("estimate", *sizes, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total_gb"] > found["parameters_gb"] > 0
    for wrong, words in (
        ([], "say how large"), (["0.4B", "--layers", 6], "leave out --layers"),
        (["5B"], "5B is no published size"), (["--layers", 6], "go together"),
        (["--layers", 6, "--width", 100], "multiple of head_size"), (["0.1B", "--precision", "fp7"], "fp7"),
    ):  # fmt: skip
        assert models("estimate", *wrong) == 2
        assert words in capsys.readouterr().err


def test_the_bundled_model_has_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that takes a model takes it."""
    assert models("inspect", "bundled", "--json") == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(BUNDLED)
    assert models("convert", "bundled", tmp_path / "m.safetensors") == 0
    assert models("verify", "bundled", "--tokens", "1,2", "--out", tmp_path / "a") == 0
    assert models("verify", tmp_path / "m.safetensors", "--tokens", "1,2", "--out", tmp_path / "b") == 0
    assert models("compare", tmp_path / "a", tmp_path / "b") == 0
    assert models("merge", "bundled", tmp_path / "o", "--state", tmp_path / "m.safetensors") == 2
    assert "holds no start state" in capsys.readouterr().err


def test_what_a_file_or_its_path_says_is_shown_as_it_is(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = pth.parent / "[" / "b]"
    odd.mkdir(parents=True)
    spec = {"format": "x", "tokenizer": "[/odd]"}
    save_file({name: tensor.contiguous() for name, tensor in random_weights(SPEC).items()}, odd / "[i].st", spec)
    assert models("inspect", odd / "[i].st") == 0
    out = capsys.readouterr().out
    assert "[/odd]" in out
    assert "[i].st" in out
    for folder in ("[", "x"):
        assert models("verify", pth, "--tokens", "1", "--out", odd / folder) == 0
    assert models("compare", odd / "[", odd / "x") == 0


def test_options_that_would_do_nothing_and_figures_that_cannot_be_written_are_told(
    pth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, lora = pth.with_name("a"), pth.with_name("lora.pth")
    torch.save({"blocks.0.att.key.disha": torch.zeros(4, SPEC.n_embd)}, lora)
    assert models("verify", pth, "--tokens", "1", "--out", a) == 0
    for wrong, words in (
        (["compare", a, a, "--json", pth.with_name("none") / "f"], "f: cannot be written"),
        (["convert", pth, pth.with_name("o"), "--config", pth.with_name("c.json")], "no config.json"),
        (["verify", pth, "--tokens", "1", "--out", a, "--transpose-state"], "no start state to turn"),
        (["merge", pth, pth.with_name("o"), "--adapter", lora, "--transpose-state"], "no start state to turn"),
        (["verify", pth, "--tokens", "1", "--out", a, "--adapter", lora, "--alpha", "0"], "alpha is 0.0"),
    ):
        capsys.readouterr()
        assert models(*wrong) == 2
        assert words in capsys.readouterr().err.replace("\n", " ")
    assert not pth.with_name("o").exists()
    assert models("compare", a, a, "--json", a / "f") == 0
    assert told(a / "f")[0]["passed"] is True
