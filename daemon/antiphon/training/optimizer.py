"""What moves the weights: Muon for the large matrices of the blocks, AdamW for all else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) gives every direction of a matrix a step of the
same size; its steps are scaled as in Liu et al. (arXiv 2502.16982), so that both halves live on one learning rate and
one weight decay. AdamW's groups are those of the official RWKV trainer: decay on matrices called `.weight`, and w0 at
twice the rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from antiphon.errors import FileError

_MUON_MOMENTUM = 0.95


class Optimizer:
    """One or two of torch's optimisers as one; `lr` is handed to each step."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        kind: str,
        muon_lr_factor: float,
        weight_decay: float,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        """`parameters`: (official name, parameter) in a fixed order. Muon's rate is `muon_lr_factor` times AdamW's."""
        matrices: list[Tensor] = []
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in parameters:
            if kind == "muon" and _is_block_matrix(name, parameter):
                matrices.append(parameter)
                continue
            decays = name.endswith(".weight") and parameter.squeeze().dim() >= 2
            key = (weight_decay if decays else 0.0, 2.0 if name.endswith("att.w0") else 1.0)
            groups.setdefault(key, []).append(parameter)
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if groups:
            self._parts["adamw"] = torch.optim.AdamW(
                [{"params": p, "weight_decay": decay, "lr_factor": factor} for (decay, factor), p in groups.items()],
                betas=betas,
                eps=epsilon,
                fused=True,
            )
        if matrices:
            self._parts["muon"] = torch.optim.Muon(
                [{"params": matrices, "weight_decay": weight_decay, "lr_factor": muon_lr_factor}],
                momentum=_MUON_MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )

    def step(self, *, lr: float) -> None:
        """Move every parameter that has a gradient."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = lr * group["lr_factor"]
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What `load` takes."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load(self, saved: dict[str, Any], *, where: str) -> None:
        """Go on from what `state_dict` gave. FileError unless it fits: it knows parameters by their place alone."""
        try:
            fits = saved.keys() == self._parts.keys()
            for name, part in self._parts.items():
                part.load_state_dict(saved[name])
                # The fused step trusts the shapes; with wrong ones it would write beyond the end.
                fits &= all(
                    moment.shape == parameter.shape
                    for parameter, state in part.state.items()
                    for moment in (state[key] for key in _MOMENTS[name])
                )
        except (ValueError, KeyError, AttributeError, TypeError):
            fits = False
        if not fits:
            raise FileError("the optimiser's state is of other weights", where=where, fix="begin another run")


_MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}


def _is_block_matrix(name: str, parameter: Tensor) -> bool:
    """The matrices between streams of full width; the low-rank ones and the embedding stay with AdamW."""
    return name.startswith("blocks.") and name.endswith(".weight") and parameter.dim() == 2
