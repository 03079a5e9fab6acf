"""Memory that begins on a large page, is zero, and really lies on large pages where the system has them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from antiphon_kernels.large_pages import PAGE, zeros


@pytest.mark.parametrize("nbytes", [0, 8, PAGE, PAGE + 8])
def test_an_array_begins_on_a_page_and_holds_zeros(nbytes: int) -> None:
    array = zeros(nbytes, np.int64)
    assert array.dtype == np.int64
    assert array.nbytes == nbytes
    assert not array.any()
    if nbytes:
        assert array.ctypes.data % PAGE == 0
        array[:] = 7
        assert int(array.sum()) == 7 * array.size


def test_what_is_written_to_lies_on_large_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this system has no transparent huge pages")
    array = zeros(8 * PAGE, np.uint8)
    array[:] = 1
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    address = array.ctypes.data
    for region in regions:
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", region)
        if bounds and int(bounds[1], 16) <= address < int(bounds[2], 16):
            found = re.search(r"AnonHugePages:\s+(\d+) kB", region)
            assert found is not None
            assert int(found[1]) > 0
            return
    raise AssertionError("the array lies nowhere")
