"""`antiphon daemon`: run the box. It listens, answers on the bar line, and stops cleanly at SIGTERM or Ctrl-C.

SIGUSR1 is a panic button: every output falls silent at once. So is all-sound-off (CC120) from a keyboard.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.app import App


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("daemon", help="run the box", description=__doc__)
    parser.add_argument(
        "--config", type=Path, metavar="F", help="a configuration file (default: that of /etc/antiphon)"
    )
    parser.add_argument("--journal", type=Path, metavar="F", help="write what happens to F, a line of JSON each")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop. Raises ConfigError before anything is opened, and whatever the box died of."""
    import asyncio
    import logging
    import signal
    import sys

    from antiphon.config.load import load

    config = load(args.config)
    logging.basicConfig(
        level=config.log.level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )

    from antiphon.app import listen
    from antiphon.service import notify

    def on_ready(app: App) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, app.finish)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, app.panic)
        players = ", ".join(player.name for player in config.players if player.enabled)
        logging.getLogger("antiphon").info("ready: listening for %s", players)
        notify("READY=1\nSTATUS=listening")

    asyncio.run(listen(config, journal=args.journal, on_ready=on_ready))
    notify("STOPPING=1")
    return 0
