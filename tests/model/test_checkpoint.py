"""A model file is whole and finite, or it is refused with a clear word; writing is all or nothing."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.small_models import SMALL, random_weights
from safetensors.torch import save_file
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.checkpoint import Checkpoint, read, sha256, write
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec, Version


def small_checkpoint(**metadata: str) -> Checkpoint:
    return Checkpoint(spec=SMALL, tensors=random_weights(), metadata=metadata)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    write(tmp_path / "whole.safetensors", small_checkpoint())
    return (tmp_path / "whole.safetensors").read_bytes()


def with_header(change: Callable[[dict[str, Any]], None], whole: bytes) -> bytes:
    """The file `whole` with its header changed."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]


@pytest.mark.parametrize("int8", [False, True])
def test_what_is_written_is_read_again_with_its_metadata(tmp_path: Path, int8: bool) -> None:
    given = small_checkpoint(tokenizer='{"kind": "x"}', licence="Ä ≤ 1")
    given = quantize_int8(given) if int8 else given
    write(tmp_path / "m.safetensors", given)
    found = read(tmp_path / "m.safetensors")
    assert found.spec == SMALL
    assert found.tensors.keys() == given.tensors.keys()
    for name, tensor in given.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert found.metadata == {
        **given.metadata,
        "format": "antiphon-rwkv7-int8" if int8 else "antiphon-rwkv7",
        "spec": SMALL.to_json(),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_rank_matrices_may_be_halves(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = random_weights()
    tensors = {name: t.to(dtype) if name[-2:] in ("w1", "w2", "g1", "g2") else t for name, t in tensors.items()}
    write(tmp_path / "m.safetensors", Checkpoint(spec=SMALL, tensors=tensors))
    assert read(tmp_path / "m.safetensors").tensors["blocks.0.att.w1"].dtype == dtype


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "cut.safetensors"
    (header,) = struct.unpack("<Q", whole[:8])
    offsets = {0, 1, 7, 8, 9, header, header + 7, header + 8, header + 9, len(whole) - 1}
    offsets |= set(range(10, len(whole), len(whole) // 60))
    for offset in sorted(offsets):
        path.write_bytes(whole[:offset])
        with pytest.raises(FileError, match=r"cut short|promises|not a safetensors"):
            read(path)


def test_more_bytes_than_promised_are_refused(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "long").write_bytes(whole + b"\0")
    with pytest.raises(FileError, match="promises"):
        read(tmp_path / "long")


NOT_ONE = "not a safetensors file"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a header of 2^40 bytes": (struct.pack("<Q", 2**40) + b"{}", NOT_ONE),
    "a header of 2^63 bytes": (struct.pack("<Q", 2**63) + b"{}", NOT_ONE),
    "zeros": (bytes(4096), NOT_ONE),
    "text": (b"MThd is not a model, nor is this sentence.", NOT_ONE),
    "a header that is a list": (struct.pack("<Q", 2) + b"[]", "not a table"),
    "a header nested a million deep": (struct.pack("<Q", 1_000_000) + b"[" * 1_000_000, "not JSON"),
    "no tensors": (struct.pack("<Q", 2) + b"{}", r"blocks\.N"),
    "metadata that is no text": (struct.pack("<Q", 26) + b'{"__metadata__": {"a": 1}} '[:26], "metadata"),
    "the first bytes of a zip": (b"PK\x03\x04" + bytes(100), "cut short"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("content", "word"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_model_is_refused_in_little_time_and_memory(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(FileError, match=word) as refusal:
        read(path)
    assert refusal.value.where == str(path)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_every_kind_of_file_is_read_whole(tmp_path: Path) -> None:
    """S1-070: a .pth of torch.save is read as the same model in safetensors is."""
    torch.save(random_weights(), tmp_path / "m.pth")
    found = read(tmp_path / "m.pth")
    assert found.spec == SMALL
    assert list(found.tensors) == list(SMALL.shapes())
    for name, tensor in random_weights().items():
        assert torch.equal(found.tensors[name], tensor)


def test_another_version_is_no_rwkv7(tmp_path: Path) -> None:
    spec = ModelSpec.of_width(version=Version.V4, n_layer=1, n_embd=32, vocab_size=5)
    torch.save({name: torch.ones(shape) for name, shape in spec.shapes().items()}, tmp_path / "m.pth")
    with pytest.raises(FileError, match="an RWKV-4, where an RWKV-7 is needed"):
        read(tmp_path / "m.pth")


def test_a_tensor_that_promises_2_to_the_40_bytes_is_refused(tmp_path: Path, whole: bytes) -> None:
    def promise(header: dict[str, Any]) -> None:
        start = header["head.weight"]["data_offsets"][0]
        header["head.weight"] |= {"shape": [2**38, 1], "data_offsets": [start, start + 2**40]}

    path = tmp_path / "promise"
    path.write_bytes(with_header(promise, whole))
    with pytest.raises(FileError, match="promises"):
        read(path)


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "another shape": ({"shape": [1, 1, 32]}, "another size"),
    "a negative axis": ({"shape": [-1, 1, -64]}, "no shape"),
    "a fractional axis": ({"shape": [1, 1, 64.0]}, "no shape"),
    "true for an axis": ({"shape": [True, 1, 64]}, "no shape"),
    "ten thousand huge axes": ({"shape": [2**62] * 10_000}, "a shape that no tensor has"),
    "an unknown type": ({"dtype": "F8_E4M3"}, "of a type"),
    "a type that is a list": ({"dtype": ["F32"]}, "of a type"),
    "offsets that go backward": ({"data_offsets": [256, 0]}, "another size"),
    "one offset": ({"data_offsets": [0]}, "another size"),
    "another tensor's bytes": ({"data_offsets": [0, 256]}, "overlap"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("change", "word"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused(tmp_path: Path, whole: bytes, change: dict[str, Any], word: str) -> None:
    path = tmp_path / "lie"
    path.write_bytes(with_header(lambda header: header["blocks.1.att.x_r"].update(change), whole))
    with pytest.raises(FileError, match=word):
        read(path)


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def replaced(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, tensor)


D = SMALL.n_embd
TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], None], str]] = {
    "no embedding": (without("emb.weight"), "emb.weight is missing"),
    "no norm": (without("blocks.2.ln2.bias"), "blocks.2.ln2.bias is missing"),
    "no value residual": (without("blocks.1.att.v1"), "blocks.1.att.v1 is missing"),
    "a layer left out": (replaced("blocks.4.ln1.bias", torch.zeros(D)), "is missing"),
    "one too many": (replaced("blocks.1.att.v3", torch.zeros(1, 1, D)), "blocks.1.att.v3 is unknown"),
    "a scale of nothing": (replaced("blocks.0.att.w9.scale", torch.zeros(D)), "unknown"),
    "a scale without int8": (replaced("head.weight.scale", torch.zeros(29)), "must be int8 with a scale"),
    "int8 without a scale": (replaced("head.weight", torch.zeros(29, D, dtype=torch.int8)), "must be int8"),
    "a mix of another width": (replaced("blocks.0.att.x_r", torch.zeros(1, 1, 2 * D)), "has shape"),
    "another width": (replaced("blocks.1.ffn.key.weight", torch.zeros(96, 32)), "has shape"),
    "an embedding without a width": (replaced("emb.weight", torch.zeros(29)), "has shape"),
    "heads that do not divide": (replaced("blocks.0.att.r_k", torch.zeros(3, 21)), "head_size"),
    "a hundred thousand layers": (replaced("blocks.99999.ln1.bias", torch.zeros(D)), "n_layer"),
    "a NaN": (replaced("ln_out.bias", torch.full((D,), torch.nan)), "NaN"),
    "an infinity": (replaced("blocks.0.att.k_k", torch.full((1, 1, D), -torch.inf)), "NaN or an infinity"),
}


@pytest.mark.parametrize(("change", "word"), TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_no_rwkv7_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], word: str
) -> None:
    tensors = random_weights()
    change(tensors)
    save_file(tensors, tmp_path / "m")
    with pytest.raises(FileError, match=word):
        read(tmp_path / "m")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("pipe", "not a file"), (".", "not a file"), ("nowhere", "no such file")):
        with pytest.raises(FileError, match=word):
            read(tmp_path / name)


def test_a_write_that_fails_leaves_the_old_model_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write(path, small_checkpoint(version="1"))
    before = path.read_bytes()
    broken = small_checkpoint()
    del broken.tensors["head.weight"]
    with pytest.raises(FileError, match=r"head\.weight is missing"):
        write(path, broken)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "nowhere" / "m.safetensors", small_checkpoint())
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "folder", small_checkpoint())
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_model_replaces_an_older_one_and_may_be_read_by_everyone(tmp_path: Path) -> None:
    """S0-160: known by its hash."""
    path = tmp_path / "m.safetensors"
    write(path, small_checkpoint(version="1"))
    first = sha256(path)
    write(path, small_checkpoint(version="2"))
    assert read(path).metadata["version"] == "2"
    assert sha256(path) != first
    assert len(first) == 64
    assert path.stat().st_mode & 0o777 == 0o644
