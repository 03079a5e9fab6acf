"""`antiphon bench decode | prefill | batch`: who races, and what is told (S3-052, S3-054)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli.main import main
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.init import initial_weights
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec

FEW = ["--rounds", "2", "--repeats", "2", "--tokens", "4", "--memory-mb", "2"]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    spec = ModelSpec.of_width(n_layer=1, n_embd=64, vocab_size=33)
    path = tmp_path / "tiny.safetensors"
    checkpoints.write(path, quantize_int8(Checkpoint(spec=spec, tensors=initial_weights(spec, seed=1))))
    return path


def told(tmp_path: Path, *command: str) -> Any:
    path = tmp_path / "told.json"
    assert main(["bench", *command, *FEW, "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_a_model_file_decodes_beside_pytorch_and_the_memory(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = told(tmp_path, "decode", "--model", str(model_file), "--threads", "1")
    assert figures["model"]["spec"]["n_layer"] == 1
    assert [row["role"] for row in figures["decode"]] == [
        "antiphon", "plain PyTorch", "memory, as much as a token reads", "memory, more than caches hold",
    ]  # fmt: skip
    ours, plain, cached, memory = figures["decode"]
    assert len(ours["figures"]) == 4
    assert ours["tokens_per_s"]["best"] >= ours["tokens_per_s"]["median"] > 0
    assert ours["gb_per_s"] == pytest.approx(ours["tokens_per_s"]["median"] * ours["bytes_per_token"] / 1e9, rel=1e-2)
    assert ours["share_of_memory"] == pytest.approx(ours["gb_per_s"] / memory["gb_per_s"]["best"], rel=1e-2)
    assert ours["share_of_cached_memory"] == pytest.approx(ours["gb_per_s"] / cached["gb_per_s"]["best"], rel=1e-2)
    faster = ours["tokens_per_s"]["median"] / plain["tokens_per_s"]["median"]
    assert plain["ours_is"]["median"] == pytest.approx(faster, rel=1e-2)
    assert figures["fork_us"] > 0
    shown = capsys.readouterr().out
    assert "tiny.safetensors" in shown
    assert "plain PyTorch" in shown
    assert "of memory" in shown


@pytest.mark.parametrize(("kind", "precision"), [("decode", "int4"), ("prefill", "int8")])
def test_random_weights_of_a_shape_race_a_peer_on_every_number_of_threads(
    kind: str, precision: str, tmp_path: Path
) -> None:
    test = {"n_prompt": 4 * (kind == "prefill"), "n_gen": 4 * (kind == "decode"), "samples_ts": [50.0, 70.0]}
    script = tmp_path / "llama-bench.py"
    script.write_text(f"import sys\nassert sys.argv[1:] in (['1', '4'], ['2', '4'])\nprint({json.dumps([test])!r})\n")
    peer = f"{sys.executable} {script} {{threads}} {{tokens}}"
    shape = ["--shape", "2x64x40", "--precision", precision]
    figures = told(tmp_path, kind, *shape, "--threads", "1", "2", "--peer", peer, "--no-pytorch")
    assert figures["precision"] == precision
    peers = [row for row in figures[kind] if row["role"] == "peer"]
    assert [row["threads"] for row in peers] == [1, 2]
    for row in peers:
        assert row["figures"] == [50.0, 70.0, 50.0, 70.0]
        ours = next(r for r in figures[kind] if (r["role"], r["threads"]) == ("antiphon", row["threads"]))
        assert row["ours_is"]["best"] == pytest.approx(ours["tokens_per_s"]["best"] / 70, rel=1e-2)


def test_a_batch_is_told_by_its_size(tmp_path: Path) -> None:
    figures = told(tmp_path, "batch", "--shape", "1x64x40", "--threads", "1", "--batch", "1", "3", "--no-pytorch")
    ours = [row for row in figures["batch"] if row["role"] == "antiphon"]
    assert [row["timelines"] for row in ours] == [1, 3]
    assert ours[0]["bytes_per_token"] > ours[1]["bytes_per_token"]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--rounds", "0"], "--rounds"),
        (["--repeats", "0"], "--repeats"),
        (["--tokens", "0"], "--tokens"),
        (["--threads", "0"], "--threads"),
        (["--shape", "6 by 256"], "--shape"),
        (["--shape", "2x100"], "--shape"),
        (["--device", "abacus"], "abacus"),
        (["--model", "/nonexistent.safetensors"], "no such model"),
        (["--shape", "1x64x40", "--peer", "true", "--peer-pattern", "("], "--peer-pattern"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "decode", *options]) == 2
    assert where in capsys.readouterr().err
