"""Random tensors under the official RWKV-7 names, at the scales of a trained model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from antiphon_kernels.program.given import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes that need not follow any published rule; ranks are those of w, a, v and g."""

    layers: int
    width: int
    heads: int
    vocab: int
    ffn: int
    ranks: tuple[int, int, int, int] = (32, 32, 32, 64)


def random_tensors(shape: Shape, *, seed: int = 0) -> dict[str, Array]:
    """int8 linear weights with scales, float16 low-rank ones, float32 for the rest."""
    rng = np.random.default_rng(seed)
    width, tensors = shape.width, dict[str, Array]()

    def normal(*size: int, by: float = 1.0, around: float = 0.0) -> Array:
        return (around + by * rng.standard_normal(size)).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> None:
        weight = normal(outputs, inputs, by=inputs**-0.5)
        scale = np.abs(weight).max(axis=1) / 127
        tensors[name] = np.rint(weight / scale[:, None]).astype(np.int8)
        tensors[f"{name}.scale"] = scale.astype(np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = normal(width, by=0.1, around=1.0), normal(width, by=0.1)

    linear("emb.weight", shape.vocab, width)
    linear("head.weight", shape.vocab, width)
    norm("blocks.0.ln0")
    norm("ln_out")
    for layer in range(shape.layers):
        block, att = f"blocks.{layer}", f"blocks.{layer}.att"
        for name in (f"{block}.ln1", f"{block}.ln2", f"{att}.ln_x"):
            norm(name)
        for name in "rwkvag":
            tensors[f"{att}.x_{name}"] = rng.random((1, 1, width)).astype(np.float32)
        tensors[f"{block}.ffn.x_k"] = rng.random((1, 1, width)).astype(np.float32)
        for name, rank, bias in zip("wavg", shape.ranks, (-1.0, 0.0, 0.0, 0.0), strict=True):
            if name == "v" and layer == 0:
                continue
            tensors[f"{att}.{name}1"] = normal(width, rank, by=width**-0.5).astype(np.float16)
            tensors[f"{att}.{name}2"] = normal(rank, width, by=rank**-0.5).astype(np.float16)
            if name != "g":
                tensors[f"{att}.{name}0"] = normal(1, 1, width, by=0.5, around=bias)
        tensors[f"{att}.k_k"] = normal(1, 1, width, by=0.2, around=1.0)
        tensors[f"{att}.k_a"] = normal(1, 1, width, by=0.2, around=1.0)
        tensors[f"{att}.r_k"] = normal(shape.heads, width // shape.heads, by=0.2)
        for name in ("receptance", "key", "value", "output"):
            linear(f"{att}.{name}.weight", width, width)
        linear(f"{block}.ffn.key.weight", shape.ffn, width)
        linear(f"{block}.ffn.value.weight", width, shape.ffn)
    return tensors
