"""Damaged, mislabelled and hostile model files: a clear error, nothing run, in little memory. S4-002, S4-004."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import random
import resource
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model.model_files import (
    F16,
    F32,
    Q8_0,
    random_tensors,
    spec_of,
    tensor_record,
    write_candle,
    write_rwkv_cpp,
    write_web_rwkv,
)  # fmt: skip
from safetensors.torch import save_file

from antiphon.errors import FileError
from antiphon.model.source import open_source
from antiphon.model.spec import ModelSpec, Version
from antiphon.model.tensor_file import open_tensors

SPEC = ModelSpec.of_width(n_layer=2, n_embd=32, vocab_size=5, head_size=16)
FLOATS = random_tensors(SPEC)
HALVES = random_tensors(SPEC, dtype=torch.float16)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """No test may have more than half a gigabyte of address space beyond what the process has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (512 << 20), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def as_pth(path: Path) -> Path:
    torch.save(FLOATS, path)
    return path


def as_safetensors(path: Path) -> Path:
    save_file(FLOATS, path)
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "pth": as_pth,
    "safetensors": as_safetensors,
    "candle": lambda path: write_candle(path, FLOATS),
    "web-rwkv": lambda path: write_web_rwkv(path, HALVES, Version.V7),
    "bin": lambda path: write_rwkv_cpp(path, FLOATS, SPEC),
    "bin Q8_0": lambda path: write_rwkv_cpp(path, FLOATS, SPEC, kind=Q8_0),
}


def read_all(path: Path) -> None:
    source = open_source(path)
    for name in source.shapes:
        source.read(name)


