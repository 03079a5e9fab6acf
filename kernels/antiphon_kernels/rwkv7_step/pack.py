"""A checkpoint's tensors, packed once into the flat arrays that the step kernel streams through.

Every linear weight becomes int8 bytes in blocks of 32 output rows, in the order in which the step reads them. A
matrix that the checkpoint holds in int8 is taken as it is; one that it holds in floating point (the low-rank ones)
is rounded to 16 bits, kept as two byte planes: w = (256 * high + low) * scale, |w| <= 32639 * scale. All else is
float32. The result is read-only for the kernel and may be shared by any number of timelines and threads.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.rwkv7_step.simd import BLOCK, vnni_bits

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

LEVELS = 127 * 256 + 127  # the largest 16-bit magnitude whose two byte planes both stay within a signed byte
ALIGN = 64  # bytes of a cache line
PAGE = 2 << 20  # bytes of a large page
SPARE = 16 << 10  # bytes past the end that a prefetch may name

# Columns of `plan`. A matrix takes MATRIX of them: byte offset, scale offset, blocks, inputs padded, planes, inputs.
MATRIX = 6
RECEPTANCE, KEY, VALUE, OUTPUT, FFN_KEY, W1, W2, A1, A2, V1, V2, G1, G2 = (MATRIX * i for i in range(13))
HEAD = 0  # the head's row of `plan` holds one matrix only
_VECTORS = MATRIX * 13
(
    LN1_W, LN1_B, LN2_W, LN2_B, LN_X_W, LN_X_B, X_R, X_W, X_K, X_V, X_A, X_G,
    W0, A0, V0, K_K, K_A, R_K, FFN_X_K, FFN_VALUE, FFN_VALUE_SCALE,
) = (_VECTORS + i for i in range(21))  # fmt: skip
PLAN_COLUMNS = _VECTORS + 21

# Entries of `sizes`.
N_LAYER, N_EMBD, N_HEAD, HEAD_SIZE, FFN_DIM, VOCAB, EMB, EMB_SCALE, LN0_W, LN0_B, LN_OUT_W, LN_OUT_B, WIDEST = range(13)
SIZES = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A model ready for the step kernel.

    `weights` [bytes]: int8 (rows as they are) or uint8 (+128, four inputs of 32 rows interleaved), and its type says
    which. `rows` int8: embedding rows and the transposed ffn.value. `floats` float32: scales, norms, mixes.
    `plan` int64 [n_layer + 1, PLAN_COLUMNS] and `sizes` int64 [SIZES]: where everything is.
    """

    weights: Array
    rows: Array
    floats: npt.NDArray[np.float32]
    plan: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @property
    def n_layer(self) -> int:
        return int(self.sizes[N_LAYER])

    @property
    def n_embd(self) -> int:
        return int(self.sizes[N_EMBD])

    @property
    def n_head(self) -> int:
        return int(self.sizes[N_HEAD])

    @property
    def head_size(self) -> int:
        return int(self.sizes[HEAD_SIZE])

    @property
    def vocab_size(self) -> int:
        return int(self.sizes[VOCAB])

    @property
    def state_len(self) -> int:
        """float32 numbers in one state: per layer att_x [D], wkv [H, N, N] (value, key), ffn_x [D]."""
        return self.n_layer * (2 * self.n_embd + self.n_embd * self.head_size)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by the packed model."""
        return sum(int(a.nbytes) for a in (self.weights, self.rows, self.floats, self.plan, self.sizes))


def pack(tensors: Tensors, *, interleave: bool | None = None) -> Packed:
    """Pack `tensors` (official RWKV-7 names; int8 `NAME` with float32 `NAME.scale`, or floating point).

    `interleave` chooses the layout of the weights, None the faster one here; the results are the same to the bit.
    Raises KeyError for a missing tensor and ValueError for shapes that do not fit together.
    """
    return _Packer(tensors, vnni_bits() > 0 if interleave is None else interleave).packed()


def split_16(values: Array) -> tuple[Array, Array]:
    """(high, low) signed byte planes of integers within LEVELS: values = 256 * high + low."""
    low = (values + 128) % 256 - 128
    return ((values - low) // 256).astype(np.int8), low.astype(np.int8)


def to_16_bits(weight: Array) -> tuple[Array, npt.NDArray[np.float32]]:
    """(integers [out, in] within LEVELS, scale [out]) nearest to a finite floating-point weight."""
    wide = weight.astype(np.float64)
    scale = (np.abs(wide).max(axis=1) / LEVELS).astype(np.float32)
    safe = np.where(scale > 0, scale, np.float32(1)).astype(np.float64)
    return np.clip(np.rint(wide / safe[:, None]), -LEVELS, LEVELS).astype(np.int64), scale


class _Packer:
    """Collects the arrays of one model, in the order in which the step reads them."""

    def __init__(self, tensors: Tensors, interleave: bool) -> None:
        self._tensors = tensors
        self._interleave = interleave
        self._weights: list[Array] = []
        self._weights_len = 0
        self._rows: list[Array] = []
        self._rows_len = 0
        self._floats: list[Array] = []
        self._floats_len = 0

    def packed(self) -> Packed:
        tensors = self._tensors
        vocab, width = tensors["emb.weight"].shape
        heads, head_size = tensors["blocks.0.att.r_k"].shape
        if heads * head_size != width:
            raise ValueError(f"blocks.0.att.r_k is {heads} x {head_size}, but emb.weight is {width} wide")
        layers = 0
        while f"blocks.{layers}.att.r_k" in tensors:
            layers += 1
        ffn_dim = tensors["blocks.0.ffn.key.weight"].shape[0]
        sizes = np.zeros(SIZES, np.int64)
        sizes[[N_LAYER, N_EMBD, N_HEAD, HEAD_SIZE, FFN_DIM, VOCAB]] = layers, width, heads, head_size, ffn_dim, vocab
        plan = np.zeros((layers + 1, PLAN_COLUMNS), np.int64)
        for layer in range(layers):
            self._layer(plan[layer], f"blocks.{layer}.", first=layer == 0, width=width, ffn_dim=ffn_dim)
        self._matrix(plan[layers], HEAD, "head.weight", (vocab, width))
        sizes[EMB], sizes[EMB_SCALE] = self._byte_rows("emb.weight", (vocab, width))
        for entry, name in (
            (LN0_W, "blocks.0.ln0.weight"),
            (LN0_B, "blocks.0.ln0.bias"),
            (LN_OUT_W, "ln_out.weight"),
            (LN_OUT_B, "ln_out.bias"),
        ):
            sizes[entry] = self._vector(name, width)
        padded = plan[:, [m + 3 for m in range(0, _VECTORS, MATRIX)]].max()
        blocks = plan[:, [m + 2 for m in range(0, _VECTORS, MATRIX)]].max()
        sizes[WIDEST] = _up(max(int(padded), int(blocks) * BLOCK, width, ffn_dim), ALIGN)
        return Packed(
            weights=_joined(self._weights, np.uint8 if self._interleave else np.int8),
            rows=_joined(self._rows, np.int8),
            floats=_joined(self._floats, np.float32),
            plan=plan,
            sizes=sizes,
        )

    def _layer(self, plan: Array, at: str, *, first: bool, width: int, ffn_dim: int) -> None:
        for column, name in ((RECEPTANCE, "receptance"), (KEY, "key"), (VALUE, "value")):
            self._matrix(plan, column, f"{at}att.{name}.weight", (width, width))
        for down, up, name in ((W1, W2, "w"), (A1, A2, "a"), (V1, V2, "v"), (G1, G2, "g")):
            if first and name == "v":
                continue
            rank = self._tensors[f"{at}att.{name}1"].shape[-1]
            self._matrix(plan, down, f"{at}att.{name}1", (rank, width), transpose=True)
            self._matrix(plan, up, f"{at}att.{name}2", (width, rank), transpose=True)
        self._matrix(plan, OUTPUT, f"{at}att.output.weight", (width, width))
        self._matrix(plan, FFN_KEY, f"{at}ffn.key.weight", (ffn_dim, width))
        plan[FFN_VALUE], plan[FFN_VALUE_SCALE] = self._byte_rows(
            f"{at}ffn.value.weight", (width, ffn_dim), transpose=True
        )
        for column, name in (
            (LN1_W, "ln1.weight"), (LN1_B, "ln1.bias"), (LN2_W, "ln2.weight"), (LN2_B, "ln2.bias"),
            (LN_X_W, "att.ln_x.weight"), (LN_X_B, "att.ln_x.bias"), (X_R, "att.x_r"), (X_W, "att.x_w"),
            (X_K, "att.x_k"), (X_V, "att.x_v"), (X_A, "att.x_a"), (X_G, "att.x_g"), (W0, "att.w0"), (A0, "att.a0"),
            (K_K, "att.k_k"), (K_A, "att.k_a"), (R_K, "att.r_k"), (FFN_X_K, "ffn.x_k"),
        ):  # fmt: skip
            plan[column] = self._vector(at + name, width)
        if not first:
            plan[V0] = self._vector(f"{at}att.v0", width)

    def _vector(self, name: str, size: int) -> int:
        vector = np.asarray(self._tensors[name], np.float32).reshape(-1)
        if vector.size != size:
            raise ValueError(f"{name} holds {vector.size} numbers, not {size}")
        return self._keep_floats(vector)

    def _keep_floats(self, vector: Array) -> int:
        at = self._floats_len
        kept = _padded(vector, _up(vector.size, ALIGN // 4))
        self._floats.append(kept)
        self._floats_len += kept.size
        return at

    def _byte_rows(self, name: str, shape: tuple[int, int], *, transpose: bool = False) -> tuple[int, int]:
        """(offset in rows, offset of the scales) of a matrix read row by row (embedding) or column by column."""
        weight = self._shaped(name, shape)
        if weight.dtype != np.int8:
            raise ValueError(f"{name} must be int8 with a {name}.scale, not {weight.dtype}")
        at = self._rows_len
        flat = np.ascontiguousarray(weight.T if transpose else weight).reshape(-1)
        kept = _padded(flat, _up(flat.size, ALIGN))
        self._rows.append(kept)
        self._rows_len += kept.size
        return at, self._keep_floats(self._scale(name, shape[0]))

    def _matrix(self, plan: Array, column: int, name: str, shape: tuple[int, int], *, transpose: bool = False) -> None:
        weight = self._shaped(name, shape[::-1] if transpose else shape)
        if weight.dtype == np.int8:
            planes, scale = [weight], self._scale(name, weight.shape[0])
            if transpose:
                raise ValueError(f"{name} is a low-rank weight; its int8 form has no agreed scale")
        else:
            if not np.isfinite(weight).all():
                raise ValueError(f"{name} holds a NaN or an infinity")
            whole, scale = to_16_bits(weight.T if transpose else weight)
            planes = list(split_16(whole))
        outputs, inputs = shape
        blocks, padded = _up(outputs, BLOCK) // BLOCK, _up(inputs, 4)
        bytes_ = np.zeros((blocks, len(planes), BLOCK, padded), np.int8)
        for index, plane in enumerate(planes):
            full = np.zeros((blocks * BLOCK, padded), np.int8)
            full[:outputs, :inputs] = plane
            bytes_[:, index] = full.reshape(blocks, BLOCK, padded)
        flat = self._laid_out(bytes_.reshape(-1, BLOCK, padded))
        plan[column : column + MATRIX] = (
            self._weights_len,
            self._keep_floats(_padded(scale, blocks * BLOCK)),
            blocks,
            padded,
            len(planes),
            inputs,
        )
        self._weights.append(flat)
        self._weights_len += flat.size

    def _laid_out(self, blocks: Array) -> Array:
        if not self._interleave:
            return blocks.reshape(-1)
        quads = blocks.reshape(blocks.shape[0], BLOCK, -1, 4).transpose(0, 2, 1, 3)
        return (quads.astype(np.int16) + 128).astype(np.uint8).reshape(-1)

    def _shaped(self, name: str, shape: tuple[int, int]) -> Array:
        weight = np.asarray(self._tensors[name])
        if weight.shape != shape:
            raise ValueError(f"{name} is {'x'.join(map(str, weight.shape))}, not {shape[0]}x{shape[1]}")
        return weight

    def _scale(self, name: str, outputs: int) -> Array:
        scale = np.asarray(self._tensors[f"{name}.scale"], np.float32).reshape(-1)
        if scale.size != outputs:
            raise ValueError(f"{name}.scale holds {scale.size} numbers, not {outputs}")
        return scale


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _padded(array: Array, size: int) -> Array:
    return array if array.size == size else np.concatenate([array, np.zeros(size - array.size, array.dtype)])


def _joined(parts: list[Array], dtype: Any) -> Array:
    """`parts` in one read-only array in memory of its own, which begins on a 2 MiB page and ends with lines to spare.

    Large pages save the step most of its address translations; the spare lines are what it may prefetch.
    """
    used = sum(part.nbytes for part in parts)
    memory = mmap.mmap(-1, _up(used + SPARE, PAGE) + PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages plays all the same
            memory.madvise(mmap.MADV_HUGEPAGE)
    spare = np.frombuffer(memory, np.uint8)
    start = -spare.ctypes.data % PAGE
    joined: Array = spare[start : start + used].view(dtype)
    np.concatenate(parts, out=joined)
    joined.flags.writeable = False
    return joined
