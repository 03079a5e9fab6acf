"""The shape of an RWKV model: its version, how many layers, how wide, and what every tensor must look like.

A `ModelSpec` is read from a checkpoint's tensors, never from constants, so that a file is the only
authority on the model that is in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from antiphon.errors import FileError
from antiphon.model.version import Version as Version
from antiphon.model.version import version_of

_BLOCK = re.compile(r"blocks\.(\d{1,9})\.")

MAX_LAYERS = 1024
"""More layers than any RWKV has: a bound that keeps a hostile file's claims small."""

_RANKS = ("decay_rank", "iclr_rank", "value_rank", "gate_rank", "mix_rank")
_RANKS_OF = {Version.V7: {"decay_rank", "iclr_rank", "value_rank", "gate_rank"}, Version.V6: {"decay_rank", "mix_rank"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Sizes of an RWKV model; `n_embd` is a multiple of `head_size`, and a rank that its version lacks is 0.

    RWKV-4 has no heads, every channel remembers by itself: its `head_size` is 1.
    """

    version: Version = Version.V7
    n_layer: int
    n_embd: int
    vocab_size: int
    head_size: int = 64
    ffn_dim: int
    decay_rank: int = 0
    iclr_rank: int = 0
    value_rank: int = 0
    gate_rank: int = 0
    mix_rank: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.version, Version):
            raise ValueError(f"version must be a Version, not {self.version!r}")
        ranks = _RANKS_OF.get(self.version, set())
        for field in dataclasses.fields(self):
            if field.name == "version":
                continue
            value = getattr(self, field.name)
            if field.name in _RANKS and field.name not in ranks:
                if value != 0:
                    raise ValueError(f"{field.name} must be 0 in RWKV-{self.version}, not {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
        if self.n_layer > MAX_LAYERS:
            raise ValueError(f"n_layer must be at most {MAX_LAYERS}, not {self.n_layer}")
        if self.n_embd % self.head_size:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of head_size {self.head_size}")
        if self.version is Version.V4 and self.head_size != 1:
            raise ValueError(f"head_size must be 1 in RWKV-4, not {self.head_size}")

    @classmethod
    def of_width(
        cls, *, n_layer: int, n_embd: int, vocab_size: int, head_size: int = 64, version: Version = Version.V7
    ) -> ModelSpec:
        """A spec whose other sizes follow the rules of the version's trainer.

        RWKV-7's ranks are 2.5, 1.7 and 5 times sqrt(width), each rounded to a multiple of 32; RWKV-6 doubles its
        ranks at width 4096; from 5.1 to 6 the hidden layer is 3.5 times the width, rounded down to a multiple of 32.
        `head_size` says nothing in RWKV-4. Source: RWKV-LM, RWKV-v7/train_temp/src/model.py and RWKV-v5/src/model.py.
        """

        def rank(factor: float) -> int:
            return max(32, round(factor * math.sqrt(n_embd) / 32) * 32)

        ranks: dict[str, int] = {}
        if version is Version.V7:
            ranks = {"decay_rank": rank(2.5), "iclr_rank": rank(2.5), "value_rank": rank(1.7), "gate_rank": rank(5.0)}
        elif version is Version.V6:
            ranks = {"decay_rank": 128, "mix_rank": 64} if n_embd >= 4096 else {"decay_rank": 64, "mix_rank": 32}
        narrow = version in (Version.V5_1, Version.V5_2, Version.V6)
        return cls(
            version=version,
            n_layer=n_layer,
            n_embd=n_embd,
            vocab_size=vocab_size,
            head_size=1 if version is Version.V4 else head_size,
            ffn_dim=max(32, n_embd * 7 // 2 // 32 * 32) if narrow else 4 * n_embd,
            **ranks,
        )

    @classmethod
    def of_tensors(cls, shapes: Mapping[str, tuple[int, ...]], *, where: str = "") -> ModelSpec:
        """The spec that a dict name -> shape implies; `FileError` when the tensors are not a known RWKV.

        Names and shapes are the official ones (`model.source` brings other files' to them).
        """
        layers = [int(match.group(1)) for name in shapes if (match := _BLOCK.match(name))]
        if not layers:
            found = ", ".join(sorted(shapes)[:3]) or "nothing"
            raise FileError(f"no tensors named blocks.N.*, but {found} …", where=where, fix="give an RWKV checkpoint")
        version = version_of(shapes, where=where)

        def size(name: str, axis: int, rank: int = 2) -> int:
            shape = shapes.get(name)
            if shape is None:
                raise FileError(f"tensor {name} is missing", where=where, fix=f"give a whole RWKV-{version} checkpoint")
            if len(shape) != rank:
                raise FileError(f"tensor {name} has shape {list(shape)}", where=where)
            return shape[axis]

        n_embd = size("emb.weight", 1)
        ranks: dict[str, int] = {}
        if version is Version.V7:
            head_size = size("blocks.0.att.r_k", 1)
            ranks = {
                "decay_rank": size("blocks.0.att.w1", 1),
                "iclr_rank": size("blocks.0.att.a1", 1),
                # One layer has no value residual at all; then its rank is of no consequence.
                "value_rank": size("blocks.1.att.v1", 1) if max(layers) > 0 else 32,
                "gate_rank": size("blocks.0.att.g1", 1),
            }
        elif version is Version.V6:
            head_size = size("blocks.0.att.time_faaaa", 1)
            ranks = {
                "decay_rank": size("blocks.0.att.time_decay_w1", 1),
                "mix_rank": size("blocks.0.att.time_maa_w2", 1, rank=3),
            }
        elif version is Version.V5_2:
            head_size = size("blocks.0.att.time_decay", 1)
        elif version is Version.V4:
            head_size = 1
        else:
            heads = size("blocks.0.att.time_decay", 0, rank=1)
            if heads < 1 or n_embd % heads:
                raise FileError(f"a width of {n_embd} does not divide into {heads} heads", where=where)
            head_size = n_embd // heads
        try:
            return cls(
                version=version,
                n_layer=max(layers) + 1,
                n_embd=n_embd,
                vocab_size=size("emb.weight", 0),
                head_size=head_size,
                ffn_dim=size("blocks.0.ffn.key.weight", 0),
                **ranks,
            )
        except ValueError as error:
            raise FileError(str(error), where=where) from error

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The spec written by `to_json`, also of the time when there was only RWKV-7; ValueError when it is not one."""
        data = json.loads(text)
        fields = dataclasses.fields(cls)
        names = {field.name for field in fields}
        required = {field.name for field in fields if field.default is dataclasses.MISSING} | {"head_size"}
        if not isinstance(data, dict) or not required <= set(data) <= names:
            raise ValueError(f"a model spec has exactly the keys {sorted(names)}")
        if "version" in data:
            data["version"] = Version(data["version"])
        return cls(**data)

    def to_json(self) -> str:
        """Version and sizes as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def n_head(self) -> int:
        """Heads per layer."""
        return self.n_embd // self.head_size

    @property
    def layer_floats(self) -> int:
        """Numbers in one layer of one sequence's state.

        att_x [D], wkv [H, N, N], ffn_x [D]; in RWKV-4 att_x [D], aa [D], bb [D], pp [D], ffn_x [D].
        """
        if self.version is Version.V4:
            return 5 * self.n_embd
        return 2 * self.n_embd + self.n_embd * self.head_size

    @property
    def state_floats(self) -> int:
        """Numbers in one sequence's state: `layer_floats` for every layer."""
        return self.n_layer * self.layer_floats

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape, in the order of the official files."""
        d = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"emb.weight": (self.vocab_size, d)}
        for layer in range(self.n_layer):
            block = f"blocks.{layer}"
            for norm in ("ln0", "ln1", "ln2") if layer == 0 else ("ln1", "ln2"):
                shapes |= {f"{block}.{norm}.weight": (d,), f"{block}.{norm}.bias": (d,)}
            shapes |= {f"{block}.att.{name}": shape for name, shape in self._time_mix(layer)}
            shapes |= {f"{block}.ffn.{name}": shape for name, shape in self._channel_mix()}
        shapes |= {"ln_out.weight": (d,), "ln_out.bias": (d,), "head.weight": (self.vocab_size, d)}
        return shapes

    def _time_mix(self, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The tensors of `blocks.N.att`."""
        d, by_head = self.n_embd, (self.n_head, self.head_size)
        linear = ["receptance", "key", "value"]
        if self.version is Version.V7:
            yield from ((f"x_{mix}", (1, 1, d)) for mix in "rwkvag")
            low_ranks = {"w": self.decay_rank, "a": self.iclr_rank}
            if layer > 0:
                low_ranks["v"] = self.value_rank
            for kind, rank in low_ranks.items():
                yield from ((f"{kind}0", (1, 1, d)), (f"{kind}1", (d, rank)), (f"{kind}2", (rank, d)))
            yield from (("g1", (d, self.gate_rank)), ("g2", (self.gate_rank, d)))
            yield from (("k_k", (1, 1, d)), ("k_a", (1, 1, d)), ("r_k", by_head))
        elif self.version is Version.V6:
            yield from ((f"time_maa_{mix}", (1, 1, d)) for mix in "xwkvrg")
            yield from (("time_maa_w1", (d, 5 * self.mix_rank)), ("time_maa_w2", (5, self.mix_rank, d)))
            yield "time_decay", (1, 1, d)
            yield from (("time_decay_w1", (d, self.decay_rank)), ("time_decay_w2", (self.decay_rank, d)))
            yield "time_faaaa", by_head
            linear.append("gate")
        else:
            yield from ((f"time_mix_{mix}", (1, 1, d)) for mix in ("kvrg" if self.version.has_gate else "kvr"))
            per_head = {Version.V4: (d,), Version.V5_2: by_head}.get(self.version, (self.n_head,))
            yield "time_decay", per_head
            yield "time_faaaa" if self.version.has_gate else "time_first", per_head
            if self.version.has_gate:
                linear.append("gate")
        yield from ((f"{name}.weight", (d, d)) for name in (*linear, "output"))
        if self.version is not Version.V4:
            yield from (("ln_x.weight", (d,)), ("ln_x.bias", (d,)))

    def _channel_mix(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The tensors of `blocks.N.ffn`."""
        d = self.n_embd
        if self.version is Version.V7:
            yield "x_k", (1, 1, d)
        else:
            mix = "time_maa" if self.version is Version.V6 else "time_mix"
            yield from ((f"{mix}_k", (1, 1, d)), (f"{mix}_r", (1, 1, d)))
        yield "key.weight", (self.ffn_dim, d)
        if self.version is not Version.V7:
            yield "receptance.weight", (d, d)
        yield "value.weight", (d, self.ffn_dim)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes().values())
