"""Devices by name, number and UUID; what PyTorch has code for (S0-163); several models on several devices."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from antiphon.engine.devices import Gpu, device_of, gpus, has_code_for
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.residents import Residents
from antiphon.engine.timeline import Timeline
from antiphon.errors import AntiphonError


def gpu(index: int, uuid: str, *, usable: bool = True) -> Gpu:
    return Gpu(index=index, name=f"card {index}", uuid=uuid, total_bytes=1 << 34, capability=(8, 6), usable=usable)


TWO = (gpu(0, "8932f937-d72c-4106-c12f-20bd9faed9f6"), gpu(1, "8932aa01-0000-4106-c12f-20bd9faed9f6"))


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", "cpu"),
        (" CPU ", "cpu"),
        ("cuda", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "cuda:0"),
        ("gpu-8932AA", "cuda:1"),
        ("8932aa01", "cuda:1"),
    ],
)
def test_a_device_is_found_by_name_number_or_uuid(text: str, device: str) -> None:
    assert device_of(text, TWO) == device


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cuda:2", r"no such GPU.*cuda:1 \(card 1"),
        ("GPU-ffffff", "no such GPU"),
        ("GPU-8932", "2 GPUs begin so"),
        ("GPU-893", "called that"),
        ("GPU-8932f9" + "f" * 40, "called that"),
        ("GPU-8932f937x", "called that"),
        ("tpu", "called that"),
        ("", "called that"),
        ("cuda:-1", "called that"),
        ("cuda:99999", "called that"),
    ],
)
def test_what_is_no_device_is_refused_with_what_there_is(text: str, named: str) -> None:
    with pytest.raises(AntiphonError, match=named):
        device_of(text, TWO)


def test_a_uuid_that_two_share_a_missing_gpu_and_one_without_code_are_refused() -> None:
    twins = (gpu(0, "8932f937-d72c"), gpu(1, "8932f937-aaaa"))
    with pytest.raises(AntiphonError, match="2 GPUs begin so"):
        device_of("GPU-8932f937", twins)
    with pytest.raises(AntiphonError, match="no GPU that CUDA can use"):
        device_of("cuda", ())
    assert device_of("cpu", ()) == "cpu"
    with pytest.raises(AntiphonError, match=r"no code for card 0 \(compute capability 8.6\)"):
        device_of("cuda:0", (gpu(0, "8932f937", usable=False),))


def test_code_runs_on_its_own_generation_and_ptx_on_later_ones() -> None:
    assert has_code_for((8, 6), ["sm_80", "sm_90"])
    assert has_code_for((8, 6), ["sm_86"])
    assert not has_code_for((8, 0), ["sm_86"])
    assert not has_code_for((9, 0), ["sm_80", "sm_86"])
    assert has_code_for((12, 0), ["sm_80", "compute_90"])
    assert has_code_for((9, 0), ["sm_90a"])
    assert has_code_for((10, 3), ["sm_100"])
    assert not has_code_for((7, 0), ["compute_75", "gfx90a"])


def test_the_gpus_of_this_machine_are_all_found_by_their_own_names() -> None:
    found = gpus()
    for one in found:
        if one.usable:
            assert device_of(one.device, found) == one.device
            assert device_of(f"GPU-{one.uuid}", found) == one.device


def test_models_live_side_by_side_and_each_device_has_one_worker(model_file: Path) -> None:
    with Residents() as residents:
        first, second = LoadedModel.open(model_file), LoadedModel.open(model_file)
        residents.add("one", first)
        residents.add("two", second)
        assert residents.models == {"one": first, "two": second}
        assert residents.worker_for("one") is residents.worker_for("two")
        workers = [residents.worker_for(name) for name in residents.models]
        names = {worker.submit(lambda: threading.current_thread().name).result() for worker in workers}
        assert names == {"model-cpu"}
        assert residents.worker_of("cuda:1") is not residents.worker_of("cpu")
        timelines = [Timeline(first), Timeline(second)]
        for timeline in timelines:
            timeline.feed([1, 2, 3])
        np.testing.assert_array_equal(timelines[0].logits, timelines[1].logits)
        with pytest.raises(ValueError, match="different models"):
            timelines[0].copy_from(timelines[1])
        with pytest.raises(AntiphonError, match="in memory already"):
            residents.add("one", second)
        with pytest.raises(RuntimeError, match="its own worker"):
            workers[1].submit(lambda: residents.drop("two")).result(60)
        residents.drop("two")
        assert set(residents.models) == {"one"}
        with pytest.raises(AntiphonError, match="no model of that name"):
            residents.drop("two")
    residents.close()
