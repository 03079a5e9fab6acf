"""A session on disk goes on to the bit, in another process too; what is not this model's, or is damaged, is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from antiphon.engine.identity import Identity, differences
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampler import Drift, Penalties, Sampler, Style
from antiphon.engine.sampling import Sampling
from antiphon.engine.snapshot import Snapshot
from antiphon.engine.timeline import Timeline
from antiphon.errors import FileError
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import quantize_int8

STYLE = Style(
    sampling=Sampling(temperature=1.2, top_p=0.95, top_k=30, min_p=0.001),
    penalties=Penalties(presence=0.1, frequency=0.4, decay=0.98, light_below=9, light_weight=0.3),
    biases={4: -0.5, 17: 2.0},
    drift=Drift(token=0, first=-4.0, per_step=0.02),
    seed=2**63 + 5,
)

GO_ON = """
import sys
from pathlib import Path
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.snapshot import Snapshot

snapshot = Snapshot.read(Path(sys.argv[2]), LoadedModel.open(sys.argv[1]))
timeline, sampler = snapshot.timeline(), snapshot.sampler
for _ in range(30):
    token = timeline.draw(sampler.draw())
    sampler.take(token)
    timeline.feed([token])
    print(token)
print(timeline.count, timeline.state.tobytes().hex(), timeline.logits.tobytes().hex())
"""


def go_on(timeline: Timeline, sampler: Sampler, count: int) -> list[int]:
    ids = []
    for _ in range(count):
        ids.append(timeline.draw(sampler.draw()))
        sampler.take(ids[-1])
        timeline.feed(ids[-1:])
    return ids


def session(model: LoadedModel) -> tuple[Timeline, Sampler]:
    timeline, sampler = Timeline(model), Sampler(vocab_size=model.vocab_size, style=STYLE)
    timeline.feed([1, 2, 3])
    go_on(timeline, sampler, 40)
    return timeline, sampler


@pytest.fixture
def written(model: LoadedModel, tmp_path: Path) -> Path:
    Snapshot.of(*session(model)).write(tmp_path / "session.safetensors")
    return tmp_path / "session.safetensors"


def test_a_session_goes_on_to_the_bit_in_another_process(model: LoadedModel, model_file: Path, written: Path) -> None:
    """S0-087's state and more: bit-equal logits after snapshot and restart."""
    command = [sys.executable, "-c", GO_ON, str(model_file), str(written)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split("\n")
    timeline, sampler = session(model)
    assert [int(token) for token in said[:30]] == go_on(timeline, sampler, 30)
    count, state, logits = said[30].split()
    assert int(count) == timeline.count == 73
    assert bytes.fromhex(state) == timeline.state.tobytes()
    assert bytes.fromhex(logits) == timeline.logits.tobytes()


def test_what_is_kept_does_not_change_when_the_session_goes_on(model: LoadedModel, written: Path) -> None:
    timeline, sampler = session(model)
    snapshot = Snapshot.of(timeline, sampler)
    following = go_on(timeline, sampler, 10)
    for _ in range(2):
        assert snapshot.sampler is not None
        assert go_on(snapshot.timeline(), snapshot.sampler.fork(), 10) == following


def test_a_timeline_without_a_sampler_may_be_kept_and_an_empty_one_too(model: LoadedModel, tmp_path: Path) -> None:
    timeline = Timeline(model)
    for ids in ([], [4, 5, 6]):
        timeline.feed(ids)
        Snapshot.of(timeline).write(tmp_path / "one.safetensors")
        again = Snapshot.read(tmp_path / "one.safetensors", model)
        assert again.sampler is None
        assert again.count == len(ids)
        np.testing.assert_array_equal(again.timeline().state, timeline.state)
        np.testing.assert_array_equal(again.timeline().logits, timeline.logits)


def test_the_file_says_what_it_holds_and_only_its_owner_may_read_it(model: LoadedModel, written: Path) -> None:
    """Formats 2, last line: model hash, tokenizer, adapters, precision, L x 3 tensors, logits, counts, seed."""
    tensors = load_file(written)
    expected = {f"blocks.{layer}.{part}" for layer in range(2) for part in ("att_x", "wkv", "ffn_x")}
    assert set(tensors) == expected | {"logits", "sampler.counts"}
    assert tensors["blocks.1.wkv"].shape == (1, 64, 64)
    header = written.read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    about = json.loads(metadata["about"])
    assert len(about["model"]["model"]) == 64
    assert about["model"]["precision"] == "int8"
    assert about["model"]["adapters"] == []
    assert len(about["model"]["tokenizer"]) == 64
    assert about["sampler"]["seed"] == 2**63 + 5
    assert about["sampler"]["drawn"] == about["sampler"]["step"] == 40
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_snapshot_of_another_model_is_refused_with_its_reason(
    float_checkpoint: Checkpoint, written: Path, tmp_path: Path
) -> None:
    other = quantize_int8(float_checkpoint)
    other.tensors["blocks.0.att.x_r"] = other.tensors["blocks.0.att.x_r"] + 0.01
    checkpoints.write(tmp_path / "other.safetensors", other)
    with pytest.raises(FileError, match="another model file"):
        Snapshot.read(written, LoadedModel.open(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("here", "named"),
    [
        ({"model": "b"}, "another model file"),
        ({"precision": "int4"}, "int8, and this one is in int4"),
        ({"tokenizer": "u"}, "another tokenizer"),
        ({"adapters": ()}, "adapters a"),
        ({"adapters": ("a", "b")}, "this one has adapters a"),
        ({"start_state": ""}, "another start state"),
    ],
)
def test_every_difference_that_changes_numbers_is_named(here: dict[str, Any], named: str) -> None:
    kept: dict[str, Any] = {"model": "a", "precision": "int8", "tokenizer": "t", "adapters": ("a",), "start_state": "s"}
    assert differences(Identity(**kept), Identity(**kept)) == []
    assert named in "; ".join(differences(Identity(**kept), Identity(**kept | here)))


def test_a_model_file_that_was_exchanged_while_it_was_loaded_is_noticed(
    float_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "small.safetensors"
    checkpoints.write(path, quantize_int8(float_checkpoint))
    model = LoadedModel.open(path)
    other = quantize_int8(float_checkpoint)
    other.tensors["ln_out.bias"] = other.tensors["ln_out.bias"] + 1
    checkpoints.write(path, other)
    with pytest.raises(FileError, match="changed since it was loaded"):
        Snapshot.of(Timeline(model)).write(tmp_path / "session.safetensors")
    path.unlink()
    with pytest.raises(FileError, match="cannot be read"):
        Snapshot.of(Timeline(model)).write(tmp_path / "session.safetensors")


def edited(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Write the snapshot again after `change(tensors, about)`."""
    header = path.read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    tensors: dict[str, Any] = load_file(path)
    about = json.loads(metadata["about"])
    change(tensors, about)
    save_file(tensors, path, {"format": metadata["format"], "about": json.dumps(about)})


DAMAGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "no logits": (lambda tensors, about: tensors.pop("logits"), "logits is missing"),
    "no state": (lambda tensors, about: tensors.pop("blocks.1.wkv"), "wkv is missing"),
    "more": (lambda tensors, about: tensors.update(more=np.zeros(3, np.float32)), "more is unknown"),
    "shape": (lambda tensors, about: tensors.update(logits=np.zeros(50, np.float32)), "logits is F32"),
    "type": (lambda tensors, about: tensors.update(logits=np.zeros(51, np.float64)), "logits is F64"),
    "nan": (lambda tensors, about: tensors["blocks.0.wkv"].fill(np.nan), "NaN"),
    "counts": (lambda tensors, about: tensors["sampler.counts"].fill(-1), "sampler cannot be"),
    "no counts": (lambda tensors, about: tensors.pop("sampler.counts"), "sampler cannot be"),
    "count": (lambda tensors, about: about.update(count=-1), "how many ids"),
    "true": (lambda tensors, about: about.update(count=True), "how many ids"),
    "no model": (lambda tensors, about: about.pop("model"), "of which model"),
    "odd model": (lambda tensors, about: about["model"].update(precision=8), "of which model"),
    "seed": (lambda tensors, about: about["sampler"].update(seed=2**64), "sampler cannot be"),
    "seed text": (lambda tensors, about: about["sampler"].update(seed="x"), "sampler cannot be"),
    "drawn": (lambda tensors, about: about["sampler"].update(drawn=1.5), "sampler cannot be"),
    "temperature": (lambda tensors, about: about["sampler"]["sampling"].update(temperature=-1), "sampler cannot be"),
    "endless": (lambda tensors, about: about["sampler"]["sampling"].update(temperature=10**400), "sampler cannot be"),
    "field": (lambda tensors, about: about["sampler"]["penalties"].update(more=1), "sampler cannot be"),
    "bias": (lambda tensors, about: about["sampler"]["biases"].update({"99": 1.0}), "sampler cannot be"),
    "bias text": (lambda tensors, about: about["sampler"]["biases"].update({"3": "a"}), "sampler cannot be"),
    "sampler": (lambda tensors, about: about.update(sampler=[]), "sampler cannot be"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_by_name(model: LoadedModel, written: Path, damage: str) -> None:
    change, named = DAMAGES[damage]
    edited(written, change)
    with pytest.raises(FileError, match=named) as caught:
        Snapshot.read(written, model)
    assert str(written) in str(caught.value)


def test_a_file_cut_short_anywhere_or_far_too_large_is_refused(model: LoadedModel, written: Path) -> None:
    whole = written.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        written.write_bytes(whole[:size])
        with pytest.raises(FileError):
            Snapshot.read(written, model)
    with written.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on disk
    with pytest.raises(FileError, match="at most"):
        Snapshot.read(written, model)


def test_other_files_are_no_snapshots(model: LoadedModel, model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no snapshot"):
        Snapshot.read(model_file, model)
    with pytest.raises(FileError, match="no such file"):
        Snapshot.read(tmp_path / "nothing", model)
    (tmp_path / "deep").write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)
    with pytest.raises(FileError, match="JSON"):
        Snapshot.read(tmp_path / "deep", model)
