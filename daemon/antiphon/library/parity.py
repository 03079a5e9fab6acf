"""Two sets of logits for the same ids, kept in folders and compared: is one engine's answer another's?

A folder holds `final_logits.bin` and `final_probs.bin` (little-endian float32, one number per id of the vocabulary)
and `final_logits.json` (the same, with the ids, how they were computed and how fast).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.errors import FileError
from antiphon.model.whole_file import whole_file

Floats = npt.NDArray[np.float32]

LOGITS, PROBS, TOLD = "final_logits.bin", "final_probs.bin", "final_logits.json"
PROMPT = "prompt-"
"""Folders of several prompts hold one folder of these names for each."""

EPSILON = 1e-12
"""Added to both probabilities before a logarithm, as candle_rwkv7's comparison does."""

TOP = 5
MAX_VOCABULARY = 1 << 24
_FASTEST = 1e12
_LITTLE = np.dtype("<f4")

LIMITS = {"fp32": 1e-5, "bf16": 0.05, "fp16": 0.01, "int8": 0.25, "int8-groups": 0.2, "int4": 2.0}
"""What the largest logit difference may be, in standard deviations of the logits, by the coarser precision of the two.

1e-5 is what float32 engines are held to. The others allow for the rounding of the weights: about two and a half times
what that came to over ten prompts of random ids on a music model of 6 layers x 256.
"""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Outcome:
    """What a model foretells after some ids: float32 logits and probabilities [V], and how they came about."""

    logits: Floats
    probs: Floats
    tokens: tuple[int, ...]
    precision: str
    told: dict[str, Any]

    @classmethod
    def of(cls, logits: Floats, *, tokens: Sequence[int], precision: str, told: dict[str, Any]) -> Outcome:
        """The outcome with its probabilities; ValueError when the logits are no logits."""
        if not np.isfinite(logits).all():
            raise ValueError("the logits hold a NaN or an infinity")
        probs = softmax(logits)
        if not are_probabilities(probs):
            raise ValueError("the probabilities do not sum to 1")
        return cls(logits=logits, probs=probs, tokens=tuple(tokens), precision=precision, told=told)

    @property
    def tokens_per_s(self) -> float | None:
        """How fast the ids were fed, where that is known."""
        speed = self.told.get("tokens_per_sec")
        return float(speed) if isinstance(speed, int | float) and 0 < speed < _FASTEST else None


def are_probabilities(probs: Floats) -> bool:
    """Whether none is below 0 and they sum to 1, as closely as candle_rwkv7's verify_math asks."""
    return float(probs.min()) >= 0 and abs(float(probs.sum(dtype=np.float64)) - 1.0) <= 5e-4


def softmax(logits: Floats) -> Floats:
    """The probabilities, in float64 and then rounded to float32."""
    wide = logits.astype(np.float64)
    raised = np.exp(wide - wide.max())
    probs: Floats = (raised / raised.sum()).astype(np.float32)
    return probs


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the three files into `folder`, which is made if needed. Raises FileError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot be made: {error.strerror}", where=str(folder)) from error
    told = {
        "tokens": list(outcome.tokens),
        "num_tokens": len(outcome.tokens),
        "vocab_size": len(outcome.logits),
        "precision": outcome.precision,
        **outcome.told,
        "logits": [float(value) for value in outcome.logits],
        "probs": [float(value) for value in outcome.probs],
    }
    with whole_file(folder / LOGITS) as file:
        file.write(outcome.logits.astype(_LITTLE).tobytes())
    with whole_file(folder / PROBS) as file:
        file.write(outcome.probs.astype(_LITTLE).tobytes())
    with whole_file(folder / TOLD) as file:
        file.write(json.dumps(told).encode() + b"\n")


