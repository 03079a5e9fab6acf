"""An RWKV-7's weights on a device, in the precision asked for; read one by one, so that little lies there twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from antiphon.engine.gpu_network import B, Norm, Weights
from antiphon.model.precision import Precision, quantize
from antiphon.model.spec import ModelSpec
from antiphon_kernels.block7.reference import OF_A, OF_G, OF_K, OF_R, OF_V, OF_W, HeadWeights
from antiphon_kernels.linear.on_device import IDENTITY, SIGMOID, TANH, Matrix, lay_out, pack_int4, stack

FLOATS = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class Tensors(Protocol):
    """A model's tensors, one at a time, under official names: an opened file, for one."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def ln_x_eps(self) -> float: ...

    def read(self, name: str) -> Tensor: ...

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One block. mixes: float32 [6, D] in the order r, w, k, v, a, g; ffn_mix: [1, D]; r_k: [D]."""

    ln1: Norm
    mixes: Tensor
    rkv: Matrix
    low: Matrix
    head: HeadWeights
    r_k: Tensor
    ln_x: Norm
    output: Matrix
    ln2: Norm
    ffn_mix: Tensor
    ffn_key: Matrix
    ffn_value: Matrix

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        return (self.rkv, self.low, self.output, self.ffn_key, self.ffn_value)

    @property
    def nbytes(self) -> int:
        raising = (self.head.w2, self.head.a2, self.head.g2, *((self.head.v2,) if self.head.v2 else ()))
        return sum(matrix.nbytes for matrix in (*self.matrices, *raising))


def load(tensors: Tensors, precision: Precision, device: torch.device) -> Weights[Layer]:
    """Lay an RWKV-7 out on `device`."""
    reader = Reader(tensors, precision, device)
    return reader.whole(tuple(reader.layer(index) for index in range(tensors.spec.n_layer)))


def matrix_of(tensors: Tensors, name: str, precision: Precision, device: torch.device | str) -> Matrix:
    """A linear layer in `precision`; as the file has it where it has it so already.

    What multiplies the hidden units of a channel mix lies by them, since most are zero.
    """
    by_input = name.endswith("ffn.value.weight")
    if precision in FLOATS:
        return lay_out(tensors.read(name).to(FLOATS[precision]), None, device=device, by_input=by_input)
    kept = tensors.read_quantized(name)
    by_row = precision is Precision.INT8
    if kept is not None and (kept[1].ndim == 1) == by_row and _narrow(kept[0]) == (precision is Precision.INT4):
        values, scale = kept
        group = 0 if by_row else values.shape[1] // scale.shape[1]
    else:
        quantized = quantize(tensors.read(name).float(), precision)
        values, scale, group = quantized.values, quantized.scale, quantized.group
    if precision is Precision.INT4 and scale.ndim == 2:
        values = pack_int4(values)
    return lay_out(values, scale, device=device, group=group if scale.ndim == 2 else 0, by_input=by_input)


def _narrow(values: Tensor) -> bool:
    """Whether whole numbers fit four bits."""
    return bool((values.min() >= -8) & (values.max() <= 7))


class Reader:
    """Reads a model's tensors onto a device."""

    def __init__(self, tensors: Tensors, precision: Precision, device: torch.device) -> None:
        self._tensors = tensors
        self._precision = precision
        self._device = device

    def vector(self, name: str) -> Tensor:
        return self._tensors.read(name).float().flatten().to(self._device).contiguous()

    def norm(self, name: str) -> Norm:
        return Norm(weight=self.vector(f"{name}.weight"), bias=self.vector(f"{name}.bias"))

    def matrix(self, name: str) -> Matrix:
        return matrix_of(self._tensors, name, self._precision, self._device)

    def whole(self, layers: tuple[B, ...]) -> Weights[B]:
        """The layers, and what stands before and after them."""
        tensors, device = self._tensors, self._device
        kept = tensors.read_quantized("emb.weight")
        embedding, scales = (tensors.read("emb.weight"), None) if kept is None else kept
        return Weights(
            spec=tensors.spec,
            embedding=embedding.to(device).contiguous(),
            embedding_scales=None if scales is None else scales.float().to(device),
            ln0=self.norm("blocks.0.ln0"),
            layers=layers,
            ln_out=self.norm("ln_out"),
            head=self.matrix("head.weight"),
        )

    def low_rank(self, tensor: Tensor) -> Matrix:
        """The transpose of a low-rank matrix, in 16 bits: those it has, else float16's."""
        if self._precision is Precision.FP32:
            tensor = tensor.float()
        elif tensor.dtype != torch.bfloat16:
            tensor = tensor.half()
        return lay_out(tensor.T.contiguous(), None, device=self._device)

    def layer(self, index: int) -> Layer:
        block = f"blocks.{index}"
        att = f"{block}.att"
        rkv = [self.matrix(f"{att}.{name}.weight") for name in ("receptance", "key", "value")]
        lowered = [("w", OF_W, TANH), ("a", OF_A, IDENTITY), ("v", OF_V, IDENTITY), ("g", OF_G, SIGMOID)]
        names = [part for part in lowered if index or part[0] != "v"]
        low = stack(
            _same_form([self.low_rank(self._tensors.read(f"{att}.{name}1")) for name, _, _ in names]),
            sources=[source for _, source, _ in names],
            acts=[act for _, _, act in names],
        )
        starts = {name: start for (name, _, _), start in zip(names, low.starts, strict=True)}
        raising = dict(
            zip(
                starts,
                _same_form([self.low_rank(self._tensors.read(f"{att}.{name}2")) for name in starts]),
                strict=True,
            )
        )
        head = HeadWeights(
            w0=self.vector(f"{att}.w0"),
            a0=self.vector(f"{att}.a0"),
            v0=self.vector(f"{att}.v0") if index else None,
            k_k=self.vector(f"{att}.k_k"),
            k_a=self.vector(f"{att}.k_a"),
            w2=raising["w"],
            a2=raising["a"],
            v2=raising.get("v"),
            g2=raising["g"],
            starts=(starts["w"], starts["a"], starts.get("v", 0), starts["g"]),
        )
        return Layer(
            ln1=self.norm(f"{block}.ln1"),
            mixes=torch.stack([self.vector(f"{att}.x_{name}") for name in "rwkvag"]),
            rkv=stack(rkv, sources=[OF_R, OF_K, OF_V]),
            low=low,
            head=head,
            r_k=self.vector(f"{att}.r_k"),
            ln_x=self.norm(f"{att}.ln_x"),
            output=self.matrix(f"{att}.output.weight"),
            ln2=self.norm(f"{block}.ln2"),
            ffn_mix=self.vector(f"{block}.ffn.x_k").unsqueeze(0),
            ffn_key=self.matrix(f"{block}.ffn.key.weight"),
            ffn_value=self.matrix(f"{block}.ffn.value.weight"),
        )


def _same_form(matrices: list[Matrix]) -> list[Matrix]:
    """The matrices, for which one form is needed; where a file mixes 16-bit types, float16."""
    if len({matrix.form for matrix in matrices}) == 1:
        return matrices
    device = matrices[0].values.device
    return [
        lay_out(matrix.values[: matrix.outputs, : matrix.inputs].half(), None, device=device) for matrix in matrices
    ]
