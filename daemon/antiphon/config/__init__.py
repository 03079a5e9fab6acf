"""The configuration: what may be set, read from YAML with every mistake told at once, and written back."""

from __future__ import annotations

from antiphon.config.dump import dump, reference
from antiphon.config.load import ETC, load, load_files
from antiphon.config.problem import InvalidConfig, Problem
from antiphon.config.sections import Click, Clock, Config, Likeness, Limits, Log, Midi, Model, Player, Sampling

__all__ = [
    "ETC",
    "Click",
    "Clock",
    "Config",
    "InvalidConfig",
    "Likeness",
    "Limits",
    "Log",
    "Midi",
    "Model",
    "Player",
    "Problem",
    "Sampling",
    "dump",
    "load",
    "load_files",
    "reference",
]