def read_outcome(folder: Path) -> Outcome:
    """The outcome in `folder`; the two .bin files are what counts. Raises FileError."""
    logits, probs = _floats(folder / LOGITS), _floats(folder / PROBS)
    if len(logits) != len(probs):
        raise FileError(f"{LOGITS} has {len(logits)} numbers and {PROBS} {len(probs)}", where=str(folder))
    if not are_probabilities(probs):
        raise FileError("holds no probabilities: none may be below 0, and they sum to 1", where=str(folder / PROBS))
    told = _told(folder / TOLD)
    tokens = told.get("tokens", [])
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise FileError("its tokens are no list of ids", where=str(folder / TOLD))
    precision = told.get("precision", "fp32")
    if not isinstance(precision, str) or precision not in LIMITS:
        raise FileError(f"precision {str(precision)[:40]!r} is unknown", where=str(folder / TOLD))
    return Outcome(logits=logits, probs=probs, tokens=tuple(tokens), precision=precision, told=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far B's outcome lies from A's, the reference's.

    `linf`, `l1`, `l2` are of the probabilities; `mse`, `mae`, `correlation` and `deviation` of the logits, deviation
    being the largest difference over the standard deviation of A's logits; `kl_ab` and `kl_ba` are in nats.
    """

    linf: float
    l1: float
    l2: float
    mse: float
    mae: float
    correlation: float
    kl_ab: float
    kl_ba: float
    deviation: float
    top_a: tuple[int, ...]
    top_b: tuple[int, ...]
    speed_a: float | None
    speed_b: float | None

    @property
    def same_top(self) -> bool:
        """Whether both hold the same id for the likeliest."""
        return self.top_a[0] == self.top_b[0]

    @property
    def top_overlap(self) -> int:
        """How many of A's likeliest ids are among B's."""
        return len(set(self.top_a) & set(self.top_b))


def compare(a: Outcome, b: Outcome) -> Comparison:
    """B measured against A. ValueError when they are not of the same ids or vocabulary."""
    if len(a.logits) != len(b.logits):
        raise ValueError(f"vocabularies of {len(a.logits)} and {len(b.logits)} ids")
    if a.tokens and b.tokens and a.tokens != b.tokens:
        raise ValueError("they were fed different ids")
    logits_a, logits_b = a.logits.astype(np.float64), b.logits.astype(np.float64)
    probs_a, probs_b = a.probs.astype(np.float64), b.probs.astype(np.float64)
    by_logit, by_prob = logits_b - logits_a, probs_b - probs_a
    spread = float(logits_a.std())
    furthest = float(np.abs(by_logit).max())
    return Comparison(
        linf=float(np.abs(by_prob).max()),
        l1=float(np.abs(by_prob).sum()),
        l2=float(np.sqrt((by_prob**2).sum())),
        mse=float((by_logit**2).mean()),
        mae=float(np.abs(by_logit).mean()),
        correlation=_correlation(logits_a, logits_b),
        kl_ab=_kl(probs_a, probs_b),
        kl_ba=_kl(probs_b, probs_a),
        deviation=furthest / spread if spread > 0 else (0.0 if furthest == 0 else math.inf),
        top_a=_top(logits_a),
        top_b=_top(logits_b),
        speed_a=a.tokens_per_s,
        speed_b=b.tokens_per_s,
    )


def limit_of(a: Outcome, b: Outcome) -> float:
    """How far the two may lie apart: the looser limit of their precisions."""
    return max(LIMITS[a.precision], LIMITS[b.precision])


def folders_of(a: Path, b: Path) -> list[tuple[str, Path, Path]]:
    """What there is to compare: the two folders, or each prompt's folders in them. Raises FileError."""
    inside_a, inside_b = ({path.name for path in folder.glob(f"{PROMPT}*") if path.is_dir()} for folder in (a, b))
    if not inside_a and not inside_b:
        return [("", a, b)]
    if inside_a != inside_b:
        only = sorted(inside_a ^ inside_b)[0]
        raise FileError(f"{only} is in one of them only", where=f"{a} and {b}", fix="verify both with the same prompts")
    return [(name, a / name, b / name) for name in sorted(inside_a)]


def _floats(path: Path) -> Floats:
    try:
        size = path.stat().st_size
        if size == 0 or size % 4 or size > 4 * MAX_VOCABULARY:
            raise FileError(f"{size} bytes are no float32 numbers of a vocabulary", where=str(path))
        values = np.fromfile(path, _LITTLE).astype(np.float32)
    except OSError as error:
        fix = "name a folder that `antiphon models verify` has written"
        raise FileError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from error
    if not np.isfinite(values).all():
        raise FileError("holds a NaN or an infinity", where=str(path))
    return values


def _told(path: Path) -> dict[str, Any]:
    """What the JSON says beside the numbers; nothing when there is none."""
    try:
        if path.stat().st_size > 64 * MAX_VOCABULARY:
            raise FileError("is far too large", where=str(path))
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise FileError("is not JSON", where=str(path)) from error
    if not isinstance(told, dict):
        raise FileError("is not a table", where=str(path))
    return {key: value for key, value in told.items() if key not in ("logits", "probs")}


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else float(np.array_equal(a, b))


def _kl(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    return float((p * np.log((p + EPSILON) / (q + EPSILON))).sum())


def _top(logits: npt.NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(-logits, kind="stable")[:TOP])
