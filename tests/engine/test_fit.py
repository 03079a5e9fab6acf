"""Whether a model fits, before it is loaded (S0-162)."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.engine.fit import BY_WORTH, Fit, fit_of, need_of, recommended, require_fit
from antiphon.engine.free_memory import Free, free_memory, free_on
from antiphon.engine.loaded import LoadedModel
from antiphon.errors import AntiphonError
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.init import initial_weights
from antiphon.model.precision import Precision
from antiphon.model.spec import ModelSpec, Version

GIB = 1 << 30
SMALL = ModelSpec.of_width(n_layer=12, n_embd=768, vocab_size=65536)
LARGE = ModelSpec.of_width(n_layer=24, n_embd=2048, vocab_size=65536)


def test_the_need_is_what_the_loaded_model_takes() -> None:
    spec = ModelSpec.of_width(n_layer=3, n_embd=256, vocab_size=1000)
    model = LoadedModel.of(Checkpoint(spec=spec, tensors=initial_weights(spec, seed=1), metadata={}))
    need = need_of(spec, Precision.INT8, device="cpu", timelines=5, embedding_bytes=1)
    assert need.weights == pytest.approx(model.runner.nbytes, rel=0.01)
    assert need.states == 5 * (model.state_bytes + 4 * model.vocab_size)
    assert need.total == need.weights + need.states + need.workspace


def test_smaller_precisions_need_less_and_a_float_needs_its_bytes() -> None:
    needs = [need_of(LARGE, precision, device="cpu").weights for precision in BY_WORTH]
    assert needs == sorted(needs, reverse=True)
    by = dict(zip(BY_WORTH, needs, strict=True))
    assert by[Precision.FP16] == by[Precision.BF16] == pytest.approx(2 * LARGE.parameters, rel=0.01)
    assert by[Precision.FP32] < 4 * LARGE.parameters  # the embedding stays as the file has it
    assert by[Precision.INT4] == pytest.approx(0.5625 * LARGE.parameters + 1.4375 * 65536 * 2048, rel=0.1)


@pytest.mark.parametrize("version", list(Version))
def test_every_version_is_counted(version: Version) -> None:
    spec = ModelSpec.of_width(n_layer=2, n_embd=512, vocab_size=300, version=version)
    assert need_of(spec, Precision.BF16, device="cpu").weights == pytest.approx(2 * spec.parameters, rel=0.1)
    assert need_of(spec, Precision.BF16, device="cpu", timelines=3).states == 3 * 4 * (spec.state_floats + 300)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    free = Free(nbytes=3 * GIB, limit="the memory of cuda:0")
    fit = fit_of(LARGE, Precision.FP16, device="cuda:0", free=free)
    assert not fit.fits
    assert fit.instead == (Precision.INT8_GROUPS, Precision.INT8, Precision.INT4)
    with pytest.raises(AntiphonError) as caught:
        require_fit(fit, where="large.pth")
    said = str(caught.value)
    assert "large.pth: in fp16 it needs 3." in said
    assert "3.00 GiB are free in the memory of cuda:0" in said
    assert "int8-groups or int8 or int4 would fit" in said
    require_fit(fit_of(LARGE, Precision.INT8, device="cuda:0", free=free), where="large.pth")


def test_where_nothing_fits_that_is_said() -> None:
    fit = fit_of(LARGE, Precision.INT4, device="cpu", free=Free(nbytes=1 << 20, limit="the machine's memory"))
    assert isinstance(fit, Fit)
    assert fit.instead == ()
    with pytest.raises(AntiphonError, match=r"1\.0 MiB are free.*smaller model"):
        require_fit(fit, where="large.pth")


def test_the_truest_precision_that_fits_is_recommended() -> None:
    def best(gib: float) -> Precision | None:
        return recommended(LARGE, device="cuda:0", free=Free(nbytes=int(gib * GIB), limit="it"))

    assert [best(gib) for gib in (8, 3, 1.9, 0.5)] == [Precision.BF16, Precision.INT8, Precision.INT4, None]
    assert need_of(SMALL, Precision.INT8, device="cpu").total < need_of(LARGE, Precision.INT8, device="cpu").total


# What is free: a machine made of files


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", "MemTotal:  16000000 kB\nMemFree: 100 kB\nMemAvailable:    8000000 kB\n")
    return tmp_path


def test_without_limits_the_machines_available_memory_is_free(root: Path) -> None:
    assert free_memory(root) == Free(nbytes=8000000 * 1024, limit="the machine's memory")


def test_the_tightest_control_group_on_the_way_up_limits(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/system.slice/antiphon.service\n")
    group = "sys/fs/cgroup/system.slice"
    write(root, f"{group}/antiphon.service/memory.max", "max\n")
    write(root, f"{group}/antiphon.service/memory.current", "1000\n")
    write(root, f"{group}/memory.max", f"{3 * GIB}\n")
    write(root, f"{group}/memory.current", f"{2 * GIB}\n")
    write(root, f"{group}/memory.stat", f"anon 5\ninactive_file {GIB // 2}\nfile 7\n")
    assert free_memory(root) == Free(nbytes=GIB + GIB // 2, limit="the limit of 3072 MiB on this service")


def test_the_first_kind_of_control_groups_counts_too(root: Path) -> None:
    write(root, "proc/self/cgroup", "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n0::/docker/x\n")
    group = "sys/fs/cgroup/memory/docker/x"
    write(root, f"{group}/memory.limit_in_bytes", str(2 * GIB))
    write(root, f"{group}/memory.usage_in_bytes", str(3 * GIB))
    write(root, f"{group}/memory.stat", f"total_inactive_file {GIB // 4}\n")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "5")
    assert free_memory(root).nbytes == 0
    write(root, f"{group}/memory.usage_in_bytes", str(GIB))
    assert free_memory(root).nbytes == GIB + GIB // 4


def test_in_a_container_the_mount_itself_is_the_group(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/../../outside\n")
    write(root, "sys/fs/cgroup/memory.max", str(GIB))
    write(root, "sys/fs/cgroup/memory.current", "0")
    assert free_memory(root).nbytes == GIB


@pytest.mark.parametrize("text", ["", "nonsense", "MemAvailable: many kB", "MemAvailable: 99999999999999999999999 kB"])
def test_where_the_system_tells_nothing_no_limit_is_known(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/meminfo", text)
    write(tmp_path, "proc/self/cgroup", text)
    assert free_memory(tmp_path).limit == "nothing that is known"


def test_this_machine_has_something_free() -> None:
    assert 0 < free_on("cpu").nbytes < 1 << 50
