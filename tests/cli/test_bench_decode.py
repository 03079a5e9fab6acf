from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiphon.cli.main import main
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.init import initial_weights
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    spec = ModelSpec.of_width(n_layer=1, n_embd=64, vocab_size=33)
    path = tmp_path / "tiny.safetensors"
    checkpoints.write(path, quantize_int8(Checkpoint(spec=spec, tensors=initial_weights(spec, seed=1))))
    return path


def test_tells_tokens_a_second_beside_plain_pytorch(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told.json"
    assert main(["bench", "decode", "--model", str(model_file), "--rounds", "2", "--json", str(told)]) == 0
    shown = capsys.readouterr().out
    assert "fast step" in shown
    assert "PyTorch step" in shown
    figures = json.loads(told.read_text())
    assert figures["model"]["spec"]["n_layer"] == 1
    assert [(entry["what"], entry["threads"]) for entry in figures["decode"]] == [
        ("fast step", 1),
        ("fast step", 2),
        ("PyTorch step", 1),
        ("PyTorch step", 2),
    ]
    for entry in figures["decode"]:
        assert len(entry["rounds"]) == 2
        assert entry["tokens_per_s"]["best"] >= entry["tokens_per_s"]["median"] > 0
        assert entry["us_per_token"] > 0
    assert figures["decode"][2]["times_pytorch"] == 1.0


def test_no_rounds_are_refused(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "decode", "--model", str(model_file), "--rounds", "0"]) == 2
    assert "--rounds" in capsys.readouterr().err
