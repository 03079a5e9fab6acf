"""What may stand in a setting: a rule reads one YAML scalar into a value, or refuses it and says why."""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import Protocol

from antiphon.config.tree import Scalar


class Refused(ValueError):
    """A scalar that a rule does not take: `what` is wrong with it, and the `hint` where one is near."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Rule(Protocol):
    """Reads a scalar; `allowed` says in words what it takes."""

    @property
    def allowed(self) -> str: ...

    def read(self, scalar: Scalar) -> object:
        """The value of the setting. Raises Refused."""
        ...


def shown(scalar: Scalar) -> str:
    """The scalar as an error message shows it."""
    return repr(scalar.text) if len(scalar.text) <= 60 else repr(scalar.text[:57] + "...")


def nearest(word: str, known: tuple[str, ...]) -> str:
    """The known word that `word` probably stands for, or nothing."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word[:80].lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"

    def read(self, scalar: Scalar) -> str:
        if scalar.text in self.words:
            return scalar.text
        raise Refused(f"{shown(scalar)} is not known", hint=nearest(scalar.text, self.words))


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`; null where it is optional."""

    low: int
    high: int
    optional: bool = False

    @property
    def allowed(self) -> str:
        return f"a whole number, {self.low} to {self.high}{', or null' if self.optional else ''}"

    def read(self, scalar: Scalar) -> int | None:
        value = scalar.value
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused(f"{shown(scalar)} is not a whole number")
        if not self.low <= value <= self.high:
            raise Refused(f"{shown(scalar)} is {'below' if value < self.low else 'above'} the range")
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, fractions included."""

    low: float
    high: float

    @property
    def allowed(self) -> str:
        return f"a number, {self.low:g} to {self.high:g}"

    def read(self, scalar: Scalar) -> float:
        value = scalar.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise Refused(f"{shown(scalar)} is not a number")
        if not self.low <= value <= self.high:
            raise Refused(f"{shown(scalar)} is {'below' if value < self.low else 'above'} the range")
        return float(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    @property
    def allowed(self) -> str:
        return "true or false"

    def read(self, scalar: Scalar) -> bool:
        if isinstance(scalar.value, bool):
            return scalar.value
        raise Refused(f"{shown(scalar)} is neither true nor false")


@dataclass(frozen=True, slots=True)
class Text:
    """Words as they are written; `010` or `on` stay what they are."""

    what: str = "text"
    may_be_empty: bool = False
    longest: int = 256

    @property
    def allowed(self) -> str:
        return f"{self.what}{', or empty' if self.may_be_empty else ''}"

    def read(self, scalar: Scalar) -> str:
        if scalar.value is None or not scalar.text.strip():
            if self.may_be_empty and scalar.value is not None and not scalar.text:
                return ""
            raise Refused("is empty")
        if len(scalar.text) > self.longest:
            raise Refused(f"{shown(scalar)} has more than {self.longest} characters")
        # Cc: control characters; Cs: halves of surrogate pairs, which no terminal and no file name can show.
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in scalar.text):
            raise Refused(f"{shown(scalar)} holds a control character")
        return scalar.text


@dataclass(frozen=True, slots=True)
class MeterText:
    """A time signature such as 6/8; a bar is at most 12 quarters long, which is what a model can write."""

    @property
    def allowed(self) -> str:
        return "a meter such as 4/4, 3/4 or 6/8, a bar being at most 12 quarters long"

    def read(self, scalar: Scalar) -> str:
        match = re.fullmatch(r"([1-9][0-9]?)/(1|2|4|8|16)", scalar.text)
        if match is None:
            raise Refused(f"{shown(scalar)} is not a meter")
        if 4 * int(match[1]) > 12 * int(match[2]):
            raise Refused(f"a bar of {scalar.text} is too long")
        return scalar.text
