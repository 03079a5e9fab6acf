"""Int8 and back: each row of a big matrix as whole numbers −127…127 and one scale."""

from __future__ import annotations

import torch

from antiphon.model.checkpoint import Checkpoint, quantized_names


def quantize_int8(checkpoint: Checkpoint) -> Checkpoint:
    """The int8 form: scale = largest magnitude of the row / 127; low-rank matrices and all else float32."""
    matrices = quantized_names(checkpoint.spec)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in dequantize(checkpoint).tensors.items():
        if name not in matrices:
            tensors[name] = tensor
            continue
        scale = tensor.abs().amax(dim=1) / 127.0
        # A row of zeros has no scale; any will do, and 1 divides safely.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        tensors[name] = torch.round(tensor / scale.unsqueeze(1)).clamp(-127, 127).to(torch.int8)
        tensors[f"{name}.scale"] = scale
    return Checkpoint(spec=checkpoint.spec, tensors=tensors, metadata=checkpoint.metadata)


def dequantize(checkpoint: Checkpoint) -> Checkpoint:
    """All tensors in float32, scales multiplied in; a float checkpoint only changes its dtype."""
    tensors: dict[str, torch.Tensor] = {}
    for name in checkpoint.spec.shapes():
        tensor = checkpoint.tensors[name].float()
        scale = checkpoint.tensors.get(f"{name}.scale")
        tensors[name] = tensor if scale is None else tensor * scale.unsqueeze(1)
    return Checkpoint(spec=checkpoint.spec, tensors=tensors, metadata=checkpoint.metadata)