def refusal(path: Path) -> str:
    """What is said of a file that must be refused; the file is named."""
    with pytest.raises(FileError) as error:
        read_all(path)
    assert error.value.where == str(path)
    return f"{error.value.message} ({error.value.fix})"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    whole = KINDS[kind](tmp_path / "whole").read_bytes()
    path = tmp_path / "cut"
    for length in sorted({0, 1, 4, 8, 23, 24, 36, len(whole) - 1} | set(range(0, len(whole), len(whole) // 50))):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_is_an_error_or_another_number(tmp_path: Path, kind: str) -> None:
    """Most of them in the places that say what lies where."""
    whole = KINDS[kind](tmp_path / "whole").read_bytes()
    path = tmp_path / "changed"
    dice = random.Random(kind)
    understood = 0
    for _ in range(150):
        near = dice.choice((64, 4096, len(whole)))
        changed = bytearray(whole)
        for _ in range(dice.choice((1, 1, 1, 8))):
            at = dice.randrange(min(near, len(whole)))
            changed[at if dice.random() < 0.5 else -1 - at] = dice.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(FileError):
            read_all(path)
            understood += 1
    assert 0 < understood < 135


@pytest.mark.timeout(60)
def test_noise_behind_every_magic_number_is_refused(tmp_path: Path) -> None:
    dice = random.Random(3)
    for start in (b"PK\x03\x04", b"fmgg", b"fmgg\x65\0\0\0", b"", struct.pack("<Q", 40) + b"{", b"GGUF", b"\x80\x02"):
        for _ in range(30):
            (tmp_path / "m").write_bytes(start + dice.randbytes(dice.randrange(200)))
            refusal(tmp_path / "m")


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_decides_and_not_the_name(tmp_path: Path, kind: str) -> None:
    for suffix in ("pth", "st", "bin", "mid"):
        assert open_source(KINDS[kind](tmp_path / f"m.{suffix}")).spec == SPEC


def test_a_pth_that_is_called_safetensors_is_to_be_renamed(tmp_path: Path) -> None:
    """PyTorch's loader goes by that name."""
    assert "rename it to .pth" in refusal(as_pth(tmp_path / "m.safetensors"))


STRANGERS = {
    "a sentence": (b"MThd is not a model, nor is this sentence.", "not a safetensors file"),
    "llama.cpp's": (b"GGUF\x03\0\0\0" + bytes(64), "a GGUF file"),
    "an old pickle": (pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + bytes(64), "bare pickle"),
    "nothing": (b"", "cut short"),
    "seven bytes": (b"fmgg\x65\0\0", "cut short"),
}


@pytest.mark.parametrize(("content", "word"), STRANGERS.values(), ids=STRANGERS)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "m.pth").write_bytes(content)
    assert word in refusal(tmp_path / "m.pth")


class Called:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> Any:
        return self.called


class Storage:
    """Pickles as torch.save's reference to entry `key`, of `numel` numbers."""

    def __init__(self, key: str = "0", numel: int = 4, kind: Any = torch.FloatStorage) -> None:
        self.reference = ("storage", kind, key, "cpu", numel)


class Pickler(pickle.Pickler):
    def persistent_id(self, found: Any) -> Any:
        return found.reference if isinstance(found, Storage) else None


def tensor(storage: Storage, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Called:
    none: Any = collections.OrderedDict()
    return Called(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, none)


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def write_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def write_pth(path: Path, content: Any, **more: bytes) -> Path:
    data = {"m/data.pkl": content if isinstance(content, bytes) else pickled(content), "m/version": b"3\n"}
    return write_zip(path, data | {"m/byteorder": b"little", "m/data/0": bytes(4096)} | more)


def test_the_pickles_of_these_tests_would_be_read_if_they_meant_well(tmp_path: Path) -> None:
    content = {"emb.weight": tensor(Storage(), (2, 2), (2, 1))}
    assert "blocks.N" in refusal(write_pth(tmp_path / "m", content))


CODE = {
    "a shell": lambda mark: Called(os.system, f"touch {mark}"),
    "an expression": lambda mark: Called(eval, f"open({str(mark)!r}, 'w')"),
    "a name alone": lambda mark: b"\x80\x02cos\nsystem\n.",
    "code in a state_dict": lambda mark: {"state_dict": {"emb.weight": Called(os.mkdir, str(mark))}},
    "a whole module": lambda mark: torch.nn.Linear(2, 2),
    "a loader in a loader": lambda mark: Called(torch.load, str(mark)),
}


@pytest.mark.parametrize("made", CODE.values(), ids=CODE)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, made: Callable[[Path], Any]) -> None:
    """S4-004: never anything but the safe loader."""
    mark = tmp_path / "ran"
    said = refusal(write_pth(tmp_path / "m.pth", made(mark)))
    assert "its pickle calls" in said
    assert not mark.exists()
    content = made(mark)
    (tmp_path / "old.pth").write_bytes(content if isinstance(content, bytes) else pickled(content))
    assert "bare pickle" in refusal(tmp_path / "old.pth")
    assert not mark.exists()


HUGE = {
    "an array of 8 GB": (Called(bytearray, 1 << 33), "calls builtins.bytearray|calls __builtin__.bytearray"),
    "2^38 numbers": ({"a": tensor(Storage(), (1 << 38,), (1,))}, "cannot read|larger|promises"),
    "2^38 numbers in a storage that says so": (
        {"a": tensor(Storage(numel=1 << 38), (1 << 38,), (1,))},
        "cannot|larger",
    ),
    "one number 2^38 times": ({"a": tensor(Storage(), (1 << 19, 1 << 19), (0, 0))}, "larger"),
    "many views": ({str(i): tensor(Storage(numel=1024), (1024,), (1,)) for i in range(999)}, "promises"),
    "numbers before the beginning": ({"a": tensor(Storage(), (2,), (1,), -8)}, "cannot read"),
    "numbers behind the end": ({"a": tensor(Storage(), (2,), (1,), 1 << 40)}, "cannot read"),
    "a negative size": ({"a": tensor(Storage(), (-2,), (1,))}, "cannot read"),
    "a size that is text": ({"a": tensor(Storage(), ("2",), (1,))}, "cannot read"),  # type: ignore[arg-type]
    "a storage that is not there": ({"a": tensor(Storage("7"), (2,), (1,))}, "cannot read"),
    "whole numbers": ({"a": tensor(Storage(kind=torch.IntStorage), (2,), (1,))}, "of a type that no RWKV has"),
    "a list": ([1, 2, 3], "of type list"),
    "a number": ({"emb.weight": 7}, "emb.weight is no tensor, but of type int"),
    "numbers for names": ({7: tensor(Storage(), (2,), (1,))}, "a name that no tensor has"),
    "a name of a megabyte": ({"a" * (1 << 20): tensor(Storage(), (2,), (1,))}, "a name that no tensor has"),
    "a name that moves the cursor": ({"a\x1b[2J": tensor(Storage(), (2,), (1,))}, "a name that no tensor has"),
    "a heap of tables": ([{} for _ in range(1 << 18)], "more than 262144 steps"),
    "a strategy": ({"_strategy": "cuda fp16i8"}, "converted for one strategy"),
    "half a pickle": (pickled({"a": tensor(Storage(), (2,), (1,))})[:-20], "damaged"),
    "a newer pickle": (pickle.dumps({"a": 1}, protocol=5), "SHORT_BINUNICODE|FRAME"),
    "no pickle": (b"\xff" * 100, "damaged"),
    "nine megabytes": (pickled(["x" * (9 << 20)]), "far more than names of tensors need"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("content", "word"), HUGE.values(), ids=HUGE)
def test_a_pickle_that_promises_too_much_is_refused(tmp_path: Path, content: Any, word: str) -> None:
    said = refusal(write_pth(tmp_path / "m.pth", content))
    assert any(part in said for part in word.split("|")), said
    assert len(said) < 600


def zip_bomb(path: Path) -> Path:
    return write_zip(path, {"m/data.pkl": pickled({}), "m/data/0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)


def patched(name: bytes, at: int, value: bytes, *, where: bytes) -> Callable[[Path], Path]:
    """A .pth whose header of entry `name` (found by its signature `where`) holds `value` at byte `at`."""

    def write(path: Path) -> Path:
        content = bytearray(write_pth(path, {"a": tensor(Storage(), (2,), (1,))}).read_bytes())
        for start in range(len(content)):
            if content.startswith(where, start) and name in content[start : start + 80]:
                content[start + at : start + at + len(value)] = value
        path.write_bytes(content)
        return path

    return write


CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"
BIG, NONE = struct.pack("<I", 1 << 31), {"a": 1}
ZIPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a zip bomb": (zip_bomb, "is compressed"),
    "an entry larger than the file": (patched(b"data/0", 20, BIG + BIG, where=CENTRAL), "promise more"),
    "an encrypted entry": (patched(b"data/0", 8, b"\1\0", where=CENTRAL), "did not write"),
    "a directory of 2 GB": (patched(b"", 12, BIG, where=END), "directory"),
    "a directory elsewhere": (patched(b"", 16, BIG, where=END), "directory"),
    "another archive": (lambda path: write_zip(path, {"word/document.xml": b"<a/>"}), "did not write"),
    "an archive of nothing": (lambda path: write_zip(path, {}), "bare|not a safetensors|cut short"),
    "no pickle": (lambda path: write_zip(path, {"m/version": b"3"}), "no data.pkl"),
    "two folders": (lambda path: write_pth(path, NONE, **{"n/data/1": b"3"}), "not one folder"),
    "a path that leads out": (lambda path: write_pth(path, NONE, **{"../data/1": b"3"}), "did not write"),
    "code of TorchScript": (lambda path: write_pth(path, NONE, **{"m/code/a.py": b"3"}), "did not write"),
    "numbers the other way round": (lambda path: write_pth(path, NONE, **{"m/byteorder": b"big"}), "little-endian"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("write", "word"), ZIPS.values(), ids=ZIPS)
def test_a_zip_that_torch_save_did_not_write_is_refused(
    tmp_path: Path, write: Callable[[Path], Path], word: str
) -> None:
    said = refusal(write(tmp_path / "m.pth"))
    assert any(part in said for part in word.split("|")), said


def test_a_zip_of_the_large_kind_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 4 GB a zip's directory has another form; here already beyond 100 bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    path = write_pth(tmp_path / "m", {"x": tensor(Storage(), (2, 2), (2, 1))})
    monkeypatch.undo()
    assert b"PK\x06\x06" in path.read_bytes()
    assert open_tensors(path).read("x").tolist() == [[0, 0], [0, 0]]


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_pth(tmp_path / "m", {"a": tensor(Storage(), (2,), (1,))})
    with zipfile.ZipFile(tmp_path / "m", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("m/data/0", bytes(16))
    assert "not one folder" in refusal(tmp_path / "m")


def header(rows: int = 5, width: int = 32, layers: int = 2, kind: int = F32, version: int = 101) -> bytes:
    return struct.pack("<6I", 0x67676D66, version, rows, width, layers, kind)


BINS = {
    "2^64 numbers": (header() + tensor_record("emb.weight", (2**32 - 1,) * 2, F32, b""), "cut short"),
    "2^126 numbers": (header() + tensor_record("emb.weight", (2**32 - 1,) * 4, F16, b""), "cut short"),
    "2^31 axes": (header() + struct.pack("<3I", 1 << 31, 4, 0) + bytes(99), "2147483648 axes"),
    "a name of 2 GB": (header() + struct.pack("<3I", 1, 1 << 31, 0) + bytes(99), "its name of 2147483648 bytes"),
    "no axes": (header() + struct.pack("<3I", 0, 4, 0) + bytes(99), "0 axes"),
    "an empty axis": (header() + tensor_record("emb.weight", (0, 4), F32, b""), "shape"),
    "an unknown type": (header() + tensor_record("emb.weight", (1, 32), 40, bytes(99)), "unknown type: 40"),
    "a retired type": (header() + tensor_record("emb.weight", (1, 32), 4, bytes(99)), "no longer reads"),
    "blocks that do not fit": (header() + tensor_record("emb.weight", (1, 33), Q8_0, bytes(99)), "blocks of 32"),
    "another version": (header(version=102), "version 102"),
    "a name that is no text": (header() + tensor_record("x", (1,), F32, bytes(4)).replace(b"x", b"\xff"), "no text"),
    "a name twice": (header() + 2 * tensor_record("x", (1,), F32, bytes(4)), "there twice"),
    "another width": (header() + tensor_record("emb.weight", (5, 31), F32, bytes(620)), "header says [5, 32]"),
    "no tensors": (header(), "blocks.N"),
    "17,000 tensors": (
        header() + b"".join(tensor_record(str(i), (1,), F32, bytes(4)) for i in range(17_000)), "more than 16384"
    ),
}  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("content", "word"), BINS.values(), ids=BINS)
def test_a_bin_that_lies_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "m.bin").write_bytes(content)
    assert word in refusal(tmp_path / "m.bin")


@pytest.mark.parametrize(("version", "name"), [(Version.V4, "time_decay"), (Version.V5_0, "time_first")])
def test_a_number_that_no_exponential_gives_is_refused(tmp_path: Path, version: Version, name: str) -> None:
    spec = spec_of(version)
    path = write_rwkv_cpp(tmp_path / "m.bin", random_tensors(spec), spec)
    content = bytearray(path.read_bytes())
    at = content.index(f"blocks.1.att.{name}".encode()) + len(f"blocks.1.att.{name}")
    content[at : at + 4] = struct.pack("<f", 0.5 if version is Version.V4 else -0.5)
    path.write_bytes(content)
    assert f"blocks.1.att.{name} holds a number that is not" in refusal(path)


def test_nan_in_every_kind_of_file_is_refused(tmp_path: Path) -> None:
    for kind, write in KINDS.items():
        whole = bytearray(write(tmp_path / "m").read_bytes())
        last = FLOATS["ln_out.bias"].half().numpy().tobytes()
        at, nan = whole.find(last), struct.pack("<e", float("nan"))
        if at < 0:
            at, nan = whole.index(FLOATS["ln_out.bias"].numpy().tobytes()), struct.pack("<f", float("nan"))
        whole[at : at + len(nan)] = nan
        (tmp_path / "m").write_bytes(whole)
        assert "ln_out.bias holds a NaN" in refusal(tmp_path / "m"), kind


def test_what_is_missing_unknown_or_twice_is_named(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, torch.Tensor], str]] = [
        ({n: t for n, t in FLOATS.items() if n != "ln_out.bias"}, "tensor ln_out.bias is missing (1 in all)"),
        (FLOATS | {"blocks.1.att.extra": torch.zeros(3)}, "tensor blocks.1.att.extra is unknown in an RWKV-7"),
        (FLOATS | {"model.emb.weight": torch.zeros(5, 32)}, "emb.weight is there twice"),
        (FLOATS | {"blocks.1.ffn.s_emb.weight": torch.zeros(5, 32)}, "belongs to an RWKV-7a"),
        (FLOATS | {"blocks.1.ln1.bias": torch.zeros(31)}, "has shape [31], not [32]"),
        ({f"blocks.{i}.att.time_state": torch.zeros(2, 16, 16) for i in range(2)}, "a start state, not a model"),
        ({"blocks.0.att.key.lora_A": torch.zeros(4, 32)}, "an adapter, not a model: it holds blocks.0.att.key.lora_A"),
        ({"transformer.h.0.attn.weight": torch.zeros(5, 32)}, "no tensors named blocks.N.*"),
    ]
    for tensors, word in cases:
        torch.save(tensors, tmp_path / "m.pth")
        assert word in refusal(tmp_path / "m.pth")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("pipe", "not a file"), (".", "not a file"), ("nowhere", "no such file")):
        assert word in refusal(tmp_path / name)
