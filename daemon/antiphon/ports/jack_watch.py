"""A JACK client that only looks: is the server alive, which MIDI ports are there, who is connected to whom.

RtMidi can tell none of the first and last: a client whose server died still lists the ports of the shared memory
it holds, and sends into the void. Owns one client that never joins the audio graph, so it costs the server nothing.
The calls go to the very libjack that rtmidi has loaded; no Python runs in any of JACK's threads.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

from antiphon.errors import PortError
from antiphon.ports.matching import OWN, Plugged

_MIDI: Final = b"8 bit raw midi"  # jack/midiport.h
_NO_START_SERVER: Final = 0x01  # jack/types.h
_IS_INPUT: Final = 0x1
_IS_OUTPUT: Final = 0x2
_SEM_T_BYTES: Final = 64  # at least sizeof(sem_t), which is 32 on Linux

_Address = ctypes.c_void_p
_Strings = ctypes.POINTER(ctypes.c_char_p)


class JackWatch:
    """Looks at the server that JACK_DEFAULT_SERVER names. Raises PortError when none answers."""

    def __init__(self) -> None:
        self._jack = _library()
        self._libc = ctypes.CDLL(None)
        self._client = self._jack.jack_client_open(f"{OWN}-watch".encode(), _NO_START_SERVER, None)
        if not self._client:
            raise PortError("no JACK server answers", fix="start one, for example `jackd -d alsa`")
        # JACK's own thread posts this semaphore when the server goes: plain C calling plain C.
        self._gone = ctypes.create_string_buffer(_SEM_T_BYTES)
        self._libc.sem_init(self._gone, 0, 0)
        post = ctypes.cast(self._libc.sem_post, _Address)
        self._jack.jack_on_shutdown(self._client, post, ctypes.cast(self._gone, _Address))

    @property
    def alive(self) -> bool:
        posted = ctypes.c_int()
        self._libc.sem_getvalue(self._gone, ctypes.byref(posted))
        return posted.value == 0

    def ports(self) -> Plugged:
        """All MIDI ports of the server, our own included."""
        # What writes is an output for JACK and an input for us.
        return Plugged(inputs=self._ports(_IS_OUTPUT), outputs=self._ports(_IS_INPUT))

    def ours_at(self, port: str) -> int:
        """How many of our clients' ports are connected to this port, in the graph that runs now."""
        handle = self._jack.jack_port_by_name(self._client, port.encode())
        if not handle:
            return 0
        peers = self._strings(self._jack.jack_port_get_all_connections(self._client, handle))
        return sum(peer.startswith(OWN) for peer in peers)

    def close(self) -> None:
        self._jack.jack_client_close(self._client)

    def _ports(self, flag: int) -> tuple[str, ...]:
        return self._strings(self._jack.jack_get_ports(self._client, None, _MIDI, flag))

    def _strings(self, array: ctypes._Pointer[ctypes.c_char_p]) -> tuple[str, ...]:
        if not array:
            return ()
        strings: list[str] = []
        while (text := array[len(strings)]) is not None:
            strings.append(text.decode(errors="replace"))
        self._jack.jack_free(ctypes.cast(array, _Address))
        return tuple(strings)


def hush() -> None:
    """Keep libjack from writing to our stderr whatever it fails at; what matters is reported as a Fault."""
    jack = _library()
    # A function of libc that takes a string and has no effect stands in for JACK's printing.
    nothing = ctypes.cast(ctypes.CDLL(None).strlen, _Address)
    jack.jack_set_error_function(nothing)
    jack.jack_set_info_function(nothing)


def _library() -> ctypes.CDLL:
    """The libjack that rtmidi has loaded, be it the wheel's own or the system's."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        path = line.partition("/")[1] + line.partition("/")[2]
        if Path(path).name.startswith("libjack"):
            return _typed(ctypes.CDLL(path))
    raise PortError("rtmidi was built without JACK", fix="install the python-rtmidi wheel, or build it with JACK")


def _typed(jack: ctypes.CDLL) -> ctypes.CDLL:
    jack.jack_client_open.restype = _Address
    jack.jack_client_open.argtypes = [ctypes.c_char_p, ctypes.c_int, _Address]
    jack.jack_client_close.argtypes = [_Address]
    jack.jack_on_shutdown.argtypes = [_Address, _Address, _Address]
    jack.jack_on_shutdown.restype = None
    jack.jack_get_ports.restype = _Strings
    jack.jack_get_ports.argtypes = [_Address, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong]
    jack.jack_port_by_name.restype = _Address
    jack.jack_port_by_name.argtypes = [_Address, ctypes.c_char_p]
    jack.jack_port_get_all_connections.restype = _Strings
    jack.jack_port_get_all_connections.argtypes = [_Address, _Address]
    jack.jack_free.argtypes = [_Address]
    jack.jack_free.restype = None
    jack.jack_set_error_function.argtypes = [_Address]
    jack.jack_set_error_function.restype = None
    jack.jack_set_info_function.argtypes = [_Address]
    jack.jack_set_info_function.restype = None
    return jack
