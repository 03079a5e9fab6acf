"""The layers of RWKV-4, 5 and 6 on a device: matrices, token shifts and recurrences as operations, PyTorch between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon.engine.gpu_network import Network, Norm, Weights
from antiphon.engine.gpu_weights import Reader, Tensors
from antiphon.model.layers import LAYER_NORM_EPS
from antiphon.model.precision import Precision
from antiphon.model.rwkv6 import MIXES
from antiphon.model.spec import ModelSpec, Version
from antiphon_kernels.linear.on_device import BY_PART, SQUARED_RELU, TANH, Matrix, stack
from antiphon_kernels.planes import put
from antiphon_kernels.slab import Slab


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRanks:
    """What makes the mixes and decays of an RWKV-6 depend on the token. maa: float32 [5, D] in the order of `MIXES`."""

    maa: Tensor
    mix_down: Matrix
    mix_up: Matrix
    decay_down: Matrix
    decay_up: Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OldLayer:
    """One block. mixes: float32 [M, D], how much of the token before each part sees; of an RWKV-6 what finds that out.

    projections: r, k and v, and the gate where there is one. u, decay: [D] in RWKV-4, else [H, N]; decay is the
    logarithm in RWKV-4, and in RWKV-6 what the token's own part is added to before it becomes one. ffn_mixes: [2, D].
    """

    ln1: Norm
    mixes: Tensor
    projections: Matrix
    low: LowRanks | None
    u: Tensor
    decay: Tensor
    ln_x: Norm | None
    ln_x_eps: float
    output: Matrix
    ln2: Norm
    ffn_mixes: Tensor
    ffn_key: Matrix
    ffn_receptance: Matrix
    ffn_value: Matrix

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        low = self.low
        ranks = () if low is None else (low.mix_down, low.mix_up, low.decay_down, low.decay_up)
        return (self.projections, *ranks, self.output, self.ffn_key, self.ffn_receptance, self.ffn_value)

    @property
    def nbytes(self) -> int:
        return sum(matrix.nbytes for matrix in self.matrices)


def load(tensors: Tensors, precision: Precision, device: torch.device) -> Weights[OldLayer]:
    """Lay an RWKV-4, 5 or 6 out on `device`."""
    reader = Reader(tensors, precision, device)
    return reader.whole(tuple(_layer(reader, tensors, index) for index in range(tensors.spec.n_layer)))


class NetworkOld(Network[OldLayer]):
    """The step of an RWKV-4, 5 or 6."""

    @staticmethod
    def uses(spec: ModelSpec) -> tuple[str, ...]:
        return ("multiply", "embed", "shift_mix", "norm", "advance4" if spec.version is Version.V4 else "advance5")

    def layer(self, index: int, slab: Slab) -> None:
        op, layer, spec, states = self.operations, self.weights.layers[index], self.weights.spec, self.store.states
        rows, width = slab.rows, spec.n_embd
        at = index * spec.layer_floats
        x = self.x[:rows]
        gated = self.room("gated", 1, self.planes, rows, width, rows=rows, planes=True)
        mixed = self._mixed(layer, at, slab) if layer.low is None else self._mixed_by_token(layer, layer.low, at, slab)
        projected = self.room("projected", rows, layer.projections.outputs, rows=rows)
        op.multiply(layer.projections, mixed, projected)
        r, k, v, *gate = (projected[:, start : start + width] for start in layer.projections.starts)
        if spec.version is Version.V4:
            vectors, y = torch.stack([k, v]), self.room("y", rows, width, rows=rows)
            op.advance4(vectors, layer.u, layer.decay, states, at + width, slab, y)
            put(torch.sigmoid(r) * y, gated[0])
        else:
            put(self._answer(layer, (r, k, v), gate, mixed, at + width, slab), gated[0])
        op.multiply(layer.output, gated, x, residual=x)
        self._channel_mix(layer, at + spec.layer_floats - width, slab)

    def _mixed(self, layer: OldLayer, at: int, slab: Slab) -> Tensor:
        """What the projections read, in the order of their mixes."""
        count, rows, x = layer.mixes.shape[0], slab.rows, self.x[: slab.rows]
        mixed = self.room("mixed", count, self.planes, rows, x.shape[1], rows=rows, planes=True)
        self.operations.shift_mix(x, layer.ln1.weight, layer.ln1.bias, layer.mixes, self.store.states, at, slab, mixed)
        return mixed

    def _mixed_by_token(self, layer: OldLayer, low: LowRanks, at: int, slab: Slab) -> Tensor:
        """The same of an RWKV-6, whose mixes depend on the token: in the order of `MIXES`."""
        op, rows, x, count = self.operations, slab.rows, self.x[: slab.rows], len(MIXES)
        width = x.shape[1]
        normed = functional.layer_norm(x, (width,), layer.ln1.weight, layer.ln1.bias, LAYER_NORM_EPS)
        kept = self.store.states[slab.slots.long(), at : at + width]
        before = torch.where((slab.previous >= 0)[:, None], normed[slab.previous.clamp(min=0).long()], kept)
        hidden = self.room("low", self.planes, rows, low.mix_down.outputs, rows=rows, planes=True)
        op.multiply(low.mix_down, self._mixed(layer, at, slab), hidden, act=BY_PART)
        rank = low.mix_up.inputs
        each = hidden[:, :, : count * rank].unflatten(2, (count, rank)).permute(2, 0, 1, 3).contiguous()
        shares = self.room("shares", rows, low.mix_up.outputs, rows=rows)
        op.multiply(low.mix_up, each, shares)
        whole = torch.stack([shares[:, start : start + width] for start in low.mix_up.starts])
        mixed = self.room("mixed", count, self.planes, rows, width, rows=rows, planes=True)
        put(normed + (before - normed) * (low.maa.unsqueeze(1) + whole), mixed)
        return mixed

    def _answer(
        self,
        layer: OldLayer,
        rkv: tuple[Tensor, Tensor, Tensor],
        gate: list[Tensor],
        mixed: Tensor,
        at: int,
        slab: Slab,
    ) -> Tensor:
        """The recurrence of an RWKV-5 or 6, normed and gated: [rows, D]."""
        spec, rows = self.weights.spec, slab.rows
        heads, n = spec.n_head, spec.head_size
        r, k, v = (part.unflatten(1, (heads, n)) for part in rkv)
        w = layer.decay.expand(rows, heads, n) if layer.low is None else self._decay(layer, layer.low, mixed)
        y = self.room("y", rows, heads, n, rows=rows)
        self.operations.advance5(torch.stack([r, w, k, v]), layer.u, self.store.states, at, slab, y)
        mean = y.mean(dim=-1, keepdim=True)
        spread = y.var(dim=-1, keepdim=True, unbiased=False)
        out = ((y - mean) / torch.sqrt(spread + layer.ln_x_eps)).flatten(1)
        if layer.ln_x is not None:
            out = out * layer.ln_x.weight + layer.ln_x.bias
        return out * functional.silu(gate[0]) if gate else out

    def _decay(self, layer: OldLayer, low: LowRanks, mixed: Tensor) -> Tensor:
        """The decays of an RWKV-6, [rows, H, N]."""
        rows, op, place = mixed.shape[2], self.operations, MIXES.index("w")
        hidden = self.room("low", self.planes, rows, low.decay_down.outputs, rows=rows, planes=True)
        op.multiply(low.decay_down, mixed[place : place + 1], hidden, act=BY_PART)
        inner = hidden[:, :, : low.decay_up.inputs].contiguous()
        own = self.room("own", rows, low.decay_up.outputs, rows=rows)
        op.multiply(low.decay_up, inner.unsqueeze(0), own)
        return torch.exp(-torch.exp(layer.decay + own.view(rows, *layer.decay.shape)))

    def _channel_mix(self, layer: OldLayer, at: int, slab: Slab) -> None:
        op, rows, x = self.operations, slab.rows, self.x[: slab.rows]
        mixed = self.room("mixed", 2, self.planes, rows, x.shape[1], rows=rows, planes=True)
        hidden = self.room("hidden", self.planes, rows, layer.ffn_key.outputs, rows=rows, planes=True)
        gate, y = (self.room(name, rows, x.shape[1], rows=rows) for name in ("ffn gate", "ffn y"))
        op.shift_mix(x, layer.ln2.weight, layer.ln2.bias, layer.ffn_mixes, self.store.states, at, slab, mixed)
        op.multiply(layer.ffn_key, mixed[:1], hidden, act=SQUARED_RELU)
        op.multiply(layer.ffn_receptance, mixed[1:], gate)
        op.multiply(layer.ffn_value, hidden.unsqueeze(0), y)
        x.addcmul_(torch.sigmoid(gate), y)


def _layer(reader: Reader, tensors: Tensors, index: int) -> OldLayer:
    spec, block = tensors.spec, f"blocks.{index}"
    att, ffn, version = f"{block}.att", f"{block}.ffn", spec.version
    parts = ["receptance", "key", "value", *(["gate"] if version.has_gate else [])]
    letters = ["r", "k", "v", "g"][: len(parts)]
    shape = (spec.n_head, -1)
    if version is Version.V6:
        mixes, sources = reader.vector(f"{att}.time_maa_x").unsqueeze(0), [MIXES.index(letter) for letter in letters]
        ffn_mixes = torch.stack([reader.vector(f"{ffn}.time_maa_{letter}") for letter in "kr"])
        decay = reader.vector(f"{att}.time_decay").view(shape)
    else:
        # Shares of the token itself in these versions; of the one before it in this program, as in the later ones.
        mixes = torch.stack([1 - reader.vector(f"{att}.time_mix_{letter}") for letter in letters])
        sources = list(range(len(parts)))
        ffn_mixes = torch.stack([1 - reader.vector(f"{ffn}.time_mix_{letter}") for letter in "kr"])
        decay = -torch.exp(reader.vector(f"{att}.time_decay"))
    if version is Version.V4:
        u = reader.vector(f"{att}.time_first")
    elif version is Version.V5_0:
        u = torch.exp(reader.vector(f"{att}.time_first")).view(shape)
    else:
        u = reader.vector(f"{att}.time_faaaa").view(shape)
    if version is not Version.V4:
        sizes = (spec.n_head, spec.head_size)
        u = u.expand(sizes).contiguous()
        decay = decay if version is Version.V6 else torch.exp(decay).view(shape).expand(sizes).contiguous()
    return OldLayer(
        ln1=reader.norm(f"{block}.ln1"),
        mixes=mixes,
        projections=stack([reader.matrix(f"{att}.{name}.weight") for name in parts], sources=sources),
        low=_low_ranks(reader, tensors, att) if version is Version.V6 else None,
        u=u,
        decay=decay,
        ln_x=None if version is Version.V4 else reader.norm(f"{att}.ln_x"),
        ln_x_eps=tensors.ln_x_eps,
        output=reader.matrix(f"{att}.output.weight"),
        ln2=reader.norm(f"{block}.ln2"),
        ffn_mixes=ffn_mixes,
        ffn_key=reader.matrix(f"{ffn}.key.weight"),
        ffn_receptance=reader.matrix(f"{ffn}.receptance.weight"),
        ffn_value=reader.matrix(f"{ffn}.value.weight"),
    )


def _low_ranks(reader: Reader, tensors: Tensors, att: str) -> LowRanks:
    mix_up = tensors.read(f"{att}.time_maa_w2")
    return LowRanks(
        maa=torch.stack([reader.vector(f"{att}.time_maa_{letter}") for letter in MIXES]),
        mix_down=stack([reader.low_rank(tensors.read(f"{att}.time_maa_w1"))], sources=[0], acts=[TANH]),
        mix_up=stack([reader.low_rank(part) for part in mix_up], sources=list(range(len(MIXES)))),
        decay_down=stack([reader.low_rank(tensors.read(f"{att}.time_decay_w1"))], sources=[0], acts=[TANH]),
        decay_up=reader.low_rank(tensors.read(f"{att}.time_decay_w2")),
    )
