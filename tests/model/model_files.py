"""Models in the forms in which others keep them, written by the descriptions of those forms and nothing of ours."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from antiphon.model.spec import ModelSpec, Version

Tensors = Mapping[str, Tensor]


def spec_of(version: Version, *, n_layer: int = 2, n_embd: int = 96, head_size: int = 32) -> ModelSpec:
    """A small model with an odd vocabulary, whose low-rank matrices are all oblong."""
    return ModelSpec.of_width(version=version, n_layer=n_layer, n_embd=n_embd, vocab_size=29, head_size=head_size)


def random_tensors(spec: ModelSpec, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Every tensor of the spec, normally distributed."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in spec.shapes().items()}


def write_candle(path: Path, tensors: Tensors) -> Path:
    """Candle's form: squeezed, float32, its own names, low-rank matrices as linear layers."""
    outside = {"emb.weight": "model.embeddings.weight", "head.weight": "lm_head.weight",
               "ln_out.weight": "model.norm.weight", "ln_out.bias": "model.norm.bias"}  # fmt: skip
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.squeeze().float()
        if name in outside:
            written[outside[name]] = tensor
            continue
        _, layer, part = name.split(".", 2)
        part = part.replace("ln0.", "pre_norm.").replace("ln1.", "attn_norm.").replace("ln2.", "ffn_norm.")
        part = part.replace("att.ln_x.", "attn.g_norm.").replace("att.", "attn.")
        for linear in ("receptance", "key", "value", "output"):
            part = part.replace(f"attn.{linear}.", f"attn.{linear[0]}_proj.")
        if part[5:6] in "wavg" and part[6:] in ("0", "1", "2"):
            tensor = tensor if part.endswith("0") else tensor.T
            lora = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}[part[-1]]
            part = f"attn.{part[5]}_lora.lora.{lora}"
        written[f"model.layers.{layer}.{part}"] = tensor.contiguous()
    save_file(written, path)
    return path


WEB_TURNED = ("time_mix_w1", "time_mix_w2", "time_decay_w1", "time_decay_w2", ".w1", ".w2", ".a1", ".a2", ".g1",
              ".g2", ".v1", ".v2", "time_state")  # fmt: skip


