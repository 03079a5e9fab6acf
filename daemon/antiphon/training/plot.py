"""The loss of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def plot_losses(log: Path, picture: Path) -> None:
    """Draw `log.jsonl`: training loss per token (smoothed) and nats per note on the valid pieces.

    Nothing is drawn for a run that has learnt nothing yet.
    """
    # Loading it takes a second, which a run need not wait for before it begins.
    from matplotlib.figure import Figure

    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    steps: list[int] = []
    smooth: list[float] = []
    for line in lines:
        loss = line.get("loss")
        if loss is not None:
            steps.append(line["step"])
            smooth.append(loss if not smooth else 0.95 * smooth[-1] + 0.05 * loss)
    if not steps:
        return
    judged = [(line["step"], line["valid_nats_per_note"]) for line in lines if line.get("valid_nats_per_note")]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, smooth, color="tab:blue", label="training, nats per token")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    if judged:
        right = axes.twinx()
        right.plot(*zip(*judged, strict=True), "o-", color="tab:orange", markersize=3, label="valid, nats per note")
        right.set_ylabel("nats per note")
        right.legend(loc="upper right")
    axes.legend(loc="upper center")
    figure.savefig(picture, dpi=120)
