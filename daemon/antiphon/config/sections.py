"""The settings: one frozen dataclass per section, each setting with its default, its rule and its reason.

`load` fills these from YAML and checks every value by its rule; a section made in code is taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from antiphon.config.rules import Flag, MeterText, Number, OneOf, Rule, Text, Whole

Api = Literal["auto", "alsa", "jack", "loopback"]
ClockSource = Literal["internal", "midi"]
Start = Literal["first_note", "immediately"]
ClickDuring = Literal["always", "listening", "count_in"]
Remember = Literal["both", "player"]
Level = Literal["debug", "info", "warning", "error"]


def setting(default: object, rule: Rule, why: str) -> Any:
    """A field with its default, the rule that a value from a file must meet, and one line of why."""
    return field(default=default, metadata={"rule": rule, "why": why})


def section(kind: type, why: str) -> Any:
    """A field that holds a section of its own."""
    return field(default_factory=kind, metadata={"section": kind, "why": why})


def several(kind: type, why: str) -> Any:
    """A field that holds one or more sections of the same kind; by default one, with that kind's defaults."""
    return field(default_factory=lambda: (kind(),), metadata={"several": kind, "why": why})


_PATTERN = "a pattern on port names such as 'keys*'"
_NOTE = Whole(0, 127)


@dataclass(frozen=True, slots=True, kw_only=True)
class Midi:
    """How MIDI gets in and out of this machine."""

    api: Api = setting(
        "auto",
        OneOf(get_args(Api)),
        "auto takes ALSA where it exists, else a running JACK server, else loopback.",
    )
    late_ms: int = setting(
        20,
        Whole(0, 1000),
        "A note-on later than this is dropped: a missing note disturbs less than a late one.",
    )
    loopback_path: str = setting(
        "",
        Text("a path", may_be_empty=True, longest=100),
        "Where the loopback port's socket lies; empty for a new one in the temporary directory.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the beat comes from, and who gets to hear it."""

    source: ClockSource = setting(
        "internal",
        OneOf(get_args(ClockSource)),
        "internal keeps the tempo below; midi follows the MIDI clock of a DAW or drum machine.",
    )
    bpm: float = setting(
        120.0, Number(20.0, 400.0), "Tempo in quarters a minute, in every meter; a MIDI clock overrides it."
    )
    meter: str = setting("4/4", MeterText(), "The bar of both sources, for a MIDI clock tells beats but not bars.")
    start: Start = setting(
        "first_note",
        OneOf(get_args(Start)),
        "first_note lays bar 1 where the first note is played; immediately starts with the daemon.",
    )
    count_in_bars: int = setting(
        0, Whole(0, 8), "Bars of clicks before bar 1, so that the first bar can be played in time."
    )
    input: str = setting("*", Text(_PATTERN), "The port whose MIDI clock is followed when the source is midi.")
    output: str = setting(
        "",
        Text(_PATTERN, may_be_empty=True),
        "The port that gets our MIDI clock, so that drum machines keep up; empty for none.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """A metronome, so that the player hears where the bar line is."""

    output: str = setting("", Text(_PATTERN, may_be_empty=True), "The port that clicks; empty for no click.")
    channel: int = setting(10, Whole(1, 16), "10 is where General MIDI keeps its percussion.")
    accent: int = setting(76, _NOTE, "The note of a bar's first beat; 76 is a high wood block.")
    beat: int = setting(77, _NOTE, "The note of every other beat; 77 is a low wood block.")
    velocity: int = setting(100, Whole(1, 127), "How loud it clicks; the accent differs by its note alone.")
    during: ClickDuring = setting(
        "always",
        OneOf(get_args(ClickDuring)),
        "listening keeps quiet while the box answers; count_in clicks before bar 1 only.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How boldly an answer is chosen."""

    temperature: float = setting(
        1.0, Number(0.0, 4.0), "Below 1 plays safer, above 1 bolder; 0 always takes the likeliest."
    )
    top_p: float = setting(
        0.98, Number(0.0, 1.0), "Only the likeliest choices that share this much probability; 1 for all."
    )
    top_k: int = setting(0, Whole(0, 65536), "Only this many likeliest choices; 0 for all.")
    min_p: float = setting(
        0.0, Number(0.0, 1.0), "Only choices at least this likely, beside the likeliest one; 0 for all."
    )
    seed: int | None = setting(
        None,
        Whole(0, 2**63 - 1, optional=True),
        "A number makes a session repeatable; null differs every time.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The musician's bounds: no answer leaves them."""

    lowest: int = setting(21, _NOTE, "The lowest note of an answer; 21 is a piano's lowest.")
    highest: int = setting(108, _NOTE, "The highest note of an answer; 108 is a piano's highest.")
    max_notes_at_once: int = setting(10, Whole(1, 128), "Most notes that sound together; ten fingers by default.")
    end_on_strong_beat: bool = setting(
        True, Flag(), "true has the last onset fall on a strong beat of the last bar; false ends anywhere."
    )
    copy_bars: bool = setting(False, Flag(), "true lets an answer repeat a bar that was played, note for note.")


_STRENGTH = Number(0.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How closely an answer keeps to what was played; 0 leaves it to the model, 1 is moderate."""

    key: float = setting(1.0, _STRENGTH, "Fewer notes foreign to what was played and to its key.")
    register: float = setting(1.0, _STRENGTH, "Fewer notes above the highest and below the lowest that was played.")
    density: float = setting(1.0, _STRENGTH, "As many notes in a bar, and at once, as were played.")
    dynamics: float = setting(1.0, _STRENGTH, "Neither much softer nor much louder than was played.")
    motifs: float = setting(1.0, _STRENGTH, "More of the rhythms and of the moves from note to note that were played.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """Someone who plays and is answered; several may play at once, each with a policy of their own."""

    name: str = setting("player", Text("a name", longest=64), "What logs and files call this player; unique.")
    input: str = setting(
        "*", Text(_PATTERN), "The port that is listened to, now or when it appears; '*' is every keyboard."
    )
    output: str = setting("same", Text(f"same, or {_PATTERN}"), "Where answers go; same is the device that was played.")
    channel: int = setting(
        0,
        Whole(0, 16),
        "0 hears all and answers on the channel last heard; 1 to 16 hears and answers on that one.",
    )
    listen_bars: int = setting(4, Whole(1, 64), "Bars that the player has before the answer.")
    answer_bars: int = setting(4, Whole(1, 64), "Bars of the answer, before it is the player's turn again.")
    enabled: bool = setting(True, Flag(), "false keeps the settings of a player who is not there today.")
    commit_ms: int = setting(
        60,
        Whole(0, 1000),
        "What is heard later than this before the bar line no longer changes the answer's first note.",
    )
    yield_after_beats: float = setting(
        1.0,
        Number(0.0, 64.0),
        "Notes played this soon after the answer began end the phrase; later ones end the answer.",
    )
    pickup_beats: float = setting(
        0.5, Number(0.0, 16.0), "Notes played this shortly before the player's turn belong to it already."
    )
    remember: Remember = setting(
        "both",
        OneOf(get_args(Remember)),
        "both lets the model recall its own answers; player only what was played.",
    )
    output_latency_ms: int = setting(
        0, Whole(-1000, 1000), "Answers are sent this much earlier, for a synthesizer that sounds late."
    )
    input_latency_ms: int = setting(
        0, Whole(0, 1000), "Notes are taken as played this much earlier, for a keyboard that reports late."
    )
    sampling: Sampling = section(Sampling, "How boldly an answer is chosen.")
    limits: Limits = section(Limits, "The bounds of an answer.")
    likeness: Likeness = section(
        Likeness, "How closely an answer keeps to what was played; 0 leaves it to the model, 1 is moderate."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model that answers."""

    path: str = setting(
        "bundled",
        Text("bundled, or the path of a .safetensors file", longest=1000),
        "bundled is the model that comes with Antiphon.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the daemon says about its work, on standard error."""

    level: Level = setting("info", OneOf(get_args(Level)), "debug adds every plan and every port event.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    midi: Midi = section(Midi, "How MIDI gets in and out of this machine.")
    clock: Clock = section(Clock, "Where the beat comes from, and who gets to hear it.")
    click: Click = section(Click, "A metronome, so that the player hears where the bar line is.")
    players: tuple[Player, ...] = several(Player, "Who plays; by default one player on any keyboard.")
    model: Model = section(Model, "The model that answers.")
    log: Log = section(Log, "What the daemon says about its work.")
