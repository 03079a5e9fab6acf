"""Adapters: what fine-tuning learnt beside a model, found by the shapes of its tensors, merged or kept thin.

An adapter file holds, for a linear weight `P.weight` [out, in],

    LoRA         `P.lora_A` [r, in], `P.lora_B` [out, r]       W + (alpha / r) B A
    PiSSA        the same, and the factors it began with       bf16(W - B0 A0) + B A
    DiSHA-Bone   `P.disha` [r, out]                            W[:, c] + disha[c mod r, :] for every input c
    DiSHA-Bat    `P.disha` [in / r, r, r]                      W[a, b] + W[a, b] D[b] + D[b], in blocks of r x r

and whatever else was trained with it, which takes the place of the model's own tensors. Names have changed from
release to release (`bone`, `lora.0`, a leading `model.`), so that only the last part of a name says which factor it is
and shapes decide the rest. Source of the forms: RWKV-PEFT (rwkvt/peft/rwkvLinear.py) and "DiSHA: Dimension-Sharding
Adaptation" (arXiv 2409.15371).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.stored import StoredTensor

Rounding = Callable[[Tensor], Tensor]
"""What a quantized base does to a residual before anything is learnt: float32 [out, in] to the same."""


Parts = Mapping[str, StoredTensor]
"""A file's tensors by their names, none read yet."""


