"""An RWKV-7's layers on a device: between its matrices three launches, and the recurrence."""

from __future__ import annotations

from antiphon.engine.gpu_network import Network
from antiphon.engine.gpu_weights import Layer
from antiphon.model.spec import ModelSpec
from antiphon_kernels.linear.on_device import BY_PART, SQUARED_RELU
from antiphon_kernels.slab import Slab
from antiphon_kernels.wkv7_step.reference import VECTORS


class Network7(Network[Layer]):
    """The step of an RWKV-7."""

    @staticmethod
    def uses(spec: ModelSpec) -> tuple[str, ...]:
        return ("multiply", "embed", "shift_mix", "prepare", "advance", "finish", "norm")

    def layer(self, index: int, slab: Slab) -> None:
        op, layer, spec, states = self.operations, self.weights.layers[index], self.weights.spec, self.store.states
        rows, width, heads, n = slab.rows, spec.n_embd, spec.n_head, spec.head_size
        at = index * spec.layer_floats
        x, v_first = self.x[:rows], self.v_first[:rows]
        mixed = self.room("mixed", 6, self.planes, rows, width, rows=rows, planes=True)
        projected = self.room("projected", rows, layer.rkv.outputs, rows=rows)
        low = self.room("low", self.planes, rows, layer.low.outputs, rows=rows, planes=True)
        vectors = self.room("vectors", VECTORS, rows, heads, n, rows=rows)
        y = self.room("y", rows, heads, n, rows=rows)
        gated = self.room("gated", 1, self.planes, rows, width, rows=rows, planes=True)

        op.shift_mix(x, layer.ln1.weight, layer.ln1.bias, layer.mixes, states, at, slab, mixed)
        op.multiply(layer.rkv, mixed, projected)
        op.multiply(layer.low, mixed, low, act=BY_PART)
        op.prepare(projected, low, layer.head, v_first, vectors)
        op.advance(vectors, states, at + width, slab, y)
        op.finish(y, vectors, layer.r_k, layer.ln_x.weight, layer.ln_x.bias, gated)
        op.multiply(layer.output, gated, x, residual=x)
        self._channel_mix(layer, at + width + width * n, slab)

    def _channel_mix(self, layer: Layer, at: int, slab: Slab) -> None:
        op, rows = self.operations, slab.rows
        x = self.x[:rows]
        mixed = self.room("mixed", 1, self.planes, rows, x.shape[1], rows=rows, planes=True)
        hidden = self.room("hidden", self.planes, rows, layer.ffn_key.outputs, rows=rows, planes=True)
        op.shift_mix(x, layer.ln2.weight, layer.ln2.bias, layer.ffn_mix, self.store.states, at, slab, mixed)
        op.multiply(layer.ffn_key, mixed, hidden, act=SQUARED_RELU)
        op.multiply(layer.ffn_value, hidden.unsqueeze(0), x, residual=x)
