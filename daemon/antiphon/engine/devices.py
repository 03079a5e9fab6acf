"""Where a model may run: the processor, or one of the GPUs, named by number or by UUID.

GPUs are those that CUDA shows to this process, in its order. S0-163: how many, what they can do, and whether the
installed PyTorch has code for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from antiphon.errors import AntiphonError

_NAMED = re.compile(r"(cpu)|cuda(?::(\d{1,4}))?|(?:GPU-)?([0-9a-f][0-9a-f-]{3,35})", re.IGNORECASE)
_ARCH = re.compile(r"(sm|compute)_(\d+?)(\d)[af]?")
_FIX = "give cpu, cuda, cuda:N or a GPU's UUID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. capability: CUDA's (major, minor). usable: whether the installed PyTorch has code for it."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    capability: tuple[int, int]
    usable: bool

    @property
    def device(self) -> str:
        """What PyTorch calls it."""
        return f"cuda:{self.index}"


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process can see; none where there is no driver."""
    if not torch.cuda.is_available():
        return ()
    arches = torch.cuda.get_arch_list()
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = (int(properties.major), int(properties.minor))
        found.append(
            Gpu(
                index=index,
                name=properties.name,
                uuid=str(properties.uuid).lower(),
                total_bytes=int(properties.total_memory),
                capability=capability,
                usable=has_code_for(capability, arches),
            )
        )
    return tuple(found)


def has_code_for(capability: tuple[int, int], arches: Sequence[str]) -> bool:
    """Whether code built for `arches` (`sm_86`, `compute_90`, …) runs on a GPU of `capability`.

    Binaries run on their own major version from their minor on, PTX on everything newer. Source: the CUDA C++
    programming guide, on application compatibility.
    """
    for arch in arches:
        match = _ARCH.fullmatch(arch)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        if match[1] == "compute" and built <= capability:
            return True
        if match[1] == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return True
    return False


def device_of(text: str, found: Sequence[Gpu]) -> str:
    """`cpu` or `cuda:N` for what a person calls a device: `cpu`, `cuda`, `cuda:1`, `GPU-8932f937…` or its beginning.

    Raises AntiphonError for what is not among `found`, or cannot be used.
    """
    match = _NAMED.fullmatch(text.strip())
    if match is None:
        raise AntiphonError("no device is called that", where=text[:60], fix=_FIX)
    if match[1]:
        return "cpu"
    if not found:
        raise AntiphonError("there is no GPU that CUDA can use", where=text, fix="give cpu, or install a driver")
    if match[3]:
        fitting = [gpu for gpu in found if gpu.uuid.startswith(match[3].lower())]
        if len(fitting) > 1:
            raise AntiphonError(f"{len(fitting)} GPUs begin so", where=text, fix="give more of the UUID")
    else:
        fitting = [gpu for gpu in found if gpu.index == int(match[2] or 0)]
    if not fitting:
        raise AntiphonError("there is no such GPU", where=text, fix=f"there are {_listed(found)}")
    if not fitting[0].usable:
        major, minor = fitting[0].capability
        raise AntiphonError(
            f"the installed PyTorch has no code for {fitting[0].name} (compute capability {major}.{minor})",
            where=text,
            fix="install a build of PyTorch for it, or give cpu",
        )
    return fitting[0].device


def _listed(found: Sequence[Gpu]) -> str:
    return ", ".join(f"{gpu.device} ({gpu.name}, GPU-{gpu.uuid})" for gpu in found)
