"""The definition of the RWKV-7 program: the same arithmetic on the same tensors, in plain NumPy, an operation a line.

A linear layer here is *weights in int8 (or rounded to 16 bits) times activations rounded to 16 bits, summed exactly*.
Rounding an activation moves it by at most peak / 65278, where peak is the largest of its vector; a 16-bit weight moves
by at most its row's peak / 65278.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon_kernels.linear.layout import to_16_bits
from antiphon_kernels.linear.reference import round_16
from antiphon_kernels.program.given import Array, Tensors

Floats = npt.NDArray[np.float32]


def step(tensors: Tensors, token: int, state: Floats) -> tuple[Floats, Floats]:
    """(logits [V], next state [state_len]) after one token; `state` is left alone."""
    model = Reference(tensors)
    following = state.copy()
    return model.step(token, following), following


class Reference:
    """A checkpoint's tensors, with each weight rounded once as `given.Given` rounds it."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._heads, self._head_size = tensors["blocks.0.att.r_k"].shape
        self._width = self._heads * self._head_size
        self._layers = sum(name.endswith(".att.r_k") for name in tensors)
        self._whole: dict[str, tuple[Array, Floats]] = {}

    @property
    def state_len(self) -> int:
        """float32 numbers in one state."""
        return int(self._layers * self._width * (2 + self._head_size))

    def step(self, token: int, state: Floats) -> Floats:
        """Logits [V] after one token; `state` [state_len] moves on in place."""
        tensors = self._tensors
        x = tensors["emb.weight"][token].astype(np.float32) * tensors["emb.weight.scale"].reshape(-1)[token]
        x = _layer_norm(x, tensors["blocks.0.ln0.weight"], tensors["blocks.0.ln0.bias"], np.float32(1e-5))
        v_first = x
        for layer, held in enumerate(state.reshape(self._layers, -1)):
            out, v_first = self._time_mix(layer, x, v_first, held)
            x = x + out
            x = x + self._channel_mix(layer, x, held)
        x = _layer_norm(x, tensors["ln_out.weight"], tensors["ln_out.bias"], np.float32(1e-5))
        return self._linear("head.weight", x)

    def _time_mix(self, layer: int, x: Floats, v_first: Floats, held: Floats) -> tuple[Floats, Floats]:
        at = f"blocks.{layer}."
        get = self._vector
        heads = (self._heads, self._head_size)
        wkv = held[self._width : -self._width].reshape(*heads, self._head_size)
        x = _layer_norm(x, get(at + "ln1.weight"), get(at + "ln1.bias"), np.float32(1e-5))
        shift = held[: self._width] - x
        held[: self._width] = x
        at += "att."
        x_r, x_w, x_k, x_v, x_a, x_g = (x + shift * get(f"{at}x_{name}") for name in "rwkvag")
        r = self._linear(at + "receptance.weight", x_r)
        k = self._linear(at + "key.weight", x_k)
        v = self._linear(at + "value.weight", x_v)
        w = get(at + "w0") + self._linear(at + "w2", np.tanh(self._linear(at + "w1", x_w)))
        a = _sigmoid(get(at + "a0") + self._linear(at + "a2", self._linear(at + "a1", x_a)))
        g = self._linear(at + "g2", _sigmoid(self._linear(at + "g1", x_g)))
        if layer == 0:
            v_first = v
        else:
            part = _sigmoid(get(at + "v0") + self._linear(at + "v2", self._linear(at + "v1", x_v)))
            v = v + (v_first - v) * part
        kappa = (k * get(at + "k_k")).reshape(heads)
        kappa = kappa / np.maximum(np.sqrt((kappa * kappa).sum(axis=1, keepdims=True)), np.float32(1e-12))
        k = k * (1 + (a - 1) * get(at + "k_a"))
        w = np.exp(np.float32(-np.exp(-0.5)) * _sigmoid(w))
        r, w, k, v, a = (z.reshape(heads) for z in (r, w, k, v, a))
        read = np.einsum("hvk,hk->hv", wkv, kappa)
        wkv[:] = wkv * w[:, None, :] - read[:, :, None] * (kappa * a)[:, None, :] + v[:, :, None] * k[:, None, :]
        y = np.einsum("hvk,hk->hv", wkv, r)
        weight, bias = (get(f"{at}ln_x.{name}").reshape(heads) for name in ("weight", "bias"))
        y = _layer_norm(y, weight, bias, np.float32(64e-5))
        y = y + (r * k * get(at + "r_k").reshape(heads)).sum(axis=1, keepdims=True) * v
        return self._linear(at + "output.weight", y.reshape(-1) * g), v_first

    def _channel_mix(self, layer: int, x: Floats, held: Floats) -> Floats:
        at = f"blocks.{layer}."
        get = self._vector
        x = _layer_norm(x, get(at + "ln2.weight"), get(at + "ln2.bias"), np.float32(1e-5))
        shift = held[-self._width :] - x
        held[-self._width :] = x
        hidden = np.maximum(self._linear(at + "ffn.key.weight", x + shift * get(at + "ffn.x_k")), np.float32(0)) ** 2
        return self._linear(at + "ffn.value.weight", hidden)

    def _vector(self, name: str) -> Floats:
        vector: Floats = np.asarray(self._tensors[name], np.float32).reshape(-1)
        return vector

    def _linear(self, name: str, x: Floats) -> Floats:
        if name not in self._whole:
            weight = self._tensors[name]
            if weight.dtype == np.int8:
                self._whole[name] = weight.astype(np.int64), self._vector(name + ".scale")
            else:
                self._whole[name] = to_16_bits(weight if name.endswith(".weight") else weight.T)
        weight, scale = self._whole[name]
        rounded, step_size = round_16(x)
        out: Floats = (weight @ rounded).astype(np.float32) * (scale * step_size)
        return out


def _layer_norm(x: Floats, weight: Floats, bias: Floats, eps: np.float32) -> Floats:
    mean = x.mean(axis=-1, keepdims=True, dtype=np.float32)
    spread = ((x - mean) ** 2).mean(axis=-1, keepdims=True, dtype=np.float32)
    out: Floats = (x - mean) / np.sqrt(spread + eps) * weight + bias
    return out


def _sigmoid(x: Floats) -> Floats:
    out: Floats = np.float32(1) / (np.float32(1) + np.exp(-x))
    return out
