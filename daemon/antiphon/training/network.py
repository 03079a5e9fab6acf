"""RWKV-7 as a trainable module: the same maths as `antiphon.model.rwkv7`, arranged for speed.

Parameters carry the official names, so that `state_dict()` is a checkpoint. Three things make it fast:
every matmul runs in `compute_dtype` (bfloat16 in training) while norms, decays and the WKV recurrence
stay in float32; the six token-shift mixes vanish into one matmul, because
W(x + (prev − x)·m) = [x, prev] · [W·(1 − m), W·m]ᵀ; and the recurrence runs in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from antiphon.model.rwkv7 import (
    GROUP_NORM_EPS,
    KEY_NORM_GUARD,
    LAYER_NORM_EPS,
    MAX_LOG_DECAY,
    LayerState,
    State,
    zero_state,
)
from antiphon.model.spec import ModelSpec
from antiphon.model.wkv7_chunked import CHUNK
from antiphon.training.recurrence import wkv7_training

Recurrence = Callable[..., tuple[Tensor, Tensor]]


class Network(nn.Module):
    """Token ids in, logits out; `load_state_dict` takes the tensors of a checkpoint."""

    def __init__(
        self, spec: ModelSpec, weights: Mapping[str, Tensor], *, compute_dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.spec = spec
        self.emb = _Weight(weights, "emb")
        self.blocks = nn.ModuleList(_Block(spec, weights, layer) for layer in range(spec.n_layer))
        self.ln_out = _Norm(weights, "ln_out")
        self.head = _Weight(weights, "head")
        self.compute_dtype = compute_dtype

    def forward(self, tokens: Tensor, state: State | None = None, starts: Tensor | None = None) -> tuple[Tensor, State]:
        """Logits [B, T, V] for tokens [B, T], and the state after them; arguments as in `hidden`."""
        x, after = self.hidden(tokens, state, starts)
        return self.logits_of(x), after

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] for hidden states [..., D], all of them or a choice."""
        return _linear(hidden, self.head.weight, self.compute_dtype).to(hidden.dtype)

    def hidden(self, tokens: Tensor, state: State | None = None, starts: Tensor | None = None) -> tuple[Tensor, State]:
        """What the head reads, [B, T, D], for tokens [B, T], and the state after them.

        `starts` [B, T] is true at the first token of a sequence that forgets what came before it in its row. Such
        tokens stand at multiples of 16: `batches.make_batch` sees to it, and it is not looked at again here.
        """
        x = functional.embedding(tokens, self.emb.weight)
        if state is None:
            state = zero_state(self.spec, batch=(tokens.shape[0],), dtype=x.dtype)
            state = tuple(
                LayerState(att_x=s.att_x.to(x.device), wkv=s.wkv.to(x.device), ffn_x=s.ffn_x.to(x.device))
                for s in state
            )
        keep_x: Tensor | None = None
        keep_wkv: Tensor | None = None
        if starts is not None:
            keep = (~starts).to(x.dtype)
            keep_x, keep_wkv = keep.unsqueeze(-1), keep[:, ::CHUNK]
        v_first: Tensor | None = None
        after: list[LayerState] = []
        for block, before in zip(self.blocks, state, strict=True):
            x, v_first, layer_state = block(x, v_first, before, keep_x, keep_wkv, self.compute_dtype)
            after.append(layer_state)
        return self.ln_out(x), tuple(after)


class _Weight(nn.Module):
    """A matrix called `NAME.weight`."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"].clone())


class _Norm(nn.Module):
    """A layer norm over the last axis; also holds the group norm's scale and shift."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"].clone())
        self.bias = nn.Parameter(weights[f"{name}.bias"].clone())

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (x.shape[-1],), self.weight, self.bias, LAYER_NORM_EPS)


class _Block(nn.Module):
    """One layer: time mix, then channel mix, each added to the stream."""

    def __init__(self, spec: ModelSpec, weights: Mapping[str, Tensor], layer: int) -> None:
        super().__init__()
        name = f"blocks.{layer}"
        if layer == 0:
            self.ln0 = _Norm(weights, f"{name}.ln0")
        self.first = layer == 0
        self.ln1 = _Norm(weights, f"{name}.ln1")
        self.ln2 = _Norm(weights, f"{name}.ln2")
        self.att = _TimeMix(spec, weights, layer)
        self.ffn = _ChannelMix(weights, layer)

    def forward(
        self,
        x: Tensor,
        v_first: Tensor | None,
        before: LayerState,
        keep_x: Tensor | None,
        keep_wkv: Tensor | None,
        compute_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, LayerState]:
        if self.first:
            x = self.ln0(x)
        normed = self.ln1(x)
        shifted = _shifted(normed, before.att_x, keep_x)
        mixed, wkv, v_first = self.att(normed, shifted, v_first, before.wkv, keep_wkv, compute_dtype)
        att_x = normed[:, -1]
        x = x + mixed
        normed = self.ln2(x)
        x = x + self.ffn(normed, _shifted(normed, before.ffn_x, keep_x), compute_dtype)
        return x, v_first, LayerState(att_x=att_x, wkv=wkv, ffn_x=normed[:, -1])


