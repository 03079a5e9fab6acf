"""What becomes of a step's threads when it is interrupted, goes wrong on one of them, or is dropped."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
from kernels.random_tensors import Shape, random_tensors

from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.program import numba_cpu, rwkv7
from antiphon_kernels.program.crew import Crew
from antiphon_kernels.program.given import Given
from antiphon_kernels.program.hot import Step
from antiphon_kernels.program.ops import Program
from antiphon_kernels.program.slab import Segment, Slab

VOCAB = 33


@pytest.fixture(scope="module")
def program() -> Program:
    tensors = random_tensors(Shape(layers=1, width=64, heads=1, vocab=VOCAB, ffn=224))
    return rwkv7.build(Given(tensors), interleave=vnni_bits() > 0)


def memory(program: Program) -> tuple[Any, Any]:
    return np.zeros(program.state_len, np.float32), np.zeros(VOCAB, np.float32)


def interrupted(call: Callable[[], None], function: Callable[..., None], line: int) -> bool:
    """Run `call` with Ctrl-C before the `line`-th line that `function` runs; gives whether it has as many."""
    left = line

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code is not function.__code__:
            return None
        if event == "line":
            if left == 0:
                left = -1
                raise KeyboardInterrupt
            left -= left > 0
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def ended(name: str) -> bool:
    """Whether all threads of that name are gone, or go within some seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not [thread for thread in threading.enumerate() if thread.name.startswith(name)]:
            return True
        time.sleep(0.005)
    return False


def test_an_interrupt_anywhere_in_a_step_leaves_no_thread_waiting_and_the_next_step_is_right(program: Program) -> None:
    expected, line, found = memory(program), 0, True
    Step(program).run(5, *(array.ctypes.data for array in expected))
    step = Step(program, threads=3)
    while found:
        lost, kept = memory(program), memory(program)
        if line % 3 == 0:
            time.sleep(0.005)  # the others are asleep
        found = interrupted(lambda lost=lost: step.run(4, *(a.ctypes.data for a in lost)), Step.run, line)  # type: ignore[misc]
        step.run(5, *(array.ctypes.data for array in kept))
        for one, other in zip(kept, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        line += 1
    assert line > 5
    step.close()
    assert ended("step-")


def test_an_interrupt_anywhere_in_a_crews_job_leaves_no_thread_waiting_and_the_next_job_is_right(
    program: Program,
) -> None:
    ids = np.arange(9, dtype=np.int32)

    def slab(into: tuple[Any, Any]) -> Slab:
        return Slab(program, [Segment(state=into[0], logits=into[1], ids=ids)], threads=3)

    expected, line, found = memory(program), 0, True
    slab(expected).run()
    crew = Crew(3)
    while found:
        lost, kept = memory(program), memory(program)
        found = interrupted(lambda lost=lost: slab(lost).run(crew=crew), Crew.run, line)  # type: ignore[misc]
        slab(kept).run(crew=crew)
        for one, other in zip(kept, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        line += 1
    assert line > 10
    crew.close()
    assert ended("crew-")


def test_a_thread_that_raised_is_not_waited_for() -> None:
    crew, free = Crew(3), threading.Event()

    def job(thread: int) -> None:
        if thread == 1:
            raise ValueError("thread one")
        assert free.wait(timeout=20)

    with pytest.raises(ValueError, match="thread one"):
        crew.run(job, let_go=free.set)
    crew.close()


def test_what_others_raised_beside_the_caller_does_not_come_with_the_next_job() -> None:
    crew = Crew(2)
    done: list[int] = []

    def job(thread: int) -> None:
        raise ValueError(f"thread {thread}")

    with pytest.raises(ValueError, match="thread 0"):
        crew.run(job)
    crew.run(done.append)
    assert sorted(done) == [0, 1]
    crew.close()


def test_threads_end_with_a_step_or_a_crew_that_is_dropped(program: Program) -> None:
    """The weights, too, go with the runner that holds them, closed or not."""
    step, crew, (state, logits) = Step(program, threads=3), Crew(3), memory(program)
    step.run(5, state.ctypes.data, logits.ctypes.data)
    crew.run(lambda _: None)
    left = weakref.ref(step), weakref.ref(crew)
    del step, crew
    gc.collect()
    assert ended("step-")
    assert ended("crew-")
    assert [one() for one in left] == [None, None]


def test_every_thread_that_sleeps_is_found_however_many_there_are() -> None:
    """More than an int64 has bits."""
    meeting = numba_cpu.meeting_of(70)
    meeting[numba_cpu.gone(3) - 1] = meeting[numba_cpu.gone(66) - 1] = 1  # these two are awake
    assert numba_cpu.post(meeting, 10, 70) == 67
    assert [thread for thread in range(1, 70) if not meeting[numba_cpu.gone(thread)]] == [3, 66]
    assert (meeting[numba_cpu.POSTED], meeting[numba_cpu.BASE]) == (1, 0)
    numba_cpu.post(meeting, 10, 70)
    assert (meeting[numba_cpu.POSTED], meeting[numba_cpu.BASE]) == (2, 10)
