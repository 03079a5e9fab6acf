"""What each precision costs, in nats and in KL, on the bundled model playing by itself (S0-003, S0-083)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Feed
from antiphon.library.bundled import model_path
from antiphon.model.precision import Precision

STEPS = 400

# KL of the next id in float32 against that in each precision, on average over ids that the float32 model drew. The
# file is int8, so that for int8 only the activations are rounded. On pieces it has not heard, the model before it was
# quantized needs 0.46 % more nats a note in int4, 0.006 % in int8 by group, 0.001 % in int8 and in bfloat16.
WITHIN = {
    Precision.BF16: 1e-5,
    Precision.FP16: 1e-6,
    Precision.INT8: 1e-7,
    Precision.INT8_GROUPS: 1e-4,
    Precision.INT4: 1e-2,
}

Floats = npt.NDArray[np.float64]


def told(model: LoadedModel, ids: npt.NDArray[np.int32] | None) -> tuple[npt.NDArray[np.int32], Floats]:
    """The ids, and log p of every id of the vocabulary after each; without ids, those that the model itself draws."""
    rng = np.random.default_rng(0)
    memory = model.runner.new_memory()
    taken: list[int] = [1]
    rows = []
    for step in range(STEPS):
        if ids is not None:
            taken[step:] = [int(ids[step])]
        model.runner.run([Feed(memory=memory, ids=np.array(taken[step : step + 1], np.int32))])
        logits = np.array(memory.logits, np.float64)
        likely = logits - logits.max()
        likely -= np.log(np.exp(likely).sum())
        rows.append(likely)
        taken.append(int(rng.choice(logits.size, p=np.exp(likely) / np.exp(likely).sum())))
    return np.array(taken[:STEPS], np.int32), np.array(rows)


@pytest.fixture(scope="module")
def true() -> tuple[npt.NDArray[np.int32], Floats]:
    model = LoadedModel.open(model_path("bundled"), precision=Precision.FP32, threads=1)
    try:
        return told(model, None)
    finally:
        model.close()


@pytest.mark.parametrize("precision", WITHIN)
def test_a_precision_costs_no_more_than_its_price(
    precision: Precision, true: tuple[npt.NDArray[np.int32], Floats]
) -> None:
    ids, exact = true
    model = LoadedModel.open(model_path("bundled"), precision=precision, threads=1)
    try:
        _, found = told(model, ids)
    finally:
        model.close()
    divergence = float((np.exp(exact) * (exact - found)).sum(axis=1).mean())
    assert 0 < divergence < WITHIN[precision]
    entropy = float(-(np.exp(exact) * exact).sum(axis=1).mean())
    assert divergence < 0.03 * entropy  # nats, for what the model itself draws costs its entropy
