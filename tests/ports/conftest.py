"""The line with a real ports process behind it, on the loopback and, where there is one, on a JACK server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from ports.devices import Device, plug

from antiphon.errors import PortError
from antiphon.ports.line import Line
from antiphon.ports.messages import FromPorts, Want

M = TypeVar("M")
PATIENCE_S = 10.0

THE_PLAYER = (Want(port=0, direction="in"), Want(port=1, direction="out", same_as=0))


class Rig:
    """A line, what came over it, and the keyboards that were plugged in."""

    def __init__(self, api: str, path: Path) -> None:
        self.api = api
        self.path = path
        self.came: list[FromPorts] = []
        self.deaths: list[PortError] = []
        self.devices: list[Device] = []

    def run(self, story: Callable[[Line], Awaitable[None]], *, wants: Sequence[Want] = THE_PLAYER) -> None:
        """Tell a story on an open line, and stop the line whatever happens."""

        async def main() -> None:
            line = await Line.start(
                api=self.api,
                wants=wants,
                loopback_path=self.path,
                on_message=self.came.append,
                on_death=self.deaths.append,
            )
            try:
                line.open()
                await story(line)
            finally:
                await line.stop()

        asyncio.run(main())

    def plug(self, name: str = "keys") -> Device:
        device = plug(self.api, name=name, path=self.path)
        self.devices.append(device)
        return device

    async def until(self, kind: type[M], where: Callable[[M], bool] = lambda _: True, *, times: int = 1) -> M:
        """The last of so many messages of this kind for which `where` holds; fails when they do not come."""
        until = time.monotonic() + PATIENCE_S
        while True:
            found = [message for message in self.came if isinstance(message, kind) and where(message)]
            if len(found) >= times:
                return found[times - 1]
            if time.monotonic() > until:
                pytest.fail(f"no {kind.__name__} number {times} came, only {self.came}", pytrace=False)
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session", params=["loopback", pytest.param("jack", marks=pytest.mark.jack)])
def api(request: pytest.FixtureRequest) -> str:
    """Each MIDI system that tests can have. Of the session, so that the server is there before a test is watched."""
    if request.param == "jack":
        request.getfixturevalue("jack_server")
    return str(request.param)


@pytest.fixture
def rig(api: str, tmp_path: Path) -> Iterator[Rig]:
    yield from _rig(api, tmp_path)


@pytest.fixture
def jack_rig(jack_server: str, tmp_path: Path) -> Iterator[Rig]:
    yield from _rig("jack", tmp_path)


def _rig(api: str, folder: Path) -> Iterator[Rig]:
    rig = Rig(api, folder / "loopback.sock")
    yield rig
    for device in rig.devices:
        device.close()
