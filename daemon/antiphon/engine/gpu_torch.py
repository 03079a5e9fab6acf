"""RWKV-4, 5 and 6 on a device, in plain PyTorch: the model's definition, with weights that lie in any precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from antiphon.engine.gpu_network import Part, Size, Store
from antiphon.engine.gpu_weights import Tensors, matrix_of
from antiphon.model import reference
from antiphon.model.precision import Precision
from antiphon_kernels.linear.on_device import Matrix, dequantized


class HeldWeights(Mapping[str, Tensor]):
    """Every tensor of a model in float32, made so when asked for; large matrices lie in `precision` until then."""

    def __init__(self, tensors: Tensors, precision: Precision, device: torch.device) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._matrices: dict[str, Matrix] = {}
        for name, shape in tensors.spec.shapes().items():
            if len(shape) == 2 and name.endswith(".weight") and name != "emb.weight":
                self._matrices[name] = matrix_of(tensors, name, precision, device)
            else:
                self._tensors[name] = tensors.read(name).float().to(device)

    @property
    def nbytes(self) -> int:
        """Bytes that all of them hold."""
        return sum(x.nbytes for x in self._tensors.values()) + sum(x.nbytes for x in self._matrices.values())

    def __getitem__(self, name: str) -> Tensor:
        matrix = self._matrices.get(name)
        return self._tensors[name] if matrix is None else dequantized(matrix)[: matrix.outputs]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._tensors, *self._matrices))

    def __len__(self) -> int:
        return len(self._tensors) + len(self._matrices)


class NetworkPlain:
    """The step of one model over the sequences of one store, one sequence after the other."""

    captures = False

    def __init__(self, tensors: Tensors, store: Store, *, precision: Precision, device: torch.device) -> None:
        self.store = store
        self.spec = tensors.spec
        self.weights = HeldWeights(tensors, precision, device)
        self.ln_x_eps = tensors.ln_x_eps
        self.device = device

    def begin(self, parts: Sequence[Part]) -> PassagePlain:
        return PassagePlain(self, parts)

    def capture(self, size: Size) -> None:
        """Nothing here is captured."""

    def forget_graphs(self) -> None:
        """There are none."""


class PassagePlain:
    """One slab on its way, a sequence a piece."""

    def __init__(self, network: NetworkPlain, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self.size = Size.of(parts)
        self.scored = any(part.scored for part in parts)
        self.scores: Tensor | None = None
        self._network = network
        self._nats: list[Tensor] = []
        self._at = 0

    @property
    def ahead(self) -> tuple[Size, int] | None:
        return (self.size, self._at) if self._at < len(self.parts) else None

    def step(self) -> None:
        network, part = self._network, self.parts[self._at]
        store = network.store
        state = reference.unpack(network.spec, store.states[part.slot].clone())
        ids = torch.tensor(part.ids, dtype=torch.long, device=network.device)
        with torch.inference_mode():
            logits, after = reference.sequence(network.spec, network.weights, ids, state, ln_x_eps=network.ln_x_eps)
            if self.scored:
                known = torch.cat([store.logits[part.slot].unsqueeze(0), logits[:-1]]).double()
                cost = known.logsumexp(dim=1) - known.gather(1, ids.unsqueeze(1)).squeeze(1)
                self._nats.append(cost.float())
            store.states[part.slot].copy_(reference.pack(after))
            store.logits[part.slot].copy_(logits[-1])
        self._at += 1
        if self.scored and self._at == len(self.parts):
            self.scores = torch.cat(self._nats)