class AdapterKind(StrEnum):
    """How an adapter changes a weight."""

    LORA = "lora"
    PISSA = "pissa"
    BONE = "bone"
    BAT = "bat"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Thin:
    """An adapter beside its weight W, for a model that stays as it is: y = W x + after (before x).

    before: float32 [rank, in]; after: float32 [out, rank].
    """

    before: Tensor
    after: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LowRank:
    """LoRA on one weight: `down` [r, in] and `up` [out, r] in float32, the scale alpha / r multiplied into `up`."""

    down: Tensor
    up: Tensor

    kind = AdapterKind.LORA

    def merged(self, weight: Tensor) -> Tensor:
        """The weight with the adapter in it, float32 [out, in]."""
        return weight.float() + self.up @ self.down

    def thin(self) -> Thin:
        """The unmerged form."""
        return Thin(before=self.down, after=self.up)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Principal:
    """PiSSA on one weight: the factors as learnt, and those that were cut out of the weight before, all float32.

    `rounding` is what a quantized base did to the residual; the trainer holds it in bfloat16 in any case.
    """

    down: Tensor
    up: Tensor
    first_down: Tensor
    first_up: Tensor
    rounding: Rounding | None = None

    kind = AdapterKind.PISSA

    def merged(self, weight: Tensor) -> Tensor:
        """The weight with the adapter in it, float32 [out, in]."""
        residual = weight.float() - self.first_up @ self.first_down
        if self.rounding is not None:
            residual = self.rounding(residual)
        return residual.bfloat16().float() + self.up @ self.down

    def thin(self) -> Thin:
        """The unmerged form: both products beside a weight that was never cut. It knows nothing of the rounding."""
        return Thin(before=torch.cat([self.down, self.first_down]), after=torch.cat([self.up, -self.first_up], dim=1))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bone:
    """DiSHA-Bone on one weight: `shards` [r, out] in float32, added to every r-th input's column."""

    shards: Tensor

    kind = AdapterKind.BONE

    def merged(self, weight: Tensor) -> Tensor:
        """The weight with the adapter in it, float32 [out, in]."""
        rows = torch.arange(weight.shape[1]) % self.shards.shape[0]
        return weight.float() + self.shards[rows].T

    def thin(self, inputs: int) -> Thin:
        """The unmerged form: the inputs folded into r sums, times the shards."""
        rank = self.shards.shape[0]
        fold = torch.zeros(rank, inputs)
        fold[torch.arange(inputs) % rank, torch.arange(inputs)] = 1.0
        return Thin(before=fold, after=self.shards.T.contiguous())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bat:
    """DiSHA-Bat on one weight: `blocks` [in / r, r, r] in float32. It changes the weight by itself, so merged only."""

    blocks: Tensor

    kind = AdapterKind.BAT

    def merged(self, weight: Tensor) -> Tensor:
        """The weight with the adapter in it, float32 [out, in]."""
        count, rank, _ = self.blocks.shape
        cut = weight.float().view(weight.shape[0] // rank, rank, count, rank).permute(0, 2, 1, 3)
        cut = cut + cut @ self.blocks + self.blocks
        return cut.permute(0, 2, 1, 3).reshape(weight.shape)


Change = LowRank | Principal | Bone | Bat
"""What an adapter does to one weight."""

_FACTOR = re.compile(
    r"(?P<prefix>.+?)\.(?P<first>init_)?(?:lora_(?P<letter>[abAB])|lora\.(?P<number>[01])|(?P<disha>disha|bone))"
    r"(?:\.default)?(?:\.weight)?"
)
_LEADING = ("base_model.", "_forward_module.", "model.")
_STATE = re.compile(r"blocks\.\d+\.att\.time_state")
_FIX = "give an adapter that was trained on this model"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Adapter:
    """What one adapter file does to a model: `changes` by the weight's name, and tensors that are replaced whole.

    `states` is the start state that was learnt along with it, if there is one.
    """

    where: str
    changes: dict[str, Change]
    replaced: dict[str, Tensor] = field(default_factory=dict)
    states: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[AdapterKind, ...]:
        """The kinds of its changes, each once."""
        return tuple(kind for kind in AdapterKind if any(change.kind is kind for change in self.changes.values()))

    @classmethod
    def of(
        cls,
        parts: Parts,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        where: str,
        alpha: float | None = None,
        first: Parts | None = None,
        rounding: Rounding | None = None,
    ) -> Adapter:
        """The adapter in `parts` for a model whose tensors have `shapes`.

        alpha: LoRA's, which its files do not hold. first: the file of the factors PiSSA began with, if apart.
        rounding: see `Principal`. Raises FileError when it is none, not for this model, or alpha is wanted and None.
        """
        factors: dict[str, dict[str, tuple[str, StoredTensor]]] = {}
        replaced: dict[str, Tensor] = {}
        states: dict[str, StoredTensor] = {}
        for name, part in parts.items():
            plain = _plain(name)
            found = _FACTOR.fullmatch(plain)
            if found is not None:
                factors.setdefault(found["prefix"], {})[_role(found)] = (name, part)
            elif _STATE.fullmatch(plain):
                states[plain] = part
            else:
                replaced[plain] = _replacement(part, name, shapes.get(plain), where)
        if not factors and not replaced:
            raise FileError("holds no adapter", where=where, fix="give a LoRA, PiSSA, Bone or Bat file")
        begun = _first_factors(first) if first is not None else {}
        changes = {}
        for prefix, roles in factors.items():
            target = f"{prefix}.weight"
            shape = shapes.get(target)
            if shape is None or len(shape) != 2:
                raise FileError(f"it changes {target}, which the model does not have", where=where, fix=_FIX)
            found_factors = _Factors(roles={**roles, **begun.get(prefix, {})}, where=where)
            changes[target] = _change(found_factors, prefix, shape, alpha, rounding, needs_first=first is not None)
        return cls(where=where, changes=changes, replaced=replaced, states=states)

    def merged(self, name: str, tensor: Tensor) -> Tensor:
        """The model's tensor `name` with the adapter in it, in the dtype of `tensor`."""
        base = self.replaced.get(name)
        if base is not None:
            base = base.to(tensor.dtype).view(tensor.shape)
        change = self.changes.get(name)
        if change is None:
            return tensor if base is None else base
        return change.merged(tensor if base is None else base).to(tensor.dtype)

    def thin(self, name: str, *, inputs: int) -> Thin | None:
        """The unmerged form for the weight `name` [out, inputs], None where the adapter does not touch it.

        ValueError for a Bat, which has none.
        """
        change = self.changes.get(name)
        if change is None:
            return None
        if isinstance(change, Bat):
            raise ValueError("a Bat adapter changes the weight by itself: merge it")
        return change.thin(inputs) if isinstance(change, Bone) else change.thin()

    @property
    def mergeable_only(self) -> bool:
        """Whether it must be merged: it replaces tensors, or has no thin form."""
        return bool(self.replaced) or any(isinstance(change, Bat) for change in self.changes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Factors:
    """The tensors of one weight by the role that each plays."""

    roles: dict[str, tuple[str, StoredTensor]]
    where: str

    def shape(self, role: str) -> tuple[int, ...]:
        return self.roles[role][1].shape

    def read(self, role: str) -> Tensor:
        name, part = self.roles[role]
        return _finite(part, name, self.where)


def _change(
    factors: _Factors,
    prefix: str,
    shape: tuple[int, ...],
    alpha: float | None,
    rounding: Rounding | None,
    *,
    needs_first: bool,
) -> Change:
    out, inputs = shape
    where = factors.where
    if "disha" in factors.roles:
        return _disha(factors, prefix, out, inputs)
    down, up = _factors(factors, prefix, "down", "up", out, inputs)
    if "first_down" in factors.roles or "first_up" in factors.roles:
        first_down, first_up = _factors(factors, prefix, "first_down", "first_up", out, inputs)
        return Principal(down=down, up=up, first_down=first_down, first_up=first_up, rounding=rounding)
    if needs_first:
        raise FileError(f"{prefix} is missing among the factors that PiSSA began with", where=where, fix=_FIX)
    if alpha is None:
        raise FileError(
            "a LoRA, whose alpha is not in the file", where=where, fix='give --alpha, or write {"alpha": A} beside it'
        )
    return LowRank(down=down, up=up * (alpha / down.shape[0]))


def _factors(
    factors: _Factors, prefix: str, down_role: str, up_role: str, out: int, inputs: int
) -> tuple[Tensor, Tensor]:
    """The two factors as [r, in] and [out, r], whichever way round the file has them."""
    missing = [role for role in (down_role, up_role) if role not in factors.roles]
    if missing:
        raise FileError(f"{prefix} has one of its two factors only", where=factors.where, fix=_FIX)
    down_shape, up_shape = factors.shape(down_role), factors.shape(up_role)
    if len(down_shape) == 2 and len(up_shape) == 2:
        for down_turned in (False, True):
            for up_turned in (False, True):
                rank, width = down_shape[::-1] if down_turned else down_shape
                height, up_rank = up_shape[::-1] if up_turned else up_shape
                if (width, height, rank) == (inputs, out, up_rank) and rank > 0:
                    down, up = factors.read(down_role), factors.read(up_role)
                    return down.T.contiguous() if down_turned else down, up.T.contiguous() if up_turned else up
    raise FileError(
        f"{prefix} has factors {list(down_shape)} and {list(up_shape)}, which do not fit its weight [{out}, {inputs}]",
        where=factors.where,
        fix=_FIX,
    )


def _disha(factors: _Factors, prefix: str, out: int, inputs: int) -> Bone | Bat:
    shape = factors.shape("disha")
    if len(shape) == 2 and shape[1] == out and shape[0] > 0:
        return Bone(shards=factors.read("disha"))
    if len(shape) == 3 and shape[1] == shape[2] > 0 and shape[0] * shape[1] == inputs and out % shape[1] == 0:
        return Bat(blocks=factors.read("disha"))
    raise FileError(
        f"{prefix} has {list(shape)}, neither Bone's [r, {out}] nor Bat's [{inputs} / r, r, r]",
        where=factors.where,
        fix="merge an adapter of an older form with the trainer it comes from",
    )


def _replacement(part: StoredTensor, name: str, shape: tuple[int, ...] | None, where: str) -> Tensor:
    """A tensor that was trained along, when the model has one of that name and size."""
    found = part.shape
    if shape is None:
        raise FileError(f"tensor {name} is neither an adapter's nor the model's", where=where, fix=_FIX)
    if [size for size in found if size != 1] != [size for size in shape if size != 1]:
        raise FileError(f"tensor {name} has shape {list(found)}, and the model's {list(shape)}", where=where, fix=_FIX)
    return _finite(part, name, where)


def _first_factors(first: Parts) -> dict[str, dict[str, tuple[str, StoredTensor]]]:
    """The factors that PiSSA began with, by weight; `init_` may or may not stand in their names."""
    begun: dict[str, dict[str, tuple[str, StoredTensor]]] = {}
    for name, part in first.items():
        found = _FACTOR.fullmatch(_plain(name))
        if found is not None and not found["disha"]:
            begun.setdefault(found["prefix"], {})[f"first_{_role(found).removeprefix('first_')}"] = (name, part)
    return begun


def _role(found: re.Match[str]) -> str:
    if found["disha"]:
        return "disha"
    role = "down" if (found["letter"] or found["number"]) in "aA0" else "up"
    return f"first_{role}" if found["first"] else role


def _plain(name: str) -> str:
    """The name without what trainers put in front of it."""
    while True:
        for leading in _LEADING:
            if name.startswith(leading):
                name = name.removeprefix(leading)
                break
        else:
            return name


def _finite(part: StoredTensor, name: str, where: str) -> Tensor:
    tensor = part.read().float()
    if not bool(torch.isfinite(tensor).all()):
        raise FileError(f"tensor {name} holds a NaN or an infinity", where=where, fix="train it again")
    return tensor
