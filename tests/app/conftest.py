"""A box to play to: the daemon as a process of its own, on a JACK server or on the loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from antiphon.cli.rehearsal import Rehearsal
from tests.small_model import write_small_model

Start = Callable[..., Rehearsal]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="session", params=["loopback", "jack"])
def api(request: pytest.FixtureRequest) -> str:
    """The MIDI system. Of session scope, so that the server is there before a test counts its processes."""
    if request.param == "jack":
        request.getfixturevalue("jack_server")
    return str(request.param)


@pytest.fixture
def start(api: str, model_file: Path) -> Iterator[Start]:
    """Starts a daemon with the given YAML, by default with the small model, and plugs the device in."""
    with ExitStack() as stack:

        def start(config: str, *, model: Path = model_file) -> Rehearsal:
            midi = "" if api == "loopback" else f"midi: {{api: {api}}}\n"
            text = f"{config}\n{midi}model: {{path: {model}}}\n"
            return stack.enter_context(Rehearsal(api=api, config=text, device="keys"))

        yield start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "[jack" in item.name:
            item.add_marker("jack")
