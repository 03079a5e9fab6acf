"""How much memory a model of given sizes takes, to learn and to run, from an exact count of its parameters."""

from __future__ import annotations

import math

from antiphon.model.published import names, published
from antiphon.model.spec import ModelSpec

GIB = 1 << 30

PRECISION_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int8-groups": 1.0625, "int4": 0.5625}
"""Bytes a weight, the scales of groups of 32 included."""

_ADAM_BYTES = 2 * 4
"""AdamW's two running means of every parameter, in float32."""

_KEPT_PER_CHANNEL = 30
"""Numbers that a layer keeps of each channel of each token for the way back: two norms and their inputs, the six mixes,
r, w, k, v, a, g and kappa before and after their non-linearities, the heads' outputs before and after their norm, and
four times the width of the channel mix before and after its square."""


def released_spec(*, n_layer: int, n_embd: int, vocab_size: int, head_size: int = 64) -> ModelSpec:
    """An RWKV-7 whose low-rank sizes are those of the published models of its width.

    The rule they follow is 1.8, 1.8 and 1.3 times sqrt(width) and 0.6 times width^0.8, in multiples of 32; at width
    1024 the gate has 128.
    """

    def rank(size: float) -> int:
        return max(32, round(size / 32) * 32)

    root = math.sqrt(n_embd)
    return ModelSpec(
        n_layer=n_layer,
        n_embd=n_embd,
        vocab_size=vocab_size,
        head_size=head_size,
        ffn_dim=4 * n_embd,
        decay_rank=rank(1.8 * root),
        iclr_rank=rank(1.8 * root),
        value_rank=rank(1.3 * root),
        gate_rank=128 if n_embd == 1024 else rank(0.6 * n_embd**0.8),
    )


def estimate_model_memory(
    n_layer: int,
    n_embd: int,
    vocab_size: int,
    batch_size: int = 1,
    seq_len: int = 1024,
    precision: str = "bf16",
) -> dict[str, float | int]:
    """What learning takes, in GiB, under the names that RWKV-Music's tool gives it: `parameters_gb`, `gradients_gb`,
    `optimizer_gb` (AdamW in float32), `activations_gb` (all tokens kept), `total_gb`, and `model_params`, a count.

    To run a model takes `parameters_gb` and `state_gb` for each of `batch_size` timelines. ValueError for sizes or a
    precision that no model has.
    """
    if precision not in PRECISION_BYTES:
        raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISION_BYTES)}")
    if batch_size < 1 or seq_len < 1:
        raise ValueError("a batch has at least one sequence of at least one id")
    spec = released_spec(n_layer=n_layer, n_embd=n_embd, vocab_size=vocab_size)
    count = spec.parameters
    item = PRECISION_BYTES[precision]
    # Nothing learns in whole numbers: there the base stays as it is and gradients are bfloat16.
    learnt = max(item, 2.0)
    tokens = batch_size * seq_len
    parameters = count * item
    gradients = count * learnt
    optimizer = float(count * _ADAM_BYTES)
    activations = tokens * learnt * (n_layer * n_embd * _KEPT_PER_CHANNEL + vocab_size)
    return {
        "parameters_gb": parameters / GIB,
        "activations_gb": activations / GIB,
        "optimizer_gb": optimizer / GIB,
        "gradients_gb": gradients / GIB,
        "total_gb": (parameters + activations + optimizer + gradients) / GIB,
        "state_gb": batch_size * spec.state_floats * 4 / GIB,
        "model_params": count,
    }


def size_name(parameters: int) -> str:
    """What people call a model of so many parameters: "0.1B", "1.5B"; below fifty million in millions."""
    if parameters < 50_000_000:
        return f"{parameters / 1e6:.1f}M"
    named = {name: published(name).parameters for name in names()}
    nearest = min(named, key=lambda name: abs(math.log(named[name] / parameters)))
    return nearest if abs(named[nearest] / parameters - 1) < 0.1 else f"{parameters / 1e9:.2g}B"