def write_web_rwkv(path: Path, tensors: Tensors, version: Version) -> Path:
    """Web-rwkv's form, as its converter writes it."""
    width = tensors["emb.weight"].shape[1]
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if version is Version.V5_1 and ("time_decay" in name or "time_faaaa" in name):
            tensor = tensor.unsqueeze(1).repeat(1, width // tensor.shape[0])
        name = name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix").lower()
        if any(part in name for part in WEB_TURNED):
            tensor = tensor.transpose(-2, -1)
        written[name] = tensor.half().contiguous()
    save_file(written, path, metadata={"format": "pt"})
    return path


def rwkv_cpp_tensors(tensors: Tensors, version: Version) -> dict[str, Tensor]:
    """What rwkv.cpp's converter makes of a model, in float32."""
    made: dict[str, Tensor] = {}
    mixes: dict[str, list[Tensor]] = {}
    fifth = version in (Version.V5_0, Version.V5_1, Version.V5_2)
    for name, tensor in tensors.items():
        tensor = tensor.float()
        part = name.rpartition("att.")[2]
        if ".time_" in name:
            tensor = tensor.squeeze()
        if version is Version.V7 and part in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g"):
            mixes.setdefault(name[:-1] + "rwkvag", []).append(tensor.view(1, 1, -1))
            continue
        if part in ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2", "time_maa_w1", "time_decay_w1", "time_decay_w2"):
            tensor = tensor.T
        elif part == "time_maa_w2":
            tensor = tensor.permute(0, 2, 1)
        elif version is Version.V4 and part == "time_decay":
            tensor = -torch.exp(tensor)
        elif version is Version.V6 and part == "time_decay":
            tensor = tensor.view(-1, 32, 1)
        elif part == "time_faaaa":
            tensor = tensor.unsqueeze(-1)
        elif fifth and part == "time_decay":
            decay = torch.exp(-torch.exp(tensor))
            tensor = decay.reshape(-1, 1, 1) if version is Version.V5_0 else decay.unsqueeze(-1)
        elif fifth and part == "time_first":
            tensor = torch.exp(tensor).reshape(-1, 1, 1)
        made[name] = tensor.contiguous()
    made.update({name: torch.cat(parts) for name, parts in mixes.items()})
    return made


F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = 0, 1, 2, 3, 7, 8, 9


def write_rwkv_cpp(path: Path, tensors: Tensors, spec: ModelSpec, *, kind: int = F32, file_version: int = 101) -> Path:
    """Rwkv.cpp's form of a model. `kind` is that of its big matrices; the small tensors stay float32."""
    content = struct.pack("<6I", 0x67676D66, file_version, spec.vocab_size, spec.n_embd, spec.n_layer, kind)
    for name, tensor in rwkv_cpp_tensors(tensors, spec.version).items():
        matrix = tensor.dim() > 1 and ".time_" not in name and name.endswith(".weight")
        # Embedding and head are never quantized, only halved.
        own = F32 if not matrix else F16 if kind != F32 and not name.startswith("blocks") else kind
        content += tensor_record(name, tuple(tensor.shape), own, numbers(tensor, own))
    path.write_bytes(content)
    return path


def tensor_record(name: str, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    """One tensor of such a file."""
    key = name.encode()
    return struct.pack(f"<3I{len(shape)}I", len(shape), len(key), kind, *reversed(shape)) + key + data


def numbers(tensor: Tensor, kind: int) -> bytes:
    """A tensor's numbers in rwkv.cpp's type `kind`."""
    if kind == F32:
        return tensor.float().numpy().tobytes()
    if kind == F16:
        return tensor.half().numpy().tobytes()
    return b"".join(BLOCKS[kind](block) for block in tensor.float().numpy().reshape(-1, 32))


def q8_0(x: np.ndarray) -> bytes:
    step = np.float16(np.abs(x).max() / 127)
    q = np.round(x / np.float32(step)).clip(-127, 127).astype(np.int8)
    return step.tobytes() + q.tobytes()


def signed(bits: int) -> Callable[[np.ndarray], bytes]:
    half = 1 << (bits - 1)

    def block(x: np.ndarray) -> bytes:
        step = np.float16(np.abs(x).max() / (half - 1))
        q = (np.round(x / np.float32(step)) + half).clip(0, 2 * half - 1).astype(np.uint32)
        return step.tobytes() + fifth_bits(q, bits) + nibbles(q)

    return block


def offset(bits: int) -> Callable[[np.ndarray], bytes]:
    top = (1 << bits) - 1

    def block(x: np.ndarray) -> bytes:
        least, step = np.float16(x.min()), np.float16((x.max() - x.min()) / top)
        q = np.round((x - np.float32(least)) / np.float32(step)).clip(0, top).astype(np.uint32)
        return step.tobytes() + least.tobytes() + fifth_bits(q, bits) + nibbles(q)

    return block


def nibbles(q: np.ndarray) -> bytes:
    """Numbers 0…15 in the low halves, 16…31 in the high ones."""
    return bytes(int(q[i] & 15) | int(q[i + 16] & 15) << 4 for i in range(16))


def fifth_bits(q: np.ndarray, bits: int) -> bytes:
    if bits == 4:
        return b""
    return sum(int(number >> 4) << place for place, number in enumerate(q)).to_bytes(4, "little")


BLOCKS: dict[int, Callable[[np.ndarray], bytes]] = {
    Q4_0: signed(4), Q4_1: offset(4), Q5_0: signed(5), Q5_1: offset(5), Q8_0: q8_0,
}  # fmt: skip
