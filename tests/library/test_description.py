"""A model file is described from its index alone (S0-155, S0-081)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model.any_version import SPECS, random_weights
from safetensors.torch import save_file

from antiphon.errors import FileError
from antiphon.library.bundled import BUNDLED
from antiphon.library.description import describe, fits_here, model_files, tokenizer_of, weight_bytes
from antiphon.model.convert import Form, convert
from antiphon.model.own_form import is_matrix
from antiphon.model.precision import Precision
from antiphon.model.source import open_source
from antiphon.model.spec import ModelSpec


@pytest.mark.parametrize("name", ["4", "5.0", "5.1", "5.2", "6", "7"])
def test_every_version_is_told_with_its_sizes(tmp_path: Path, name: str) -> None:
    torch.save(random_weights(SPECS[name], dtype=torch.bfloat16), tmp_path / "m.pth")
    found = describe(tmp_path / "m.pth")
    assert (found.spec, found.kind, found.stored) == (SPECS[name], "pth", ("BF16",))
    assert found.file_bytes == (tmp_path / "m.pth").stat().st_size
    assert found.state_bytes == 4 * SPECS[name].state_floats
    told = found.told()
    assert told["parameters"] == sum(tensor.numel() for tensor in random_weights(SPECS[name]).values())
    assert told["spec"]["version"] == name
    assert set(told["memory_bytes"]) == {precision.value for precision in Precision}


def test_the_bundled_model_says_what_it_is() -> None:
    found = describe(BUNDLED)
    assert (found.kind, found.size, found.tokenizer) == ("antiphon", "5.5M", "Antiphon's own")
    assert "INT8" in found.stored


@pytest.mark.parametrize("to", ["fp32", "int8", "int8-groups", "int4"])
@pytest.mark.parametrize("name", ["4", "5.2", "6 wide", "7 wide"])
def test_the_memory_told_is_that_of_the_converted_file(tmp_path: Path, name: str, to: str) -> None:
    """A quantized file keeps the rest in its own type, which the description takes for 16 bits in matrices."""
    weights = random_weights(SPECS[name])
    if to != "fp32":
        weights = {key: t.half() if is_matrix(key) else t for key, t in weights.items()}
    save_file(weights, tmp_path / "given")
    convert(open_source(tmp_path / "given"), tmp_path / "m", form=Form.SAFETENSORS, quantize=to)
    size = (tmp_path / "m").stat().st_size
    header = 8 + int.from_bytes((tmp_path / "m").read_bytes()[:8], "little")
    assert size - header == weight_bytes(SPECS[name], Precision(to))


def test_what_fits_here_is_the_truest_that_does() -> None:
    """S0-162."""
    assert fits_here(SPECS["7 wide"])["cpu"] == "bf16"
    assert fits_here(ModelSpec.of_width(n_layer=1000, n_embd=1 << 16, vocab_size=65536))["cpu"] == ""


@pytest.mark.parametrize(
    ("size", "guess"),
    [(128, "ABC"), (129, "REMI"), (2175, "REMI"), (2176, "MIDI, piano"), (20095, "MIDI, piano"), (20096, "MIDI, 13"),
     (50276, "MIDI, 13"), (50277, "20B"), (65535, "20B"), (65536, "World")],
)  # fmt: skip
def test_the_tokenizer_is_guessed_by_the_vocabulary(tmp_path: Path, size: int, guess: str) -> None:
    spec = ModelSpec.of_width(n_layer=1, n_embd=64, vocab_size=size)
    save_file({name: torch.zeros(shape) for name, shape in spec.shapes().items()}, tmp_path / "m")
    assert tokenizer_of(open_source(tmp_path / "m")).startswith(guess)


def test_a_folder_is_searched_by_names(tmp_path: Path) -> None:
    """S0-160: what models there are, without opening any."""
    for name in ("b/one.pth", "a.safetensors", "c.bin", "d.st", "e.txt", "b/f.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in model_files(tmp_path)]
    assert names == ["a.safetensors", "b/one.pth", "c.bin", "d.st"]
    with pytest.raises(FileError):
        describe(tmp_path / "c.bin")
