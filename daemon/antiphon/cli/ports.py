"""`antiphon ports`: which MIDI ports are there, under the names that patterns are matched against?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from antiphon.errors import PortError

if TYPE_CHECKING:
    from antiphon.ports.matching import Plugged


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "ports",
        help="list the MIDI ports",
        description="List the MIDI ports by the names that `input` and `output` in the configuration are matched "
        "against: the whole name, or the part before or after the colon, whatever the case.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises PortError (exit code 1) where there is no MIDI system."""
    from antiphon.ports.opening import look

    found = look()
    if args.json:
        print(json.dumps({api: _told(plugged) for api, plugged in found.items()}, indent=2))
        return 0 if found else 1
    if not found:
        raise PortError(
            "this machine has no MIDI: no ALSA sequencer (/dev/snd/seq), and no JACK server answers",
            fix="load ALSA's with `modprobe snd-seq`, or start a JACK server (without a sound card: "
            "`jackd -S -d dummy`); with neither, `midi: {api: loopback}` lets programs on this machine connect",
        )
    for number, (api, plugged) in enumerate(found.items()):
        print(f"{api.upper()}{', which api: auto takes' if number == 0 else ''}")
        _list("inputs, which we can hear", plugged.inputs)
        _list("outputs, which we can play", plugged.outputs)
    return 0


def _told(plugged: Plugged) -> dict[str, list[dict[str, Any]]]:
    return {
        side: [{"name": name, "keyboard": keyboard} for name, keyboard in _named(raws)]
        for side, raws in (("inputs", plugged.inputs), ("outputs", plugged.outputs))
    }


def _named(raws: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Each port's name, and whether the pattern `*` takes it."""
    from antiphon.ports.matching import is_keyboard, name_of

    return [(name_of(raw), is_keyboard(raw)) for raw in raws]


def _list(title: str, raws: tuple[str, ...]) -> None:
    print(f"  {title}:")
    for name, keyboard in _named(raws):
        print(f"    {name}" if keyboard else f"    {name}   (not taken by '*')")
    if not raws:
        print("    none")