class _TimeMix(nn.Module):
    """The attention half, its parameters under their official names."""

    x_r: Tensor
    x_w: Tensor
    x_k: Tensor
    x_v: Tensor
    x_a: Tensor
    x_g: Tensor
    w0: Tensor
    w1: Tensor
    w2: Tensor
    a0: Tensor
    a1: Tensor
    a2: Tensor
    v0: Tensor
    v1: Tensor
    v2: Tensor
    g1: Tensor
    g2: Tensor
    k_k: Tensor
    k_a: Tensor
    r_k: Tensor

    def __init__(self, spec: ModelSpec, weights: Mapping[str, Tensor], layer: int) -> None:
        super().__init__()
        self.heads = (spec.n_head, spec.head_size)
        self.first = layer == 0
        name = f"blocks.{layer}.att"
        # In the spec's order, whatever that of the weights: an optimiser's saved state knows parameters by their place.
        for key in spec.shapes():
            if key.startswith(f"{name}.") and key.count(".") == 3:
                self.register_parameter(key.rsplit(".", 1)[1], nn.Parameter(weights[key].clone()))
        self.receptance = _Weight(weights, f"{name}.receptance")
        self.key = _Weight(weights, f"{name}.key")
        self.value = _Weight(weights, f"{name}.value")
        self.output = _Weight(weights, f"{name}.output")
        self.ln_x = _Norm(weights, f"{name}.ln_x")

    def projection(self) -> Tensor:
        """One matrix [outputs, 2D] that takes [x, prev] to r, k, v and the low-rank inner values."""
        parts = [
            (self.receptance.weight, self.x_r),
            (self.key.weight, self.x_k),
            (self.value.weight, self.x_v),
            (self.w1.T, self.x_w),
            (self.a1.T, self.x_a),
            (self.g1.T, self.x_g),
        ]
        if not self.first:
            parts.append((self.v1.T, self.x_v))
        matrix = torch.cat([weight for weight, _ in parts])
        mix = torch.cat([mix.view(1, -1).expand(weight.shape[0], -1) for weight, mix in parts])
        from_previous = matrix * mix
        return torch.cat([matrix - from_previous, from_previous], dim=1)

    def forward(
        self,
        x: Tensor,
        shifted: Tensor,
        v_first: Tensor | None,
        before_wkv: Tensor,
        keep_wkv: Tensor | None,
        compute_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        d, dtype = x.shape[-1], x.dtype
        sizes = [d, d, d, self.w1.shape[1], self.a1.shape[1], self.g1.shape[1]]
        if not self.first:
            sizes.append(self.v1.shape[1])
        both = torch.cat([x, shifted], dim=-1)
        projected = _linear(both, self.projection(), compute_dtype)
        r, k, v, w_in, a_in, g_in, *v_in = projected.split(sizes, dim=-1)

        def expand(inner: Tensor, outer: Tensor) -> Tensor:
            return _linear(inner, outer.T, compute_dtype).to(dtype)

        r, k, v = r.to(dtype), k.to(dtype), v.to(dtype)
        log_w = MAX_LOG_DECAY * torch.sigmoid(self.w0 + expand(torch.tanh(w_in), self.w2))
        a = torch.sigmoid(self.a0 + expand(a_in, self.a2))
        g = expand(torch.sigmoid(g_in), self.g2)
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * torch.sigmoid(self.v0 + expand(v_in[0], self.v2))

        kappa = functional.normalize((k * self.k_k).unflatten(-1, self.heads), dim=-1, eps=KEY_NORM_GUARD)
        k = k * (1 + (a - 1) * self.k_a)
        r, log_w, k, v_heads, a = (tensor.unflatten(-1, self.heads) for tensor in (r, log_w, k, v, a))
        y, wkv = wkv7_training(r, log_w, k, v_heads, kappa, a, before_wkv, keep_wkv)
        y = functional.layer_norm(y, (self.heads[1],), None, None, GROUP_NORM_EPS).flatten(-2)
        y = y * self.ln_x.weight + self.ln_x.bias
        y = y + ((r * k * self.r_k).sum(dim=-1, keepdim=True) * v_heads).flatten(-2)
        return _linear(y * g, self.output.weight, compute_dtype).to(dtype), wkv, v_first


class _ChannelMix(nn.Module):
    """The feed-forward half."""

    def __init__(self, weights: Mapping[str, Tensor], layer: int) -> None:
        super().__init__()
        name = f"blocks.{layer}.ffn"
        self.x_k = nn.Parameter(weights[f"{name}.x_k"].clone())
        self.key = _Weight(weights, f"{name}.key")
        self.value = _Weight(weights, f"{name}.value")

    def forward(self, x: Tensor, shifted: Tensor, compute_dtype: torch.dtype) -> Tensor:
        mixed = x + (shifted - x) * self.x_k
        hidden = torch.relu(_linear(mixed, self.key.weight, compute_dtype)).square()
        return _linear(hidden, self.value.weight, compute_dtype).to(x.dtype)


def _linear(x: Tensor, weight: Tensor, compute_dtype: torch.dtype) -> Tensor:
    """x @ weightᵀ in the compute dtype; the result stays in it."""
    return functional.linear(x.to(compute_dtype), weight.to(compute_dtype))


def _shifted(x: Tensor, before: Tensor, keep: Tensor | None) -> Tensor:
    """Each token's predecessor, zero where a sequence begins: x [B, T, D], before [B, D], keep [B, T, 1]."""
    shifted = torch.cat([before.unsqueeze(1), x[:, :-1]], dim=1)
    return shifted if keep is None else shifted * keep
