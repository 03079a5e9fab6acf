"""The shape of an RWKV-7 model: how many layers, how wide, and what every tensor must look like.

A `ModelSpec` is read from a checkpoint's tensors, never from constants, so that a file is the only
authority on the model that is in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from antiphon.errors import FileError

_BLOCK = re.compile(r"blocks\.(\d+)\.")

MAX_LAYERS = 1024
"""More layers than any RWKV has: a bound that keeps a hostile file's claims small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Sizes of an RWKV-7 model; `n_embd` is a multiple of `head_size`."""

    n_layer: int
    n_embd: int
    vocab_size: int
    head_size: int = 64
    ffn_dim: int
    decay_rank: int
    iclr_rank: int
    value_rank: int
    gate_rank: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
        if self.n_layer > MAX_LAYERS:
            raise ValueError(f"n_layer must be at most {MAX_LAYERS}, not {self.n_layer}")
        if self.n_embd % self.head_size:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of head_size {self.head_size}")

    @classmethod
    def of_width(cls, *, n_layer: int, n_embd: int, vocab_size: int, head_size: int = 64) -> ModelSpec:
        """A spec whose low-rank sizes follow the RWKV-7 trainer's rule: 2.5, 1.7 and 5 times sqrt(width).

        Each is rounded to a multiple of 32; source: RWKV-LM, RWKV-v7/train_temp/src/model.py.
        """

        def rank(factor: float) -> int:
            return max(32, round(factor * math.sqrt(n_embd) / 32) * 32)

        return cls(
            n_layer=n_layer,
            n_embd=n_embd,
            vocab_size=vocab_size,
            head_size=head_size,
            ffn_dim=4 * n_embd,
            decay_rank=rank(2.5),
            iclr_rank=rank(2.5),
            value_rank=rank(1.7),
            gate_rank=rank(5.0),
        )

    @classmethod
    def of_tensors(cls, shapes: Mapping[str, tuple[int, ...]], *, where: str = "") -> ModelSpec:
        """The spec that a dict name -> shape implies; `FileError` when the tensors are not an RWKV-7."""
        layers = [int(match.group(1)) for name in shapes if (match := _BLOCK.match(name))]
        if not layers:
            raise FileError("no tensors named blocks.N.*", where=where, fix="give an RWKV-7 checkpoint")

        def size(name: str, axis: int, rank: int = 2) -> int:
            shape = shapes.get(name)
            if shape is None:
                raise FileError(f"tensor {name} is missing", where=where, fix="give an RWKV-7 checkpoint")
            if len(shape) != rank:
                raise FileError(f"tensor {name} has shape {list(shape)}", where=where)
            return shape[axis]

        try:
            return cls(
                n_layer=max(layers) + 1,
                n_embd=size("emb.weight", 1),
                vocab_size=size("emb.weight", 0),
                head_size=size("blocks.0.att.r_k", 1),
                ffn_dim=size("blocks.0.ffn.key.weight", 0),
                decay_rank=size("blocks.0.att.w1", 1),
                iclr_rank=size("blocks.0.att.a1", 1),
                # One layer has no value residual at all; then its rank is of no consequence.
                value_rank=size("blocks.1.att.v1", 1) if max(layers) > 0 else 32,
                gate_rank=size("blocks.0.att.g1", 1),
            )
        except ValueError as error:
            raise FileError(str(error), where=where) from error

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The spec written by `to_json`; ValueError when it is not one."""
        data = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise ValueError(f"a model spec has exactly the keys {sorted(names)}")
        return cls(**data)

    def to_json(self) -> str:
        """All sizes as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def n_head(self) -> int:
        """Heads per layer."""
        return self.n_embd // self.head_size

    @property
    def state_floats(self) -> int:
        """Numbers in one sequence's state: per layer att_x [D], wkv [H, N, N], ffn_x [D]."""
        return self.n_layer * (2 * self.n_embd + self.n_embd * self.head_size)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape, in the order of the official files."""
        d, n = self.n_embd, self.head_size
        shapes: dict[str, tuple[int, ...]] = {"emb.weight": (self.vocab_size, d)}

        def norm(name: str) -> None:
            shapes[f"{name}.weight"] = (d,)
            shapes[f"{name}.bias"] = (d,)

        for layer in range(self.n_layer):
            block = f"blocks.{layer}"
            if layer == 0:
                norm(f"{block}.ln0")
            norm(f"{block}.ln1")
            norm(f"{block}.ln2")
            att = f"{block}.att"
            for mix in "rwkvag":
                shapes[f"{att}.x_{mix}"] = (1, 1, d)
            low_ranks = {"w": self.decay_rank, "a": self.iclr_rank}
            if layer > 0:
                low_ranks["v"] = self.value_rank
            for kind, rank in low_ranks.items():
                shapes[f"{att}.{kind}0"] = (1, 1, d)
                shapes[f"{att}.{kind}1"] = (d, rank)
                shapes[f"{att}.{kind}2"] = (rank, d)
            shapes[f"{att}.g1"] = (d, self.gate_rank)
            shapes[f"{att}.g2"] = (self.gate_rank, d)
            shapes[f"{att}.k_k"] = (1, 1, d)
            shapes[f"{att}.k_a"] = (1, 1, d)
            shapes[f"{att}.r_k"] = (self.n_head, n)
            for linear in ("receptance", "key", "value", "output"):
                shapes[f"{att}.{linear}.weight"] = (d, d)
            norm(f"{att}.ln_x")
            shapes[f"{block}.ffn.x_k"] = (1, 1, d)
            shapes[f"{block}.ffn.key.weight"] = (self.ffn_dim, d)
            shapes[f"{block}.ffn.value.weight"] = (d, self.ffn_dim)
        norm("ln_out")
        shapes["head.weight"] = (self.vocab_size, d)
        return shapes

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        total = 0
        for shape in self.shapes().values():
            count = 1
            for size in shape:
                count *= size
            total += count
        return total
